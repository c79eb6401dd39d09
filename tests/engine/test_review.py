"""Tickets to pick objects by hand, where they are asked for."""

import pytest

from annotation_queue.records import Kind, Person, Role
from engine import auto_masklets, batches, ingest, review
from engine.settings import ReviewSettings


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"review": ReviewSettings(select=True, phase="2")})


def test_each_video_gets_a_ticket_to_select_after_those_about_candidates(queue):
    ingest.run(queue)
    (batch_id,) = batches.reached(queue.blobs)
    for videos in auto_masklets.chunks(queue, batch_id):
        auto_masklets.run(queue, batch_id, videos)
    auto_masklets.finish(queue, batch_id)
    count = review.open_batch(queue, batch_id)
    store, _ = queue.open_queue()
    selections = store.tickets(kind=Kind.SELECT, batch_id=batch_id)
    assert len(selections) == 3 == len({t.video_id for t in selections})
    assert count == 3 + len(store.tickets(kind=Kind.VERIFY, batch_id=batch_id, limit=500)) > 3
    assert {(t.phase, t.masklet_id) for t in selections} == {("2", None)}
    lead = Person(name="lea", roles=frozenset({Role.LEAD}))
    assert store.claim(lead, claim_id="c").kind is Kind.VERIFY
    assert review.open_batch(queue, batch_id) == count, "opening it again changes nothing"
