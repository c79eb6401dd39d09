"""The candidates of one video: its windows are searched one after another, and each object becomes one masklet.

An object goes on in the next window of its shot if it is found there on the frame that both windows share, or else with
the mask that it has on this frame. A cut ends all objects. Only the masks (RLE) of earlier windows stay in memory. In a
long video (LONG_S), a candidate has only the frames of the windows in which it was tracked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from engine.candidates import relations
from engine.candidates.config import SearchConfig
from engine.candidates.search import Carried, Finder, MaskOnFrame, Seed, WindowSearch
from engine.candidates.shots import glance, windows
from model.checkpoints import LoadedModel
from model.cycle import cycle_ious, followed_ious
from storage import rle
from storage.pixels import Rgb
from storage.records import FPS, STRIDE, Masklet, Video, content_id

LONG_S = 600  # thousands of objects with all frames of an hour, nearly all of them empty, would take gigabytes
_NO_MASK = np.zeros((0, 0), np.bool_)
SPECK_SHARE = 200 / (1401 * 1037)  # SA-V drops specks and holes below 200 px at its mean resolution


@dataclass
class Object:
    """An object of a video, with its masks in the windows that were searched so far."""

    name: str
    seed: Seed  # without its mask, which is large
    frame_idx: int  # on which it was found
    masks: dict[int, MaskOnFrame] = field(default_factory=dict)  # frame_idx -> mask


@dataclass
class Found:
    """The candidates of one video, and what the search cost."""

    masklets: list[Masklet]
    cuts: list[int]  # the first frame of each shot but the first
    keyframes: list[int]  # frame_idx of the frames on which objects were searched
    object_frames: int = 0  # frames times objects that the tracker propagated
    least_object_frames: int = 0  # the same, if it had propagated only the candidates


def find_candidates(
    video: Video,
    loaded: LoadedModel,
    read: Callable[[int], Rgb],
    find: Finder,
    config: SearchConfig,
    *,
    checkpoint: str,
    round_number: int,
    progress: Callable[[int], None] | None = None,
) -> Found:
    """Searches a video. read: gives the frame of an index, uint8 (H, W, 3) RGB.

    checkpoint, round_number: of the model.  progress: called with each frame_idx that is tracked forward.
    Raises NotFinite if the model gives no numbers.
    """
    hw = (video.height, video.width)
    look = glance(read, range(0, video.frame_count, config.step))
    found = Found([], list(look.cuts), [])
    objects: list[Object] = []
    spent: dict[str, int] = {}  # frames that the tracker propagated, by object
    for window in windows(range(0, video.frame_count, config.step), look.cuts, frames_of(config.window_s)):
        shared = window.frames.start
        carried = [c for c in (_carried(o, shared, hw) for o in objects if window.continues) if c is not None]
        search = WindowSearch(
            loaded,
            read,
            hw,
            window,
            find,
            config,
            change=look.change,
            speck_px=speck_px(hw),
            progress=progress,
        )
        searched = search.run(carried)
        found.keyframes += searched.keyframes
        found.object_frames += searched.object_frames
        known = {o.name: o for o in objects}
        for track in searched.tracks:
            each = known.get(track.continues or "")
            if each is None:
                seed = replace(track.seed, mask=_NO_MASK)
                each = Object(f"{len(objects):03d}", seed, window.frames[track.place])
                objects.append(each)
            each.masks |= track.masks
            spent[each.name] = spent.get(each.name, 0) + len(window.frames) - 1
    rows = [_masklet(video, o, checkpoint, round_number, config) for o in objects]
    kept = relations.without_duplicates([row for row in rows if any(row.area_px)], config.same_masklet)
    found.masklets = relations.with_parents(kept, config.inside)
    name = {row.masklet_id: o.name for row, o in zip(rows, objects, strict=True)}
    found.least_object_frames = sum(spent[name[row.masklet_id]] for row in kept)
    return found


def with_cycles(loaded: LoadedModel, read: Callable[[int], Rgb], masklets: Sequence[Masklet]) -> list[Masklet]:
    """The candidates of one video, with how well each finds its way back to where it was found: see `model.cycle`.

    Raises NotFinite.
    """
    return _tracked_again("cycle_iou", partial(cycle_ious, loaded), read, masklets)


def with_agreement(earlier: LoadedModel, read: Callable[[int], Rgb], masklets: Sequence[Masklet]) -> list[Masklet]:
    """The candidates of one video, with how well an earlier checkpoint follows each from its first mask.

    Raises NotFinite.
    """
    return _tracked_again("last_iou", partial(followed_ious, earlier), read, masklets)


def _tracked_again(
    figure: str, measure: Callable[..., dict[str, float]], read: Callable[[int], Rgb], masklets: Sequence[Masklet]
) -> list[Masklet]:
    """The candidates of one video with a figure in their provenance. measure: a function of `model.cycle`."""
    if not masklets:
        return []
    prompts = {row.masklet_id: json.loads(row.prompt) for row in masklets}
    hw, found = (masklets[0].height, masklets[0].width), dict[str, float]()
    for begin in sorted({row.frame_idx[0] for row in masklets}):  # only in a long video there are several
        rows = [row for row in masklets if row.frame_idx[0] == begin]
        # the first annotated frame from there on
        first = {row.masklet_id: -(-(prompts[row.masklet_id]["frame_idx"] - begin) // STRIDE) for row in rows}
        masks = {row.masklet_id: row.rle for row in rows}
        found |= measure(partial(_from, read, begin), hw, masks, first=first)
    return [
        replace(row, prompt=json.dumps(prompts[row.masklet_id] | {figure: round(found[row.masklet_id], 4)}))
        for row in masklets
    ]


def _from(read: Callable[[int], Rgb], begin: int, place: int) -> Rgb:
    """The annotated frame at a place, counted from the frame `begin`."""
    return read(begin + place * STRIDE)


def speck_px(hw: tuple[int, int]) -> int:
    """The area below which a speck or a hole is dropped, for a frame of this size."""
    return max(4, round(SPECK_SHARE * hw[0] * hw[1]))


def frames_of(seconds: float) -> int:
    """Frames of the stored video in this time, at least 2."""
    return max(2, round(seconds * FPS))


def _carried(each: Object, frame_idx: int, hw: tuple[int, int]) -> Carried | None:
    """The object as the next window of its shot gets it; None if this frame does not show it."""
    mask = each.masks.get(frame_idx)
    if mask is None or not mask.area_px:
        return None
    seed = replace(
        each.seed,
        mask=rle.decode(mask.rle, *hw),
        score=mask.score,
        object_score=mask.object_score,
        stability=mask.stability,
    )
    return Carried(each.name, seed)


def _masklet(video: Video, each: Object, checkpoint: str, round_number: int, config: SearchConfig) -> Masklet:
    """The object as a row, absent on the frames of other windows or, in a long video, without these frames.

    Its prompt is its provenance.
    """
    absent = MaskOnFrame(rle.empty(video.height, video.width), 0, 0.0, 0.0, 1.0)
    frames = range(0, video.frame_count, STRIDE)
    if video.frame_count > frames_of(LONG_S) and each.masks:
        frames = range(min(each.masks), max(each.masks) + 1, STRIDE)
    masks = [each.masks.get(i, absent) for i in frames]
    return Masklet(
        masklet_id=content_id(video.video_id, video.batch_id, checkpoint, each.name, length=20),
        video_id=video.video_id,
        batch_id=video.batch_id,
        height=video.height,
        width=video.width,
        frame_idx=tuple(frames),
        rle=tuple(m.rle for m in masks),
        area_px=tuple(m.area_px for m in masks),
        score=tuple(m.score for m in masks),
        object_score=tuple(m.object_score for m in masks),
        stability=tuple(m.stability for m in masks),
        kind="auto",
        phase="auto",
        round=round_number,
        checkpoint=checkpoint,
        prompt=json.dumps({"frame_idx": each.frame_idx, **each.seed.found_by, "search": dataclasses.asdict(config)}),
        split=video.split,
        label=each.seed.label,
    )
