"""The figures of labelled clips: people's work, the candidates that they accepted, alignment with phase 1.

Only reads the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine import batches
from engine.batches import BatchStage
from engine.demo import summary
from engine.experiments import measuring
from engine.experiments.steps import Result
from engine.protocols.annotator import GOOD
from engine.services import Services
from engine.stages.work import Work
from storage import iou
from storage.dataset import parts
from storage.formats.sav_figures import LARGE, SIZES
from storage.records import Masklet


def published(s: Services, batch_ids: Sequence[str]) -> list[Masklet]:
    """The masklets that some batches added to the dataset."""
    return [row for batch_id in batch_ids for row in s.tables.masklets(where=f"batch_id == '{batch_id}'")]


def work_of(s: Services, batch_ids: Sequence[str]) -> Result:
    """People's work on some batches. None where nothing was published, or nothing clicked."""
    rows = published(s, batch_ids)
    collected = [batches.facts(s.blobs, batch_id, BatchStage.COLLECTED) or {} for batch_id in batch_ids]
    work = sum((Work(**facts["work"]) for facts in collected), Work())
    frames = sum(len(row.frame_idx) for row in rows)
    edited = sum(row.edited_frame_count for row in rows)
    return {
        "masklets": len(rows),
        "frames": frames,
        "modelled_s": round(work.modelled_s, 1),
        "seconds_a_frame": round(work.modelled_s / frames, 2) if frames else None,
        "edited_share": round(edited / frames, 4) if frames else None,
        "clicks_a_clicked_frame": round(work.clicks / work.clicked_frames, 2) if work.clicked_frames else None,
        "clicks_a_masklet": measuring.mean((row.video_id, row.click_count) for row in rows),
        "edited_frames_a_masklet": measuring.mean((row.video_id, row.edited_frame_count) for row in rows),
    }


def candidates_of(s: Services, batch_ids: Sequence[str]) -> Result:
    """The candidates of some batches: how many were accepted as they were (%), and their J&F against the truth."""
    kept = {row.masklet_id for row in published(s, batch_ids)}
    found = [row for batch_id in batch_ids for row in parts.rows(s.blobs, "candidates", batch_id)]
    measured = [
        (video.video_id, 50 * (metric.j + metric.f))
        for batch_id in batch_ids
        for video in batches.videos(s, batch_id)
        for metric in summary.against_truth(s, video, found).values()
    ]
    return {
        "candidates": len(found),
        "proposed_by": sorted({_name_of(row.checkpoint) for row in found}),
        "accepted": measuring.mean((row.video_id, 100.0 * (row.masklet_id in kept)) for row in found),
        "candidates_jf": measuring.mean(measured),
    }


def _name_of(checkpoint: str) -> str:
    """What a checkpoint is called in the results: if it is a folder, by its place in that of the experiment."""
    return "/".join(Path(checkpoint).parts[-3:]) if Path(checkpoint).is_absolute() else checkpoint


def alignment(first: Sequence[Masklet], others: Sequence[Masklet]) -> Result:
    """The share (%) of the masks of phase 1 whose object has a mask with IoU above GOOD in another phase.

    By size: "all", "small", "medium" and "large". None where there is no mask. An object is found again as the masklet
    of the same video with the largest IoU; if there is none, its masks are not aligned.
    """
    counts = {size: [0, 0] for size in ("all", *SIZES, LARGE)}
    for masklet in first:
        shown = [i for i, area in enumerate(masklet.area_px) if area]
        same_video = [other for other in others if other.video_id == masklet.video_id]
        similar, best = max(
            ((iou.tube_iou(masklet, other), n) for n, other in enumerate(same_video)), default=(0.0, -1)
        )
        ious = iou.frame_ious(masklet, same_video[best]) if similar else {}
        right = sum(ious.get(masklet.frame_idx[i], 0.0) > GOOD for i in shown)
        for size in ("all", _size(masklet)):
            counts[size][0] += right
            counts[size][1] += len(shown)
    return {size: round(100 * right / masks, 1) if masks else None for size, (right, masks) in counts.items()}


def _size(masklet: Masklet) -> str:
    area = next((area for area in masklet.area_px if area), 0)
    return next((size for size, limit in SIZES.items() if area < limit), LARGE)
