"""Simulated people close only the reviews that they are given."""

from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from annotation_queue.client import QueueClient
from annotation_queue.records import Kind, NewTicket, Role
from engine import batches
from engine.batches import BatchStage
from engine.demo import simulated_review
from engine.services import connect
from engine.serving import queue_process
from engine.settings import QueueSettings, Settings
from tests.free_ports import free_port


@pytest.mark.server
def test_simulated_people_leave_other_batches_alone_and_wait_for_leased_tickets(tmp_path):
    mine, other = "0" * 16, "1" * 16
    bare = Settings(home=tmp_path, queue=QueueSettings(port=free_port()))
    with queue_process.QueueProcess(bare, deliver=False), connect(bare) as s:
        for batch_id in (mine, other):
            for stage in (BatchStage.INGESTED, BatchStage.PROPOSED, BatchStage.IN_REVIEW):
                batches.mark(s.blobs, batch_id, stage, {"videos": []})
            tickets = [NewTicket(ticket_id=f"{batch_id}-{i}", kind=Kind.TRACK, video_id="clip") for i in range(2)]
            s.queue.open_batch(batch_id, tickets)
        _, accounts = s.open_queue()
        accounts.add("ann", [Role.ANNOTATOR], "correct horse")
        with QueueClient(bare.queue_url, username="ann", password="correct horse") as client:
            held = client.claim(batch_id=mine)
            assert held is not None
            said: list[str] = []
            give_back = cast(Callable[[], None], partial(client.release, held))  # the released ticket is not needed
            tally, made = simulated_review.close_reviews(s, [mine], give_back, said.append)
        assert tally.verdicts == {"reject": 2} and made == [""]
        assert BatchStage.PUBLISHED in batches.reached(s.blobs)[mine]
        assert s.queue.batch(other).remaining == 2
    assert len(said) == 1 and "waiting for leased tickets" in said[0]
