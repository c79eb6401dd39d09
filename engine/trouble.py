"""Where the pipeline is stuck: the stage that fails, the batch it works on, its error, and since when.

Each stage records its failure in the store, and removes the record when it succeeds. `stats`, `doctor`, `validate` and
the lead's page read the records. Knows no stage and retries nothing.

    trouble/<batch_id>/<stage>.json
    trouble/<stage>.json              of a stage that works on no batch
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from annotation_queue.records import Stuck
from engine import batches
from engine.batches import BatchStage
from storage import log_ids
from storage.blobs.base import BlobMissing, Blobs
from storage.errors import first_line

if TYPE_CHECKING:
    from engine.services import Services

log = logging.getLogger(__name__)

NO_BATCH = ""
ASK_QUEUE = "reading the queue's database"

_RECORD = re.compile(r"trouble/(?:(?P<batch_id>[0-9a-f]{16})/)?(?P<stage>[a-z0-9 -]+)\.json")


@contextlib.contextmanager
def recorded(blobs: Blobs, batch_id: str, stage: str) -> Iterator[None]:
    """Record the error that leaves the block, in the store and in the log; without an error, remove the record."""
    with log_ids.about(batch_id=batch_id):
        with failure_recorded(blobs, batch_id, stage):
            yield
        if batch_id:  # what works on no batch runs every few seconds, mostly for nothing
            log.info("%s is done", stage)
    remove(blobs, batch_id, stage)


@contextlib.contextmanager
def failure_recorded(blobs: Blobs, batch_id: str, stage: str) -> Iterator[None]:
    """Record the error that leaves the block. For one part of a stage: its success says nothing about the others."""
    with log_ids.about(batch_id=batch_id):
        try:
            yield
        except Exception as error:
            record(blobs, batch_id, stage, first_line(error))
            raise


def record(blobs: Blobs, batch_id: str, stage: str, error: str) -> None:
    """Record an error, in the store and in the log. The time of the stage's first failure stays."""
    found = Stuck(batch_id=batch_id, stage=stage, error=error, since=time.time())
    with contextlib.suppress(Exception):  # the store may be the trouble itself: the first error is what counts
        _write(blobs, found)
    with log_ids.about(batch_id=batch_id):
        log.warning("%s: %s", _subject(found), error)


def remove(blobs: Blobs, batch_id: str, stage: str) -> None:
    """Remove the record of a stage that has succeeded."""
    if is_recorded(blobs, batch_id, stage):
        blobs.delete(_key(batch_id, stage))


def is_recorded(blobs: Blobs, batch_id: str, stage: str) -> bool:
    """Whether the stage has a record for this batch."""
    return blobs.exists(_key(batch_id, stage))


def stuck(blobs: Blobs, batch_id: str | None = None) -> list[Stuck]:
    """The stages that failed and have not succeeded since, sorted by batch. batch_id: only those of this batch."""
    found = []
    for key in blobs.keys("trouble/" if batch_id is None else f"trouble/{batch_id}/"):
        place = _RECORD.fullmatch(key)
        if place and (about := _read(blobs, key)) is not None:
            batch_id = place["batch_id"] or NO_BATCH
            project = batches.project_of(blobs, batch_id) if batch_id else ""
            stage, (since, error) = place["stage"], about
            found.append(Stuck(batch_id=batch_id, stage=stage, error=error, since=since, project=project))
    return sorted(found, key=lambda s: (s.batch_id, s.stage))


def of_everything(s: Services) -> list[Stuck]:
    """`stuck`, and the batches whose review has ended while nobody could tell the pipeline so.

    Reads the queue's database, so it works while no queue server runs. Reads it only while a batch is in review. A
    database that cannot be read is in the list too, because the rest of the list is still true.
    """
    found = stuck(s.blobs)
    if waiting := set(batches.pending(s.blobs, BatchStage.COLLECTED)) - {one.batch_id for one in found}:
        try:
            tickets = s.read_queue()
            undelivered = [] if tickets is None else tickets.undelivered()
        except Exception as error:  # of SQLAlchemy or of the driver: none of them may cost the caller its report
            undelivered = [Stuck(batch_id=NO_BATCH, stage=ASK_QUEUE, error=first_line(error), since=time.time())]
        found += [one for one in undelivered if one.batch_id in {NO_BATCH, *waiting}]
    return found


def line(found: Stuck) -> str:
    """One line for people: the batch, the stage, since when, and the error."""
    since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.since))
    return f"{_subject(found)} since {since}: {found.error}"


def _subject(found: Stuck) -> str:
    return f"batch {found.batch_id} is stuck at {found.stage}" if found.batch_id else f"{found.stage} fails"


def _write(blobs: Blobs, found: Stuck) -> None:
    key = _key(found.batch_id, found.stage)
    before = _read(blobs, key)
    since = found.since if before is None else before[0]
    blobs.write(key, json.dumps({"since": since, "error": found.error}).encode())


def _read(blobs: Blobs, key: str) -> tuple[float, str] | None:
    try:
        found = json.loads(blobs.read(key))
        return float(found["since"]), str(found["error"])
    except (BlobMissing, ValueError, KeyError, TypeError):  # removed meanwhile, or damaged
        return None


def _key(batch_id: str, stage: str) -> str:
    return f"trouble/{batch_id}/{stage}.json" if batch_id else f"trouble/{stage}.json"
