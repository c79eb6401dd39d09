"""Collects what people decided.

Woken by `reviewed`, which the queue posts when a batch has no ticket left to settle. Each drained batch becomes parts
in the store; nobody waits here for people.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from dags.common import COLLECTED, DEFAULTS, REVIEWED, START, connected


@dag(
    schedule=[REVIEWED],
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    tags=["masklets", "review"],
    doc_md=__doc__,
)
def collect():
    @task
    def drained() -> list[str]:
        """The batches that the queue has settled and nobody has collected."""
        from engine.stages import review

        with connected() as s:
            return review.to_collect(s)

    @task(outlets=[COLLECTED])
    def collect_batch(batch_id: str) -> str:
        """Writes the decisions of one batch to the store."""
        from engine.stages import review

        with connected() as s:
            review.collect(s, batch_id)
        return batch_id

    collect_batch.expand(batch_id=drained())


collect()
