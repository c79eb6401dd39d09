"""Publish: checks on rows and on masks, then one commit, one tag, one release manifest.

A masklet that fails a check is quarantined with the check's name; the others are published. If too many fail, or a
table fails its suite, nothing of the batch is published. Nothing is visible before every check has run.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from engine.files import alone
from engine.services import Services
from engine.stages import batches, trouble
from engine.stages.batches import BatchStage
from storage import parts, releases
from storage.records import Masklet, Quarantined
from validation import gate

MAX_QUARANTINED_SHARE = 0.5  # above this share the batch itself is broken


class PublishStopped(Exception):
    """The publish gate did not pass: nothing of the batch was published."""


def pending(s: Services) -> list[str]:
    """The batches that are collected and not published."""
    return batches.pending(s.blobs, BatchStage.PUBLISHED)


def publish_batch(s: Services, batch_id: str) -> str:
    """Publishes a collected batch and returns the name of its release, "" while there is no masklet to release.

    Can run again at any time. Raises PublishStopped, UnknownBatch, PartDamaged, CommitFailed and CommitUnknown.
    """
    # alone, because each release contains everything that was published before it
    with trouble.recorded(s.blobs, batch_id, "publish"), alone(s.home / "publish.lock"):
        done = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED)
        return str(done["release"]) if done is not None else _publish(s, batch_id)


def docs_folder(s: Services) -> Path:
    """The folder of all batches' Data Docs."""
    return s.home / "data-docs"


def _publish(s: Services, batch_id: str) -> str:
    from validation import masklet_checks, table_checks

    collected = batches.facts(s.blobs, batch_id, BatchStage.COLLECTED)
    if collected is None:
        raise batches.UnknownBatch(f"batch {batch_id} is not collected: there is nothing to publish")
    rows: list[Masklet] = list(parts.rows(s.blobs, "masklets", batch_id))
    videos = batches.videos(s, batch_id)
    by_id = {video.video_id: video for video in videos}
    refused = [
        Quarantined(stage="publish", subject=row.masklet_id, reason=p.check, detail=p.detail, batch_id=batch_id)
        for row in rows
        for p in masklet_checks.problems(row, by_id.get(row.video_id))
    ]
    bad = {q.subject for q in refused}
    good = [row for row in rows if row.masklet_id not in bad]
    report = table_checks.check_tables(table_checks.frames(good, videos), docs_folder(s) / batch_id, run_name=batch_id)
    decision = gate.publish(
        offered=len(rows),
        quarantined=len(bad),
        tables_passed=report.success,
        max_quarantined_share=MAX_QUARANTINED_SHARE,
    )
    if refused:
        parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="publish", rows=refused)
    parts.commit_batch(s.blobs, s.tables, "quarantine", batch_id)
    if not decision.passed:
        why = "; ".join([*decision.reasons, *report.failures])
        raise PublishStopped(f"batch {batch_id}: {why}; see {report.docs_index}")
    parts.commit_batch(s.blobs, s.tables, "operations", batch_id)
    parts.commit_batch(s.blobs, s.tables, "masklets", batch_id, keep=lambda row: row.masklet_id not in bad)
    name = _release(s, batch_id)
    facts = {
        "release": name,
        "masklets": len(good),
        "quarantined": len(bad),
        "gate": list(decision.reasons),
        "checkpoints": dict(sorted(Counter(row.checkpoint for row in good).items())),
        "annotated_frames": sum(len(row.frame_idx) for row in good),
        "work": collected.get("work"),
        **(batches.facts(s.blobs, batch_id, batches.PHASE) or {}),
    }
    batches.mark(s.blobs, batch_id, BatchStage.PUBLISHED, facts)
    return name


def _release(s: Services, batch_id: str) -> str:
    """Tags the tables and writes the manifest. The name holds a number and the batch, so a rerun finds its release."""
    known = releases.names(s.blobs)
    mine = next((name for name in known if name.endswith(batch_id)), None)
    name = mine or f"release-{len(known) + 1:04d}-{batch_id}"
    try:
        return releases.make(s.blobs, s.tables, name, extra={"batch_id": batch_id}).name
    except releases.NothingPublished:
        return ""  # so far every candidate was rejected
