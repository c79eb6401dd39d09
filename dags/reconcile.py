"""Wakes whoever has work that no event told of, by the clock.

An event can be lost (the queue could not reach Airflow), and a batch or a retraining round can be left by a failed run.
This asks the store what is pending at each stage and sends the event again; a consumer that is already at work finds
nothing new to do.
"""

from __future__ import annotations

from airflow.sdk import AssetAlias, dag, task
from airflow.sdk.exceptions import AirflowFailException

from dags.common import COLLECTED, DEFAULTS, RELEASE, REVIEWED, START, VIDEOS, connected, every

WAKES = {asset.name: asset for asset in (VIDEOS, REVIEWED, COLLECTED, RELEASE)}
PENDING = AssetAlias("pending")  # lets one task send only the events that are due


@dag(
    schedule=every("reconcile_every_s", 900),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["masklets", "operations"],
    doc_md=__doc__,
)
def reconcile():
    @task(outlets=[PENDING])
    def wake(outlet_events=None) -> dict:
        """Sends the events that pending batches and a due release wait for; returns them, and what was in the way."""
        from engine import loop

        with connected() as s:
            found = loop.run(s)
        for name, ids in found.pending.items():
            if ids:
                outlet_events[PENDING].add(WAKES[name], extra={"pending": ids})
        return {"pending": found.pending, "trouble": found.trouble}

    @task
    def tell(found: dict) -> None:
        """Fails where a stage could not be asked: a task that fails sends no events, and the others' are sent."""
        if found["trouble"]:
            raise AirflowFailException("; ".join(found["trouble"]))

    tell(wake())


reconcile()
