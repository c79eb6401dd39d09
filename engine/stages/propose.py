"""Auto-masklets: candidates from a grid of points on the first frame, all carried through the clip in one batch.

Each candidate is then carried back to the first frame: how well it arrives there tells people and the verifier how far
to trust it.

One part and one marker a video, so a killed run continues with the next video. A video on which the model fails gets a
quarantine record and an empty part; the other videos go on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.progress import Progress, prefixed
from engine.registry import Checkpoint
from engine.services import Services
from engine.settings import AutoSettings
from engine.stages import attempts, batches, trouble
from engine.stages.batches import BatchStage
from storage import iou, log_ids, parts, rle
from storage.reader import FrameUnreadable
from storage.records import FPS, STRIDE, Masklet, Prompt, Quarantined, Refusal, Video, content_id
from storage.wording import counted

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.proposals import GridConfig, MaskProposal

log = logging.getLogger(__name__)

STAGE = "auto-masklets"  # its name in the records of trouble
SPECK_SHARE = 200 / (1401 * 1037)  # SA-V drops specks and holes below 200 px at its mean resolution
SMALL_PX, SMALL_MAX_OVERLAP = 256, 0.5  # models up to this input size, and the IoU above which two masks are duplicates
SAME_TUBE = 0.8  # two masklets with a higher IoU over all frames are duplicates


class NotProposed(Exception):
    """Some videos of the batch have no candidates yet."""


class ModelFailed(Exception):
    """The model's outputs for this video are not finite."""


def pending(s: Services) -> list[str]:
    """The batches whose videos have no candidates yet, except those of an import, which fills them itself."""
    return [b for b in batches.pending(s.blobs, BatchStage.PROPOSED) if not batches.is_import(s.blobs, b)]


def missing(s: Services, batch_id: str) -> list[str]:
    """The videos of a batch that have no candidates yet."""
    ids = batches.video_ids(s.blobs, batch_id)
    return [v for v in ids if not parts.has_marker(s.blobs, "candidates", batch_id, v)]


def chunks(s: Services, batch_id: str) -> list[list[str]]:
    """The videos of a batch that have no candidates yet, in groups of one task each."""
    todo = missing(s, batch_id)
    size = s.settings.auto.chunk_videos
    return [todo[i : i + size] for i in range(0, len(todo), size)]


def propose_batch(s: Services, batch_id: str, progress: Progress | None = None) -> None:
    """Makes the missing candidates of a batch in this process, and marks the batch. Can run again at any time.

    progress: called with the frames done and the frames of one video; the name counts the videos.
    """
    with trouble.failure_recorded(s.blobs, batch_id, STAGE):
        todo = missing(s, batch_id)
    for number, video_id in enumerate(todo, 1):
        shown = prefixed(progress, f"{number} of {len(todo)}") if progress else None
        propose_videos(s, batch_id, [video_id], shown)
    finish(s, batch_id)


def propose_videos(s: Services, batch_id: str, video_ids: Sequence[str], progress: Progress | None = None) -> str:
    """Makes the candidates of some videos of a batch and returns the batch id; videos that have them are skipped.

    Errors of the machine are raised. An error of the video itself is a quarantine record, and the next video follows;
    so is a video at which two workers were killed.
    """
    with trouble.failure_recorded(s.blobs, batch_id, STAGE), attempts.stoppable():
        _propose_videos(s, batch_id, video_ids, progress)
    return batch_id


def _propose_videos(s: Services, batch_id: str, video_ids: Sequence[str], progress: Progress | None) -> None:
    todo = [v for v in video_ids if not parts.has_marker(s.blobs, "candidates", batch_id, v)]
    if not todo:
        return
    checkpoint = _pinned_checkpoint(s, batch_id)
    kills = attempts.killed(s.blobs, STAGE)
    for video_id in sorted(todo, key=lambda video_id: kills[_subject(batch_id, video_id)]):  # the others are not lost
        subject, found = _subject(batch_id, video_id), list[Masklet]()
        with log_ids.about(video_id=video_id, checkpoint=checkpoint.name):
            if kills[subject] >= attempts.MOST:
                _quarantine(s, batch_id, video_id, Refusal.KILLS_WORKER, attempts.detail(kills[subject]))
            else:
                video, loaded = s.video(video_id), s.model(checkpoint)
                try:
                    with attempts.attempt(s.blobs, STAGE, subject):
                        found = propose_video(s, video, loaded, checkpoint, progress)
                except (FrameUnreadable, ModelFailed) as error:
                    _quarantine(s, batch_id, video_id, Refusal.FAILED, str(error))
            log.info("%s", counted(len(found), "candidate"))
            parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=found)
        if kills[subject]:
            attempts.forget(s.blobs, STAGE, subject)


def _subject(batch_id: str, video_id: str) -> str:
    return f"{batch_id}-{video_id}"


def finish(s: Services, batch_id: str) -> None:
    """Marks the batch as proposed. Raises NotProposed while a video lacks candidates: the batch stays pending."""
    with trouble.failure_recorded(s.blobs, batch_id, STAGE):
        wanted = batches.video_ids(s.blobs, batch_id)
        made = {m.video_id: m.rows for m in parts.markers(s.blobs, "candidates", batch_id)}
    if lacking := set(wanted) - set(made):
        of = counted(len(wanted), "video")
        problem = NotProposed(f"batch {batch_id}: {len(lacking)} of {of} without candidates")
        if not trouble.is_recorded(s.blobs, batch_id, STAGE):  # a killed process records nothing
            trouble.record(s.blobs, batch_id, STAGE, str(problem))
        raise problem
    batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {"candidates": sum(made.values())})
    trouble.remove(s.blobs, batch_id, STAGE)


def propose_video(
    s: Services, video: Video, loaded: LoadedModel, checkpoint: Checkpoint, progress: Progress | None = None
) -> list[Masklet]:
    """The candidates of one video: grid on frame 0, propagation, cleaning, removal of duplicates.

    Nothing is searched if the settings allow no candidate. Raises ModelFailed and FrameUnreadable.
    """
    from model import proposals

    if not s.settings.auto.max_objects:
        return []
    config = grid(s.settings.auto, loaded.image_size)
    with s.frames(video) as reader:
        try:
            seeds = proposals.propose(loaded, reader.read(0), config)
        except FloatingPointError as error:
            raise ModelFailed(f"{error} for {video.video_id} on the grid of frame 0") from error
        seeds = seeds[: s.settings.auto.max_objects]
        if not seeds:
            return []
        prompts = {f"{i:03d}": Prompt(frame_idx=0, mask_rle=rle.encode(seed.mask)) for i, seed in enumerate(seeds)}
        step = track_step(s.settings.auto, loaded.image_size)
        tubes = track(video, loaded, prompts, reader.read, progress, step=step)
        rows = {
            name: replace(
                _as_found(tubes[name], seed),
                masklet_id=content_id(video.video_id, video.batch_id, checkpoint.name, name, length=20),
                checkpoint=checkpoint.name,
                round=checkpoint.round,
            )
            for name, seed in zip(prompts, seeds, strict=True)
            if any(tubes[name].area_px)
        }
        kept = {row.masklet_id for row in without_duplicates(list(rows.values()))}
        rows = {name: row for name, row in rows.items() if row.masklet_id in kept}
        cycles = _cycle_ious(video, loaded, rows, reader.read)
    found = dict(zip(prompts, seeds, strict=True))
    return [replace(row, prompt=_seed(found[name], cycles[name])) for name, row in rows.items()]


def _cycle_ious(
    video: Video, loaded: LoadedModel, rows: Mapping[str, Masklet], read: Callable[[int], NDArray[np.uint8]]
) -> dict[str, float]:
    """How well each candidate finds its way back to frame 0: see `model.cycle`. Raises ModelFailed."""
    from model.cycle import cycle_ious

    try:
        return cycle_ious(
            loaded,
            lambda i: read(i * STRIDE),
            (video.height, video.width),
            {name: row.rle for name, row in rows.items()},
        )
    except FloatingPointError as error:
        raise ModelFailed(f"{error} of {video.video_id}") from error


def track(
    video: Video,
    loaded: LoadedModel,
    prompts: dict[str, Prompt],
    read: Callable[[int], NDArray[np.uint8]],
    progress: Progress | None = None,
    *,
    step: int = 1,
) -> dict[str, Masklet]:
    """Propagates prompts on frame 0 through every `step`-th frame of a video; masks are kept on every 4th frame.

    read: gives the frame of an index as uint8 (H, W, 3) RGB.  step: 1, 2 or 4.
    Returns a masklet a prompt; the caller fills in its id, checkpoint, round and prompt. Raises ModelFailed.
    """
    from model.masks import clean
    from model.tracker import Tracker

    hw = (video.height, video.width)
    speck = speck_px(hw)
    tracked = range(0, video.frame_count, step)
    tracker = Tracker(loaded, lambda place: read(tracked[place]), video_hw=hw, frame_count=len(tracked))
    tracker.prompt_all(prompts)
    made: dict[str, list[_MaskOnFrame]] = {name: [] for name in prompts}
    for answer in tracker.propagate(0, len(tracked)):
        frame_idx = tracked[answer.frame_idx]
        if frame_idx % STRIDE:
            continue
        try:
            drawn = answer.masks(hw)
        except FloatingPointError as error:
            raise ModelFailed(f"{error} of {video.video_id}") from error
        estimates = answer.estimates()
        for row, (name, mask) in enumerate(zip(answer.object_ids, drawn, strict=True)):
            mask = clean(mask, speck)
            area = int(mask.sum())
            made[name].append(
                _MaskOnFrame(
                    rle=rle.encode(mask),
                    area_px=area,
                    score=estimates.iou[row],
                    object_score=estimates.object_score[row],
                    stability=estimates.stability[row] if area else 1.0,
                )
            )
        if progress:
            progress(frame_idx + 1, video.frame_count, video.video_id)
    return {name: _masklet(video, frames) for name, frames in made.items()}


@dataclass(frozen=True)
class _MaskOnFrame:
    """What the tracker gave for one object on one frame."""

    rle: bytes
    area_px: int
    score: float
    object_score: float
    stability: float


def _masklet(video: Video, frames: Sequence[_MaskOnFrame]) -> Masklet:
    return Masklet(
        masklet_id="",
        video_id=video.video_id,
        batch_id=video.batch_id,
        height=video.height,
        width=video.width,
        frame_idx=tuple(range(0, video.frame_count, STRIDE)),
        rle=tuple(f.rle for f in frames),
        area_px=tuple(f.area_px for f in frames),
        score=tuple(f.score for f in frames),
        object_score=tuple(f.object_score for f in frames),
        stability=tuple(f.stability for f in frames),
        kind="auto",
        phase="auto",
        round=0,
        checkpoint="",
        prompt="",
        split=video.split,
    )


def _as_found(tube: Masklet, seed: MaskProposal) -> Masklet:
    """The masklet with the grid's own scores on frame 0: the tracker rates its own prompt there with 1."""
    return replace(
        tube,
        score=(seed.score, *tube.score[1:]),
        object_score=(seed.object_score, *tube.object_score[1:]),
        stability=(seed.stability, *tube.stability[1:]),
    )


def without_duplicates(rows: Sequence[Masklet]) -> list[Masklet]:
    """Removes duplicates: of masklets that cover the same tube, the one with the best mean score stays. Keeps order."""
    kept: list[Masklet] = []
    for row in sorted(rows, key=lambda m: -float(np.mean(m.score))):
        if all(iou.tube_iou(row, other) <= SAME_TUBE for other in kept):
            kept.append(row)
    order = {row.masklet_id: i for i, row in enumerate(rows)}
    return sorted(kept, key=lambda m: order[m.masklet_id])


def speck_px(hw: tuple[int, int]) -> int:
    """The area below which a speck or a hole is dropped, for a frame of this size."""
    return max(4, round(SPECK_SHARE * hw[0] * hw[1]))


def grid(settings: AutoSettings, image_size: int) -> GridConfig:
    """The search on the first frame: SA-V's three scales, or one coarse grid for small models and the preset "quick".

    image_size: of the model, px. SAM's thresholds and crops assume a model that rates its masks well. Models up to
    256 px get no crops and no thresholds, and their proposals are ranked by agreement.
    """
    from model.proposals import GridConfig, Scale

    small = image_size <= SMALL_PX
    chosen = GridConfig()
    if small:
        chosen = replace(chosen, by_agreement=True, min_iou=0.0, min_stability=0.0, max_mask_overlap=SMALL_MAX_OVERLAP)
    if settings.min_iou is not None:
        chosen = replace(chosen, min_iou=settings.min_iou)
    if settings.min_stability is not None:
        chosen = replace(chosen, min_stability=settings.min_stability)
    preset = settings.preset or ("quick" if small else "default")
    quick = (Scale(crops_per_side=1, points_per_side=16),)
    return replace(chosen, scales=quick) if preset == "quick" else chosen


def track_step(settings: AutoSettings, image_size: int) -> int:
    """Every how many frames of a video are tracked: as set, or 4 for small models and 1 for others."""
    return FPS // (settings.track_fps or (6 if image_size <= SMALL_PX else 24))


def _seed(seed: MaskProposal, cycle_iou: float) -> str:
    point = [round(float(v), 1) for v in seed.point_xy]
    return json.dumps(
        {
            "frame_idx": 0,
            "points_xy": [point],
            "labels": [1],
            "seed_score": round(seed.score, 4),
            "seed_agreement": round(seed.agreement, 4),
            "cycle_iou": round(cycle_iou, 4),
        }
    )


def _pinned_checkpoint(s: Services, batch_id: str) -> Checkpoint:
    """The checkpoint that proposes for this batch: the one that was promoted when its first chunk began.

    A promotion in the middle of a batch does not change it. It is pinned after it was loaded, so that a wrong name in
    the settings can be corrected.
    """
    if batches.facts(s.blobs, batch_id, batches.CHECKPOINT) is None:
        promoted = s.checkpoint()
        s.model(promoted)
        batches.mark(s.blobs, batch_id, batches.CHECKPOINT, asdict(promoted))
    return Checkpoint(**batches.facts(s.blobs, batch_id, batches.CHECKPOINT) or {})


def _quarantine(s: Services, batch_id: str, video_id: str, reason: Refusal, detail: str) -> None:
    log.warning("the video is quarantined: %s", detail)
    row = Quarantined(stage="auto_masklets", subject=video_id, reason=reason.value, detail=detail, batch_id=batch_id)
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=video_id, rows=[row])
