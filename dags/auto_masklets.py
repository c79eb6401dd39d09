"""Proposes masklets for admitted videos and opens their review.

Woken by `videos`. Plans every batch that has videos without candidates, propagates them in chunks (pool `gpu`), and
opens the tickets of each complete batch. A video on which the model fails is quarantined; its batch goes on. If a chunk
fails in all its tries, its batch stays pending, and the next run continues with the missing videos.
"""

from __future__ import annotations

import logging

from airflow.sdk import dag, task

from dags.common import CANDIDATES, COMMON, GPU, VIDEOS, connected

log = logging.getLogger(__name__)


@dag(
    schedule=[VIDEOS],
    tags=["masklets", "model"],
    doc_md=__doc__,
    **COMMON,
)
def auto_masklets():
    @task
    def plan() -> list[str]:
        """The batches that lack candidates, or whose tickets are not open. Logs where the campaign stands."""
        from engine import loop
        from engine.rounds import campaign

        with connected() as s:
            log.info("%s", campaign.summary(s))
            return loop.pending(s, loop.PROPOSE, loop.OPEN_REVIEW)

    @task
    def chunks(batch_ids: list[str]) -> list[dict]:
        """The videos that still lack candidates, in groups for one `propagate` each."""
        from engine.stages import propose

        with connected() as s:
            return [{"batch_id": b, "video_ids": ids} for b in batch_ids for ids in propose.chunks(s, b)]

    @task(pool=GPU)
    def propagate(batch_id: str, video_ids: list[str]) -> str:
        """Makes the candidates of some videos of a batch."""
        from engine.stages import propose

        with connected() as s:
            return propose.propose_videos(s, batch_id, video_ids)

    @task(outlets=[CANDIDATES], trigger_rule="all_done")
    def open_review(batch_id: str, outlet_events=None) -> str:
        """Marks the batch and opens its tickets; fails while a chunk is missing. The event names the phase."""
        from engine import batches
        from engine.rounds import campaign
        from engine.stages import propose, review

        with connected(propose.NotProposed) as s:
            propose.finish(s, batch_id)
            review.open_batch(s, batch_id, campaign.phase_of_batch(s, batch_id))
            phase = batches.facts(s.blobs, batch_id, batches.PHASE) or {}
        outlet_events[CANDIDATES].extra = {"batch": batch_id, **phase}
        return batch_id

    batch_ids = plan()
    propagate.expand_kwargs(chunks(batch_ids)) >> open_review.expand(batch_id=batch_ids)


auto_masklets()
