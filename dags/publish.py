"""Publishes collected batches and increments of batches: checks, one commit to each table, and one release for each.

Woken by `collected`. Batches are published one after the other: there is only one committer.
"""

from __future__ import annotations

from airflow.sdk import dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import COLLECTED, COMMON, RELEASE, connected


@dag(
    schedule=[COLLECTED],
    tags=["masklets", "releases"],
    doc_md=__doc__,
    **COMMON,
)
def publish():
    @task
    def pending() -> list[str]:
        """The batches that are collected and not published."""
        from engine.stages import publish

        with connected() as s:
            return publish.pending(s)

    @task(outlets=[RELEASE], max_active_tis_per_dag=1)
    def publish_batch(batch_id: str) -> str:
        """Checks and commits one batch; returns the name of its release."""
        from engine.stages import publish

        with connected(publish.PublishStopped) as s:
            release = publish.publish_batch(s, batch_id)
        if not release:
            raise AirflowSkipException("published, but there is no masklet to release yet")
        return release

    publish_batch.expand(batch_id=pending())


publish()
