"""Videos that are published before their batch is drained: nobody changes them any more, and the others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue.errors import NoSuchBatch, NotAllowed, TooLate
from annotation_queue.leads.acts import Act, Action
from annotation_queue.leads.overseeing import Overseeing
from annotation_queue.records import NewGold, Reason, SettledVideos
from annotation_queue.tickets import closing
from storage.records import Verdict
from tests.annotation_queue.annotators import ANN, LEA, VERA, claim, finish, new_id, with_policy
from tests.annotation_queue.synthetic_queue import candidate, track_ticket, verify_tickets

NO = (Verdict.REJECT, Reason.NOT_AN_OBJECT)


def close(tickets, batch_id="b"):
    return closing.close(tickets.database, batch_id, tickets.clock())


def test_the_videos_whose_tickets_are_all_done_are_closed_and_no_answer_about_them_changes(tickets, clock):
    opened = clock()
    tickets.open_batch("b", verify_tickets(7))  # of five videos, two tickets each of the first two
    for _ in range(5):
        finish(tickets, VERA, *NO)
    tickets.add_gold("b", [NewGold(ticket=track_ticket("gold"), truth=candidate("t", "video-4"))], by=LEA)
    none = SettledVideos(batch_id="b", project="", videos=5, settled=3, closed=0, since=opened)
    assert closing.settled_videos(tickets.database) == [none]
    clock.advance(60)
    assert close(tickets) == ["video-2", "video-3", "video-4"] == close(tickets)
    assert closing.settled_videos(tickets.database) == [replace(none, closed=3, since=opened + 60)]
    act = Act(act_id="act", action=Action.REOPEN, by=LEA)
    done = Overseeing(tickets).act(act, ["ticket-0000", "ticket-0003"])
    assert [one.done for one in done] == [True, False] and "never changed" in done[1].said
    with pytest.raises(TooLate):
        tickets.unsubmit("ticket-0004", VERA, operation_id=new_id(), created_at="")
    assert tickets.unsubmit("ticket-0001", VERA, operation_id=new_id(), created_at="").ticket_id == "ticket-0001"
    page = tickets.result_page("b", only=["video-2", "video-4"])
    assert [one.ticket_id for one in page.settled] == ["ticket-0002", "ticket-0004"]
    acts = tickets.result_page("b", after=page.next or "operations:", only=["video-2", "video-4"]).operations
    assert {one.ticket_id for one in acts} == {"ticket-0002", "ticket-0004"}


def test_gold_opens_no_new_object_in_a_closed_video(tickets):
    tickets.open_batch("b", verify_tickets(2))
    finish(tickets, VERA, *NO)
    tickets.add_gold("b", [NewGold(ticket=track_ticket("gold"), truth=candidate("t", "video-0"))], by=LEA)
    held = claim(with_policy(tickets, gold_share=1.0), ANN)
    assert (held.video_id, close(tickets)) == ("video-0", ["video-0"])
    with pytest.raises(NotAllowed, match="no more objects"):
        tickets.new_object(held.ticket_id, held.lease_token, ANN, claim_id=new_id())
    assert tickets.batch("b").total == 2


def test_nothing_is_closed_before_the_last_ticket_came_nor_after_the_last_was_done(tickets):
    tickets.open_batch("b", verify_tickets(1), sealed=False)
    finish(tickets, VERA, *NO)
    assert close(tickets) == [] == closing.settled_videos(tickets.database)
    tickets.open_batch("b", verify_tickets(2))
    assert close(tickets) == ["video-0"]
    finish(tickets, VERA, *NO)
    assert tickets.batch("b").drained and close(tickets) == ["video-0"] and not closing.settled_videos(tickets.database)
    with pytest.raises(NoSuchBatch):
        close(tickets, "another")
