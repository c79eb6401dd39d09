"""What happens to a batch when its last ticket closes: an event for Airflow, or publishing in this process.

A laptop needs no scheduler: without `airflow.url`, the queue collects and publishes drained batches itself, and looks
for increments of others that are due.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.services import connect
from engine.settings import Settings
from storage import log_ids

if TYPE_CHECKING:
    from engine.processes.airflow_client import AirflowClient

log = logging.getLogger(__name__)

SWEEP_S = 60.0  # between two looks for increments that are due

_finishing = threading.Lock()  # one batch at a time: two threads finish batches, of `deliverer` and of `sweep`
_stopped: dict[str, list[str]] = {}  # address of a batch that the gate stopped -> what was marked of it at that time


def airflow_client(settings: Settings, timeout_s: float = 30.0) -> AirflowClient:
    """A client of the Airflow at `airflow.url`. Raises AirflowError if its password is unknown."""
    from engine.processes.airflow_client import AirflowClient
    from engine.processes.airflow_config import saved_password

    assert settings.airflow.url is not None
    given = settings.airflow.password
    password = given.get_secret_value() if given else saved_password(settings.airflow_home)
    return AirflowClient(settings.airflow.url, password=password, timeout_s=timeout_s)


def deliverer(settings: Settings) -> Callable[[str], None]:
    """The function that gets the id of each drained batch. The queue retries if it raises."""
    from engine import loop, trouble

    def tell_airflow(batch_id: str) -> None:
        with connect(settings) as s, trouble.recorded(s.blobs, batch_id, "tell airflow"):
            with airflow_client(settings) as client:
                client.asset_event(loop.REVIEWED, {"batch_id": batch_id})

    def finish_here(batch_id: str) -> None:
        finish(settings, batch_id)

    return tell_airflow if settings.airflow.url else finish_here


def finish(settings: Settings, batch_id: str) -> None:
    """Collects and publishes a drained batch. Skips a batch that is not in this store.

    A batch that the publish gate stops is logged and left until the next start, or until something is marked of it,
    such as an increment or a lead's decision: a retry would give the same result.
    Raises NotFinished for a batch that is not marked as in review yet: a batch without candidates drains before that.
    """
    from engine import batches, loop
    from engine.stages import publish

    with _finishing, connect(settings) as s:
        if not batches.is_known(s.blobs, batch_id):
            return
        address = s.blobs.uri_of(f"batches/{batch_id}")
        if _stopped.get(address) == list(s.blobs.keys(f"batches/{batch_id}/")):
            return
        try:
            loop.finish(s, batch_id)
        except publish.PublishStopped as stopped:
            _stopped[address] = list(s.blobs.keys(f"batches/{batch_id}/"))
            with log_ids.about(batch_id=batch_id):
                log.warning("%s", stopped)


def keep_sweeping(settings: Settings) -> None:
    """`sweep`s once, and again and again where the settings want increments: no event says that one is due."""
    from engine.stages import review

    while True:
        try:
            sweep(settings)
        except Exception:  # of the store or of the queue: the next look finds the same
            log.exception("cannot tell which batches wait")
        if not review.wants_increments(settings):
            return
        time.sleep(SWEEP_S)


def sweep(settings: Settings) -> None:
    """Finishes the drained batches that an earlier process did not publish, and the increments that are due."""
    from engine import loop

    with connect(settings) as s:
        left = loop.pending(s, loop.COLLECT, loop.PUBLISH)
    for batch_id in left:
        try:
            finish(settings, batch_id)
        except Exception:  # go on with the other batches
            with log_ids.about(batch_id=batch_id):
                log.exception("batch %s is not published", batch_id)
