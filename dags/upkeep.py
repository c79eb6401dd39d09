"""Keeps the store small and quick to read, by the clock: large files of many small ones, and no leftovers.

Both tasks can run beside all other DAGs, on the machine that publishes. A run that was killed is completed by the next
one.
"""

from __future__ import annotations

from airflow.sdk import dag, task

from dags.common import COMMON, connected, every


@dag(
    schedule=every("upkeep_every_s", 86400),
    tags=["masklets", "operations"],
    doc_md=__doc__,
    **COMMON,
)
def upkeep():
    @task
    def compact() -> str:
        """Writes the parts of published batches as large files; returns the release that names them, "" for none."""
        from engine.stages import upkeep

        with connected() as s:
            return upkeep.compact(s).release

    @task
    def tidy() -> int:
        """Removes partial files, old snapshots, and files that nothing names; returns the number of these files."""
        from engine.stages import upkeep

        with connected() as s:
            return upkeep.tidy(s).swept

    compact() >> tidy()


upkeep()
