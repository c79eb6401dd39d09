"""Admits new videos from the source, by the clock.

Lists `MASKLETS_INGEST__SOURCE` and the source of each project (a run started by hand may name another folder or
`s3://bucket/prefix`) and cuts the new files of each into pieces. Any worker admits the fit videos of a piece as a batch
of its project, quarantines the others with a reason, and wakes `auto_masklets`. If the sources hold nothing new,
`admit` is skipped. The files of a piece that fails in all its tries are in the next run's pieces.
"""

from __future__ import annotations

from airflow.sdk import Param, dag, task
from airflow.sdk.exceptions import AirflowSkipException

from dags.common import COMMON, VIDEOS, connected, every


@dag(
    schedule=every("ingest_every_s", 60),
    params={
        "source": Param(None, type=["null", "string"], description="folder or s3://bucket/prefix; empty: the settings"),
        "project": Param(None, type=["null", "string"], description="that this source's batch belongs to"),
    },
    tags=["masklets", "videos"],
    doc_md=__doc__,
    **COMMON,
)
def ingest():
    @task
    def plan(params=None) -> list[str]:
        """Lists the source of every project; returns the ids of the pieces with its new files."""
        from engine.ingest import ingest, sources

        with connected(sources.NoSource) as s:
            if not (params["source"] or ingest.has_source(s)):
                raise AirflowSkipException("no source is set")
            return ingest.plan(s, params["source"], project=params["project"])

    @task(outlets=[VIDEOS])
    def admit(piece_id: str) -> list[str]:
        """Admits the new videos of a piece; returns the ids of their batches."""
        from engine.ingest import ingest, sources

        with connected(sources.NoSource) as s:
            batch_ids = ingest.admit_piece(s, piece_id)
        if not batch_ids:
            raise AirflowSkipException("nothing new")
        return batch_ids

    admit.expand(piece_id=plan())


ingest()
