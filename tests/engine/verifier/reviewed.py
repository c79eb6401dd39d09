"""A store with batches that people have reviewed: steady candidates were accepted, jumping ones sent back."""

from __future__ import annotations

import json

import numpy as np

from engine.verifier.judged import verify_tickets
from storage import rle
from storage.blobs.base import Blobs
from storage.dataset import parts
from storage.records import Masklet, Operation
from tests.storage.rows import H, W, make_masklet


def candidate(batch_id: str, video_id: str, number: int, *, steady: bool, split: str = "train") -> Masklet:
    """A candidate of three frames: a block that stays, or one that jumps and shrinks."""
    generator = np.random.default_rng(number)
    masks = np.zeros((3, H, W), dtype=bool)
    for k, mask in enumerate(masks):
        left = 4 + (0 if steady else 6 * k)
        mask[4:14, left : left + (10 if steady else 10 - 3 * k)] = True
    scores = tuple((0.9 if steady else 0.6) + 0.02 * generator.normal(size=3))
    return make_masklet(
        f"{batch_id[:4]}-{number}",
        video_id,
        batch_id,
        rle=tuple(rle.encode(mask) for mask in masks),
        area_px=tuple(int(mask.sum()) for mask in masks),
        score=scores,
        stability=scores,
        object_score=(5.0, 4.0, 3.0),
        verdict=None,
        split=split,
    )


def candidates(batch_id: str, count: int = 100, videos: int = 10) -> list[Masklet]:
    return [candidate(batch_id, f"{batch_id[:2]}v{i % videos}", i, steady=i % 3 == 0) for i in range(count)]


def review(blobs: Blobs, batch_id: str, rows: list[Masklet], number: int, wrong: int = 0, project: str = "") -> str:
    """Writes a batch as `collect` and `publish` do; people err on the first candidates. Returns the release's name."""
    for video_id in sorted({row.video_id for row in rows}):
        mine = [row for row in rows if row.video_id == video_id]
        acts = [verdict_on(row, (row.score[0] > 0.75) != (rows.index(row) < wrong)) for row in mine]
        parts.write_part(blobs, kind="candidates", batch_id=batch_id, video_id=video_id, rows=mine)
        parts.write_part(blobs, kind="operations", batch_id=batch_id, video_id=video_id, rows=acts)
    name = f"{project and project + '.'}release-{number:04d}-{batch_id}"
    blobs.create(f"releases/{name}/manifest.json", b"{}")
    return name


def verdict_on(row: Masklet, accepted: bool) -> Operation:
    ticket_id = verify_tickets(row)[0]
    return Operation(
        operation_id=f"o-{row.masklet_id}",
        ticket_id=ticket_id,
        batch_id=row.batch_id,
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        person="vera",
        kind="verdict",
        frame_idx=0,
        payload=json.dumps({"verdict": "accept" if accepted else "refine"}),
        created_at="2026-01-01T00:00:00Z",
        seq=1,
    )
