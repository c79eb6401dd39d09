"""What a batch is stuck at: the stage that fails, its error, and since when.

Each stage that works on a batch records its failure beside the batch's marks, and removes the record when it succeeds.
`stats`, `doctor`, `validate` and the lead's page read the records. Knows no stage and retries nothing.

    trouble/<batch_id>/<stage>.json
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator

from annotation_queue.records import StuckBatch
from storage.blobs.base import BlobMissing, Blobs
from storage.errors import first_line

log = logging.getLogger(__name__)

_RECORD = re.compile(r"trouble/(?P<batch_id>[0-9a-f]{16})/(?P<stage>[a-z ]+)\.json")


@contextlib.contextmanager
def recorded(blobs: Blobs, batch_id: str, stage: str) -> Iterator[None]:
    """Record the error that leaves the block, in the store and in the log; without an error, remove the record."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(Exception):  # the store may be the trouble itself: the first error is what counts
            _write(blobs, batch_id, stage, first_line(error))
        log.warning("batch %s is stuck at %s: %s", batch_id, stage, first_line(error))
        raise
    key = _key(batch_id, stage)
    if blobs.exists(key):
        blobs.delete(key)


def stuck(blobs: Blobs) -> list[StuckBatch]:
    """The batches that failed at a stage and have not passed it since, sorted by id."""
    found = []
    for key in blobs.keys("trouble/"):
        record = _RECORD.fullmatch(key)
        if record and (about := _read(blobs, key)) is not None:
            found.append(StuckBatch(batch_id=record["batch_id"], stage=record["stage"], error=about[1], since=about[0]))
    return found


def line(batch: StuckBatch) -> str:
    """One line for people: the batch, the stage, since when, and the error."""
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(batch.since))
    return f"batch {batch.batch_id} is stuck at {batch.stage} since {since}: {batch.error}"


def _write(blobs: Blobs, batch_id: str, stage: str, error: str) -> None:
    key, now = _key(batch_id, stage), time.time()
    before = _read(blobs, key)
    since = now if before is None else before[0]
    blobs.write(key, json.dumps({"since": since, "error": error}).encode())


def _read(blobs: Blobs, key: str) -> tuple[float, str] | None:
    try:
        record = json.loads(blobs.read(key))
        return float(record["since"]), str(record["error"])
    except (BlobMissing, ValueError, KeyError, TypeError):  # removed meanwhile, or damaged
        return None


def _key(batch_id: str, stage: str) -> str:
    return f"trouble/{batch_id}/{stage}.json"
