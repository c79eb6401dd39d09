"""Wakes every DAG that has work, by the clock.

An event can be lost (the queue could not reach Airflow), and a failed run can leave a batch or a retraining round
behind. This DAG asks what is pending at each stage and sends the event again. A DAG that is already at work finds
nothing new to do.
"""

from __future__ import annotations

from airflow.sdk import AssetAlias, dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.common import COLLECTED, COMMON, RELEASE, REVIEWED, VIDEOS, connected, every

WAKES = {asset.name: asset for asset in (VIDEOS, REVIEWED, COLLECTED, RELEASE)}
PENDING = AssetAlias("pending")  # lets one task send only the events that are due


@dag(
    schedule=every("reconcile_every_s", 900),
    tags=["masklets", "operations"],
    doc_md=__doc__,
    **COMMON,
)
def reconcile():
    @task(outlets=[PENDING])
    def wake(outlet_events=None) -> dict:
        """Sends the events that pending batches and a due release wait for; returns them, and what failed."""
        from engine import loop

        with connected() as s:
            found = loop.find_waiting(s)
        for name, ids in found.pending.items():
            if ids:
                outlet_events[PENDING].add(WAKES[name], extra={"pending": ids})
        return {"pending": found.pending, "trouble": found.trouble}

    @task
    def report(found: dict) -> None:
        """Fails if a stage could not be asked. It is a task of its own because a failed task sends no events."""
        if found["trouble"]:
            raise AirflowFailException("; ".join(found["trouble"]))

    report(wake())


reconcile()
