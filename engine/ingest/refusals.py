"""Refusals of ingest and imports: each comes into the table `quarantine` once, however often a run meets it again.

    refused/<id of the refusal>     create-only: the batch that holds it; made before the batch is committed
    refused/complete                the refusals that earlier versions committed have their marks

The cost follows the refusals that are asked about, not those in the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engine.services import Services
from storage.blobs.base import BlobMissing, Blobs
from storage.dataset import parts
from storage.records import Quarantined, content_id

_COMPLETE = "refused/complete"
_READERS = 8


def commit(s: Services, refused: Sequence[Quarantined]) -> int:
    """Commits the refusals that are not in the table yet, and returns their number.

    A run that was killed here left marks of a batch that is not committed: the next run that meets one commits it.
    """
    if not refused:
        return 0
    if not s.blobs.exists(_COMPLETE):
        _mark_earlier(s)
    new = [row for row, batch_id in zip(refused, _held(s, refused), strict=True) if not batch_id]
    if not new:
        return 0
    batch_id = content_id("quarantine", *sorted(f"{q.subject} {q.reason} {q.detail}" for q in new))
    rows = [replace(row, batch_id=batch_id) for row in new]
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="ingest", rows=rows)
    count = _finish(s, batch_id)
    if count < len(new):  # another process marked the others meanwhile, and may have died before its commit
        _held(s, new)
    return count


def _held(s: Services, refused: Sequence[Quarantined]) -> list[str]:
    """The batch that holds each refusal, "" for a new one. Commits those that their process has not committed."""
    committed = {""}
    while others := set(held := _batches(s.blobs, refused)) - committed:
        for batch_id in sorted(others):
            if s.tables.batch("quarantine", batch_id) is None:
                _finish(s, batch_id)
        committed |= others
    return held


def _finish(s: Services, batch_id: str) -> int:
    """Marks the refusals of a batch whose part is written, and commits it. Returns their number.

    A refusal that another process has marked for its batch is left out.
    """
    mine = {_mark(row) for row in parts.rows(s.blobs, "quarantine", batch_id) if _claim(s.blobs, row, batch_id)}
    parts.commit_batch(s.blobs, s.tables, "quarantine", batch_id, keep=lambda row, n: _mark(row) in mine)
    return len(mine)


def _claim(blobs: Blobs, row: Quarantined, batch_id: str) -> bool:
    return blobs.create(_mark(row), batch_id.encode()) or _batch_of(blobs, row) == batch_id


def _batches(blobs: Blobs, refused: Sequence[Quarantined]) -> list[str]:
    """The batch that holds each refusal, "" for a new one."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda row: _batch_of(blobs, row), refused))


def id_of(row: Quarantined) -> str:
    """The id of a refusal: the same reason and detail for the same subject have the same one."""
    return content_id(row.subject, row.reason, row.detail)


def _mark(row: Quarantined) -> str:
    return f"refused/{id_of(row)}"


def _batch_of(blobs: Blobs, row: Quarantined) -> str:
    """The batch that holds a refusal, "" if it is new."""
    try:
        return blobs.read(_mark(row)).decode()
    except BlobMissing:
        return ""


def _mark_earlier(s: Services) -> None:
    """Marks what is in the table already: once for a store, which an earlier version may have filled."""
    for row in s.tables.quarantine(where="stage == 'ingest'"):
        s.blobs.create(_mark(row), row.batch_id.encode())
    s.blobs.create(_COMPLETE, b"")
