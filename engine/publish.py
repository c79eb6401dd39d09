"""Publish: checks on rows and on masks, then one commit, one tag, one release manifest.

A masklet that fails a check is quarantined with the check's name, and the rest goes on; a table that fails its suite
stops the batch. Nothing is visible before every check has run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from engine import batches
from engine.batches import Stage
from engine.services import Services
from storage import masklets, releases
from storage.records import Masklet, Quarantined

if TYPE_CHECKING:
    from validation.tables import Report


class PublishStopped(Exception):
    """The suite over the tables failed: nothing of the batch was published."""


def pending(s: Services) -> list[str]:
    """The batches that are collected and not published."""
    return batches.pending(s.blobs, Stage.PUBLISHED)


def run(s: Services, batch_id: str) -> str:
    """Publishes a collected batch and returns the name of its release, "" where there is nothing to release yet.

    Raises PublishStopped, PartDamaged, CommitFailed and CommitUnknown; may always be run again.
    """
    from validation import masks

    done = batches.facts(s.blobs, batch_id, Stage.PUBLISHED)
    if done is not None:
        return str(done["release"])
    rows: list[Masklet] = list(masklets.rows(s.blobs, "masklets", batch_id))
    videos = {v.video_id: v for v in s.tables.videos(where=f"batch_id == '{batch_id}'")}
    refused: list[Quarantined] = []
    for row in rows:
        problems = masks.check(row, videos.get(row.video_id))
        refused += [
            Quarantined(stage="publish", subject=row.masklet_id, reason=p.check, detail=p.detail, batch_id=batch_id)
            for p in problems
        ]
    bad = {q.subject for q in refused}
    good = [row for row in rows if row.masklet_id not in bad]
    report = check_tables(s, batch_id, good)
    if not report.success:
        failed = "; ".join(str(line) for line in report.results if not line.success)
        raise PublishStopped(f"batch {batch_id}: {failed}; see {report.docs_index}")
    if refused:
        masklets.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="publish", rows=refused)
    for kind in ("quarantine", "operations"):
        masklets.commit_batch(s.blobs, s.tables, kind, batch_id)
    masklets.commit_batch(s.blobs, s.tables, "masklets", batch_id, keep=lambda row: row.masklet_id not in bad)
    name = _release(s, batch_id)
    batches.mark(s.blobs, batch_id, Stage.PUBLISHED, {"release": name, "masklets": len(good), "quarantined": len(bad)})
    return name


def check_tables(s: Services, batch_id: str, rows: list[Masklet]) -> Report:
    """Runs the Great Expectations suites over the batch and writes their Data Docs."""
    from validation import tables

    videos = s.tables.videos(where=f"batch_id == '{batch_id}'")
    frames = {
        "masklets": pd.DataFrame([_flat(row) for row in rows], columns=_columns()),
        "videos": pd.DataFrame([dataclasses.asdict(v) for v in videos]),
    }
    return tables.run(frames, docs_folder(s) / batch_id)


def docs_folder(s: Services) -> Path:
    """Where the Data Docs of all batches are."""
    return s.home / "data-docs"


def _columns() -> list[str]:
    return [f.name for f in dataclasses.fields(Masklet) if f.name not in _LISTS] + ["frames", "area_mean", "score_mean"]


_LISTS = ("frame_idx", "rle", "area_px", "score", "object_score", "stability")


def _flat(row: Masklet) -> dict[str, object]:
    """A masklet without its lists: what a table of rows can be checked for."""
    flat: dict[str, object] = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name not in _LISTS}
    count = max(1, len(row.frame_idx))
    flat |= {"frames": len(row.frame_idx), "area_mean": sum(row.area_px) / count, "score_mean": sum(row.score) / count}
    return flat


def _release(s: Services, batch_id: str) -> str:
    """Tags the tables and writes the manifest; the name tells the order, the batch that made it, and stays."""
    known = releases.names(s.blobs)
    mine = next((name for name in known if name.endswith(batch_id)), None)
    name = mine or f"release-{len(known) + 1:04d}-{batch_id}"
    try:
        return releases.make(s.blobs, s.tables, name, extra={"batch_id": batch_id}).name
    except releases.NothingPublished:
        return ""  # every candidate so far was rejected: there is no masklet to release
