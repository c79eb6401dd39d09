"""Admits new videos from the source, by the clock.

Lists `MASKLETS_INGEST__SOURCE` (or the folder or `s3://bucket/prefix` given to a run by hand), admits what is fit,
quarantines the rest with a reason, and wakes `auto_masklets` when a batch was admitted. A source that has nothing new
gives a skipped task.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import DEFAULTS, START, VIDEOS, connected, every


@dag(
    schedule=every("ingest_every_s", 60),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params={
        "source": Param(None, type=["null", "string"], description="folder or s3://bucket/prefix; empty: the setting"),
    },
    tags=["masklets", "videos"],
    doc_md=__doc__,
)
def ingest():
    @task(outlets=[VIDEOS])
    def admit(params=None) -> str:
        """Admits what is new; returns the batch id."""
        from engine.stages import ingest, sources

        with connected(sources.NoSource) as s:
            source = params["source"] or s.settings.ingest.source
            if source is None:
                raise AirflowSkipException("no source is set")
            report = ingest.admit(s, source)
        if report.batch_id is None:
            raise AirflowSkipException("nothing new")
        return report.batch_id

    admit()


ingest()
