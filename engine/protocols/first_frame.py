"""Measures a checkpoint on labelled videos with the semi-supervised protocols: J&F.

Each object is prompted on the first frame that shows it (with its mask, its box or clicks), tracked to the end, and
measured on the annotated frames with SA-V's evaluator. Source: Ravi et al. 2024, section 6 and appendix E.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from engine.datasets.labelled import Dataset, LabelledVideo
from engine.protocols.annotator import prompt_object
from engine.protocols.slices import slices_of
from engine.protocols.truth import Read, Truth, nothing_held_out
from storage import rle
from storage.pixels import Mask
from storage.records import Masklet
from validation import gate, jf
from validation.paired import MaskletJF

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.frame_masks import FrameMasks


# Clicks on the first frame that shows the object; 0: its true mask; -1: its box.
PROTOCOLS = {"mask": 0, "box": -1, "1-click": 1, "3-click": 3, "5-click": 5}
PROTOCOL = "3-click"  # the paper's, and that of rounds and experiments


@dataclass(frozen=True)
class Tracked:
    """An object that was prompted and tracked, for the measures beside J&F."""

    name: str
    truth: Truth
    made: Sequence[Mask]  # on the frames of the truth; empty before the prompted frame
    jf: jf.JF | None


@dataclass(frozen=True)
class Presence:
    """Number of frames after the prompt, and of those where the model was right about the object's visibility."""

    right: int
    frames: int


def measure(
    data: Dataset,
    loaded: LoadedModel,
    protocol: str,
    progress: Callable[[int, int, str], None] = lambda done, total, word: None,
    also: Callable[[str, Tracked], None] | None = None,
) -> gate.Metrics:
    """J&F on the objects of a dataset: each one's, the mean, and the means of the slices. protocol: a key of PROTOCOLS.

    also: gets the id of each video with each of its objects that was tracked.
    Raises NothingHeldOut, NotFinite, or the error of a bad video: an evaluation must not skip any.
    """
    found_jf = []
    most_frames: int | None = None
    for number, video in enumerate(data.videos()):
        progress(number, len(data), video.video_id)
        most_frames = max(most_frames or 0, len(video.frame_idx))
        hw = (video.height, video.width)
        with video.open() as reader:
            each = partial(also, video.video_id) if also else None
            found = semi_supervised(loaded, reader.read, hw, video.frame_count, Truth.all_of(video), protocol, each)
        found_jf += [
            MaskletJF(video_id=video.video_id, name=name, jf=metric.jf, slices=slices_of(video, name))
            for name, (metric, _) in found.items()
            if metric is not None
        ]
    if not found_jf:
        raise nothing_held_out(data, most_frames)
    return gate.Metrics.of(found_jf)


def semi_supervised(
    loaded: LoadedModel,
    read: Read,
    hw: tuple[int, int],
    frame_count: int,
    truths: Mapping[str, Truth],
    protocol: str,
    also: Callable[[Tracked], None] | None = None,
) -> dict[str, tuple[jf.JF | None, Presence]]:
    """Measures each object of one video. protocol: a key of PROTOCOLS. None for an object that is never visible."""
    from model.features import FeatureCache
    from model.tracker import Tracker

    results: dict[str, tuple[jf.JF | None, Presence]] = {}
    cohorts: dict[int, dict[str, Truth]] = defaultdict(dict)  # first visible frame -> objects
    for name, truth in truths.items():
        if truth.first is None:
            results[name] = (None, Presence(0, 0))
        else:
            cohorts[truth.frame_idx[truth.first]][name] = truth
    features = FeatureCache(loaded, read)
    for start, cohort in sorted(cohorts.items()):
        tracker = Tracker(loaded, features, video_hw=hw, frame_count=frame_count)
        for name, truth in cohort.items():
            prompt_object(tracker, name, start, truth.masks[truth.frame_idx.index(start)], PROTOCOLS[protocol])
        results |= _measure(tracker.propagate(start, frame_count), hw, cohort, also)
    return results


def masks_at(loaded: LoadedModel, read: Read, video: LabelledVideo, names: Sequence[str], frame: int) -> list[Mask]:
    """The masks of objects on one frame, each clicked on the first frame that shows it and tracked from there."""
    from model.features import FeatureCache
    from model.tracker import Tracker

    hw = (video.height, video.width)
    features = FeatureCache(loaded, read)
    made = []
    for name in names:
        start = min(video.objects[name])
        tracker = Tracker(loaded, features, video_hw=hw, frame_count=video.frame_count)
        prompt_object(tracker, name, start, video.mask(name, start), PROTOCOLS[PROTOCOL])
        made += [answer.masks(hw)[0] for answer in tracker.propagate(start, frame + 1) if answer.frame_idx == frame]
    return made


def _measure(
    answers: Iterable[FrameMasks],
    hw: tuple[int, int],
    cohort: Mapping[str, Truth],
    also: Callable[[Tracked], None] | None = None,
) -> dict[str, tuple[jf.JF | None, Presence]]:
    """Measures tracked objects. cohort: their true masks. answers: from the prompted frame on. Raises NotFinite."""
    positions = {name: {frame: i for i, frame in enumerate(truth.frame_idx)} for name, truth in cohort.items()}
    made: dict[str, list[bytes]] = {name: [] for name in cohort}
    right = dict.fromkeys(cohort, 0)
    for answer in answers:
        if not any(answer.frame_idx in at for at in positions.values()):
            continue
        for name, mask in zip(answer.object_ids, answer.masks(hw), strict=True):
            i = positions[name].get(answer.frame_idx)
            if i is None:
                continue
            if made[name]:
                right[name] += int(mask.any() == cohort[name].masks[i].any())
            made[name].append(rle.encode(mask))
    results = {}
    for name, truth in cohort.items():
        metric = truth.measure(made[name], hw)
        if also is not None:
            also(Tracked(name, truth, truth.with_nothing_before(made[name], hw), metric))
        results[name] = (metric, Presence(right[name], len(made[name]) - 1))
    return results


def jf_of_masklet(made: Masklet, truth: Masklet) -> jf.JF | None:
    """J and F of a masklet against the true masklet, on the frames of the true one. Both are of the same video."""
    nothing = rle.empty(truth.height, truth.width)
    at = dict(zip(made.frame_idx, made.rle, strict=True))
    return jf.of_rle([at.get(f, nothing) for f in truth.frame_idx], truth.rle, truth.height, truth.width)


def pooled(metrics: Sequence[jf.JF | None]) -> jf.JF | None:
    """The mean over all objects of all videos, as SA-V does. Objects that are never visible do not count."""
    return jf.mean([metric for metric in metrics if metric is not None])
