"""Collects people's decisions.

Woken by `reviewed`, which the queue announces when every ticket of a batch is settled. Each drained batch becomes parts
in the store; of others, the settled videos if the settings say that they are due (then `reconcile` announces it). No
task here waits for people.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from dags.common import COLLECTED, COMMON, REVIEWED, connected


@dag(
    schedule=[REVIEWED],
    tags=["masklets", "review"],
    doc_md=__doc__,
    **COMMON,
)
def collect():
    @task
    def drained() -> list[str]:
        """The batches that are settled in the queue and not collected yet, or of which an increment is due."""
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
