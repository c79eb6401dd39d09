"""Admits new videos from the source, by the clock.

Lists `MASKLETS_INGEST__SOURCE` (a run started by hand may name another folder or `s3://bucket/prefix`), admits fit
videos, quarantines the others with a reason, and wakes `auto_masklets` if a batch was admitted. If the source holds
nothing new, the task is skipped.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import COMMON, VIDEOS, connected, every


@dag(
    schedule=every("ingest_every_s", 60),
    params={
        "source": Param(None, type=["null", "string"], description="folder or s3://bucket/prefix; empty: the setting"),
    },
    tags=["masklets", "videos"],
    doc_md=__doc__,
    **COMMON,
)
def ingest():
    @task(outlets=[VIDEOS])
    def admit(params=None) -> str:
        """Admits new videos; returns the batch id."""
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
