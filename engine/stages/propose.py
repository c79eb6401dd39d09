"""Auto-masklets: a grid of points on the first frame, then every object through the clip in one batch.

One part and one marker a video: a killed run goes on at the next video. A video on which the model fails gets a
quarantine record and an empty part, and the batch goes on. Thresholds are dataclasses beside the model's code; the
presets that name them are here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.registry import Checkpoint
from engine.services import Services
from engine.settings import AutoSettings
from engine.stages import batches
from engine.stages.batches import BatchStage
from storage import overlap, parts, rle
from storage.records import STRIDE, Masklet, Prompt, Quarantined, Video, content_id
from storage.video import FrameUnreadable

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.proposals import Candidate, GridConfig

Progress = Callable[[int, int, str], None]  # frames done, frames, video_id

SPECK_SHARE = 200 / (1401 * 1037)  # SA-V drops parts and holes below 200 px at its mean resolution; ours is relative
SMALL_PX, SMALL_MIN_IOU, SMALL_MIN_STABILITY = 256, 0.55, 0.6  # models up to this input size, and their thresholds
SAME_TUBE = 0.8  # two masklets with a higher IoU over all frames are one object; the better score stays


class ModelFailed(Exception):
    """The model gave no numbers for this video."""


def pending(s: Services) -> list[str]:
    """The batches whose videos have no candidates yet. Those of an import are that import's to fill."""
    waiting = batches.pending(s.blobs, BatchStage.PROPOSED)
    return [b for b in waiting if not (batches.facts(s.blobs, b, BatchStage.INGESTED) or {}).get("imported")]


def chunks(s: Services, batch_id: str) -> list[list[str]]:
    """The videos of a batch that still have no candidates, in groups for one worker each."""
    videos = _videos(s, batch_id)
    todo = [v for v in videos if not parts.has_marker(s.blobs, "candidates", batch_id, v)]
    size = s.settings.auto.chunk_videos
    return [todo[i : i + size] for i in range(0, len(todo), size)]


def propose_videos(s: Services, batch_id: str, video_ids: Sequence[str], progress: Progress | None = None) -> str:
    """Makes the candidates of some videos of a batch; those that have them are left alone. Returns the batch id."""
    checkpoint = s.checkpoint()
    for video_id in video_ids:
        if parts.has_marker(s.blobs, "candidates", batch_id, video_id):
            continue
        try:
            found = propose_video(s, s.video(video_id), s.model(checkpoint), checkpoint, progress)
        except (FrameUnreadable, ModelFailed) as error:  # the video's own trouble; the machine's ends the task instead
            _quarantine(s, batch_id, video_id, str(error))
            found = []
        parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=found)
    return batch_id


def finish(s: Services, batch_id: str) -> str:
    """Marks the batch as proposed once every video has its marker; until then it stays pending."""
    made = {m.video_id: m.rows for m in parts.markers(s.blobs, "candidates", batch_id)}
    if set(_videos(s, batch_id)) <= set(made):
        batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {"candidates": sum(made.values())})
    return batch_id


def propose_video(
    s: Services, video: Video, loaded: LoadedModel, checkpoint: Checkpoint, progress: Progress | None = None
) -> list[Masklet]:
    """The candidates of one video: grid on frame 0, propagation, cleaning, duplicates."""
    from model import proposals

    config = grid(s.settings.auto, loaded.image_size)
    with s.frames(video) as reader:
        try:
            seeds = proposals.propose(loaded, reader.read(0), config)
        except FloatingPointError as error:
            raise ModelFailed(f"{error} for {video.video_id} on the grid of frame 0") from error
        seeds = sorted(seeds, key=lambda c: -c.score)[: s.settings.auto.max_objects]
        if not seeds:
            return []
        prompts = {f"{i:03d}": Prompt(frame_idx=0, mask_rle=rle.encode(seed.mask)) for i, seed in enumerate(seeds)}
        tubes = track(s, video, loaded, prompts, reader.read, progress)
    rows = [
        replace(
            _as_found(tubes[name], seed),
            masklet_id=content_id(video.video_id, video.batch_id, checkpoint.name, name, length=20),
            checkpoint=checkpoint.name,
            round=checkpoint.round,
            prompt=_seed(seed),
        )
        for name, seed in zip(prompts, seeds, strict=True)
    ]
    return without_duplicates([row for row in rows if any(row.area_px)])


def track(
    s: Services,
    video: Video,
    loaded: LoadedModel,
    prompts: dict[str, Prompt],
    read: Callable[[int], NDArray[np.uint8]],
    progress: Progress | None = None,
) -> dict[str, Masklet]:
    """Carries prompts on frame 0 through the whole video; masks are kept on every 4th frame.

    Ids, checkpoint and prompt of the masklets are left for the caller to fill in.
    """
    from model.masks import clean
    from model.tracker import Tracker

    hw = (video.height, video.width)
    speck = speck_px(hw)
    tracker = Tracker(loaded, read, video_hw=hw, frame_count=video.frame_count)
    tracker.prompt_all(prompts)
    made: dict[str, list[tuple[bytes, int, float, float, float]]] = {name: [] for name in prompts}
    for answer in tracker.propagate(0, video.frame_count):
        if answer.frame_idx % STRIDE:
            continue
        stability = answer.stability()
        if not math.isfinite(float(answer.iou.sum() + answer.object_score.sum())):
            raise ModelFailed(f"the model gave no numbers for {video.video_id} on frame {answer.frame_idx}")
        for row, (name, mask) in enumerate(zip(answer.object_ids, answer.masks(hw), strict=True)):
            mask = clean(mask, speck)
            area = int(mask.sum())
            made[name].append(
                (
                    rle.encode(mask),
                    area,
                    float(answer.iou[row]),
                    float(answer.object_score[row]),
                    float(stability[row]) if area else 1.0,
                )
            )
        if progress:
            progress(answer.frame_idx + 1, video.frame_count, video.video_id)
    return {
        name: Masklet(
            masklet_id="",
            video_id=video.video_id,
            batch_id=video.batch_id,
            height=video.height,
            width=video.width,
            frame_idx=tuple(range(0, video.frame_count, STRIDE)),
            rle=tuple(r for r, *_ in rows),
            area_px=tuple(a for _, a, *_ in rows),
            score=tuple(x for _, _, x, _, _ in rows),
            object_score=tuple(x for _, _, _, x, _ in rows),
            stability=tuple(x for *_, x in rows),
            kind="auto",
            phase="auto",
            round=0,
            checkpoint="",
            prompt="",
            split=video.split,
        )
        for name, rows in made.items()
    }


def _as_found(tube: Masklet, seed: Candidate) -> Masklet:
    """What the grid thought of its find stands on frame 0: as a prompt the mask counts as certain."""
    return replace(
        tube,
        score=(seed.score, *tube.score[1:]),
        object_score=(seed.object_score, *tube.object_score[1:]),
        stability=(seed.stability, *tube.stability[1:]),
    )


def without_duplicates(rows: Sequence[Masklet]) -> list[Masklet]:
    """Of masklets that cover the same tube, the one with the best mean score; the order stays."""
    kept: list[Masklet] = []
    for row in sorted(rows, key=lambda m: -float(np.mean(m.score))):
        if all(overlap.tube_iou(row, other) <= SAME_TUBE for other in kept):
            kept.append(row)
    order = {row.masklet_id: i for i, row in enumerate(rows)}
    return sorted(kept, key=lambda m: order[m.masklet_id])


def speck_px(hw: tuple[int, int]) -> int:
    """The area below which a part or a hole is dropped, for a frame of this size."""
    return max(4, round(SPECK_SHARE * hw[0] * hw[1]))


def grid(settings: AutoSettings, image_size: int) -> GridConfig:
    """The search on the first frame: SA-V's three scales, or one coarse grid for small models and the preset "quick".

    image_size: of the model, px. SAM's thresholds are for models that are sure of themselves, and its crops for those
    that know an object when they see one closely; a small one neither is nor does.
    """
    from model.proposals import GridConfig, Scale

    small = image_size <= SMALL_PX
    chosen = GridConfig()
    if small:
        chosen = replace(chosen, min_iou=SMALL_MIN_IOU, min_stability=SMALL_MIN_STABILITY)
    if settings.min_iou is not None:
        chosen = replace(chosen, min_iou=settings.min_iou)
    if settings.min_stability is not None:
        chosen = replace(chosen, min_stability=settings.min_stability)
    preset = settings.preset or ("quick" if small else "default")
    quick = (Scale(crops_per_side=1, points_per_side=16),)
    return replace(chosen, scales=quick) if preset == "quick" else chosen


def _seed(seed: Candidate) -> str:
    point = [round(float(v), 1) for v in seed.point_xy]
    return json.dumps({"frame_idx": 0, "points_xy": [point], "labels": [1], "seed_score": round(seed.score, 4)})


def _videos(s: Services, batch_id: str) -> list[str]:
    facts = batches.facts(s.blobs, batch_id, BatchStage.INGESTED)
    if facts is None:
        raise batches.UnknownBatch(f"no such batch: {batch_id}")
    return [str(v) for v in facts["videos"]]


def _quarantine(s: Services, batch_id: str, video_id: str, detail: str) -> None:
    row = Quarantined(stage="auto_masklets", subject=video_id, reason="failed", detail=detail, batch_id=batch_id)
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id=video_id, rows=[row])
