"""What happens to a batch when its last ticket closes: Airflow is told, or the batch is published right here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.services import connect
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.processes.airflow_client import AirflowClient

log = logging.getLogger(__name__)


_finishing = threading.Lock()  # batches are finished one at a time: drained ones in one thread, left ones in another


class NotFinished(Exception):
    """A drained batch cannot be published yet."""


def airflow_client(settings: Settings) -> AirflowClient:
    """The Airflow that is told of drained batches. Raises AirflowError if its password is unknown."""
    from engine.processes.airflow_client import AirflowClient
    from engine.processes.airflow_config import saved_password

    assert settings.airflow.url is not None
    given = settings.airflow.password
    password = given.get_secret_value() if given else saved_password(settings.airflow_home)
    return AirflowClient(settings.airflow.url, password=password)


def deliverer(settings: Settings) -> Callable[[str], None]:
    """What is done with the id of a drained batch; the queue calls again if it raises."""

    def tell_airflow(batch_id: str) -> None:
        with airflow_client(settings) as client:
            client.asset_event("reviewed", {"batch_id": batch_id})

    def finish_here(batch_id: str) -> None:
        finish(settings, batch_id)

    return tell_airflow if settings.airflow.url else finish_here


def finish(settings: Settings, batch_id: str) -> None:
    """Collects and publishes a drained batch; nothing for a batch that is not of this store.

    A batch that the publish gate stops is logged and left until the next start: another try would only repeat it.
    Raises NotFinished for a batch that is not marked as in review yet; a batch without candidates drains before it is.
    """
    from engine.stages import batches, publish, review
    from engine.stages.batches import BatchStage

    with _finishing, connect(settings) as s:
        if batch_id not in batches.reached(s.blobs):
            return
        if batch_id in review.to_collect(s):
            review.collect(s, batch_id)
        if batch_id in publish.pending(s):
            try:
                publish.publish_batch(s, batch_id)
            except publish.PublishStopped as stopped:
                log.warning("%s", stopped)
                return
        if batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) is None:
            raise NotFinished(f"batch {batch_id} is drained, but not marked as in review yet")


def sweep(settings: Settings) -> None:
    """Finishes what an earlier process left: batches that it was told of and did not publish."""
    from engine.stages import publish, review

    with connect(settings) as s:
        left = sorted({*review.to_collect(s), *publish.pending(s)})
    for batch_id in left:
        try:
            finish(settings, batch_id)
        except Exception:  # the other batches do not suffer
            log.exception("batch %s is left as it is", batch_id)
