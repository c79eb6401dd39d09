"""How sure a masklet is, by tracking it once more: back to where it began, or forward with another checkpoint.

A masklet, tracked back from its end, should arrive at the mask that it began with. The idea is that of Kalal et al.
2010, "Forward-backward error", with masks instead of points. A masklet that went over to another object, or that was
never an object, rarely finds its way back. Two checkpoints that track the same mask should find the same object.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from model.checkpoints import LoadedModel
from model.features import FeatureCache, FrameSource
from model.tracker import Tracker
from storage import rle
from storage.iou import mask_iou
from storage.records import Prompt


def cycle_ious(
    loaded: LoadedModel,
    frames: FrameSource,
    hw: tuple[int, int],
    masklets: Mapping[str, Sequence[bytes]],
    *,
    first: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """For each masklet the IoU, in [0, 1], of its first mask and the one that comes back from its last visible frame.

    frames: gives the RGB frame of each mask.  hw: height and width in px.  masklets: COCO counts on all these frames.
    first: the frame of each masklet's first mask, for those that do not begin on frame 0.
    0 for a masklet that is visible on no frame after the first one. Every 4th frame of a video is enough, so this costs
    about a quarter of the tracking before it. Raises FloatingPointError if the model's output is not finite.
    """
    found = dict.fromkeys(masklets, 0.0)
    begins = {name: (first or {}).get(name, 0) for name in masklets}
    ends: dict[int, list[str]] = defaultdict(list)  # last visible frame -> masklets
    for name, masks in masklets.items():
        shown = [i for i, counts in enumerate(masks) if rle.area(counts, *hw)]
        if shown and shown[-1] > begins[name]:
            ends[shown[-1]].append(name)
    features = FeatureCache(loaded, frames)
    for last, names in sorted(ends.items()):
        tracker = Tracker(loaded, features, video_hw=hw, frame_count=last + 1)
        tracker.prompt_all({name: Prompt(frame_idx=last, mask_rle=masklets[name][last]) for name in names})
        for answer in tracker.propagate(last, min(begins[name] for name in names) - 1, reverse=True):
            back = [(row, name) for row, name in enumerate(answer.object_ids) if answer.frame_idx == begins[name]]
            drawn = answer.masks(hw) if back else ()
            for row, name in back:
                found[name] = float(mask_iou(drawn[row], rle.decode(masklets[name][answer.frame_idx], *hw)))
    return found


def followed_ious(
    loaded: LoadedModel,
    frames: FrameSource,
    hw: tuple[int, int],
    masklets: Mapping[str, Sequence[bytes]],
    *,
    first: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """For each masklet the IoU, in [0, 1], with what this checkpoint makes of its first mask; later frames together.

    The arguments are those of `cycle_ious`. A masklet begins on the first frame, from `first` on, that shows it, and is
    followed to the last one; 1 if no other frame shows it. All masklets are followed in one pass.
    Raises FloatingPointError if the model's output is not finite.
    """
    begins: dict[int, list[str]] = defaultdict(list)
    ends: dict[str, int] = {}
    for name, masks in masklets.items():
        shown = [i for i, counts in enumerate(masks) if i >= (first or {}).get(name, 0) and rle.area(counts, *hw)]
        if len(shown) > 1:
            begins[shown[0]].append(name)
            ends[name] = shown[-1]
    both, either = Counter[str](), Counter[str]()
    last = max(ends.values(), default=0)
    tracker = Tracker(loaded, FeatureCache(loaded, frames), video_hw=hw, frame_count=last + 1)
    for begin, until in pairwise([*sorted(begins), last]):
        tracker.prompt_all({name: Prompt(frame_idx=begin, mask_rle=masklets[name][begin]) for name in begins[begin]})
        walking = [name for start, names in begins.items() if start <= begin for name in names if ends[name] > begin]
        for answer in tracker.propagate(begin + 1, until + 1, objects=walking) if walking else ():
            for name, drawn in zip(answer.object_ids, answer.masks(hw), strict=True):
                if answer.frame_idx <= ends[name]:
                    mask = rle.decode(masklets[name][answer.frame_idx], *hw)
                    both[name] += int((drawn & mask).sum())
                    either[name] += int((drawn | mask).sum())
    return {name: both[name] / either[name] if either[name] else 1.0 for name in masklets}
