"""Work on tickets."""

from __future__ import annotations

import pytest

from annotation_queue.client import new_id
from annotation_queue.errors import LeaseLost, NotAllowed
from annotation_queue.records import Kind, NewOperation, NewTicket, QueuePolicy, Reason, State
from annotation_queue.tickets.store import TicketStore
from storage.records import Verdict
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import corrected, verify_tickets
from tests.annotation_queue.waiting import wait_until


def test_a_batch_goes_from_the_pipeline_to_people_and_back(queue, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 3)
    assert open_batch(pipeline, request, 3) == batch
    for verdict in (Verdict.ACCEPT, Verdict.REJECT, Verdict.REFINE):
        ticket = vera.claim([Kind.VERIFY], batch_id=batch.batch_id)
        assert vera.masklet(ticket).masklet_id == ticket.masklet_id
        reasons = [Reason.DRIFT] if verdict is Verdict.REJECT else []
        vera.finish(ticket, verdict=verdict, reasons=reasons, frame_idx=4, seconds=1.5)
    assert vera.claim(batch_id=batch.batch_id) is None
    track = ann.claim(batch_id=batch.batch_id)
    points = '{"points_xy": [[9, 9]], "labels": [1]}'
    click = NewOperation(operation_id=new_id(), kind="prompt", created_at="", frame_idx=4, payload=points)
    assert ann.append_operations(track, [click]).stored == 1
    assert ann.append_operations(track, [click]).repeated == 1
    made = corrected(ann.masklet(track), f"{batch.batch_id}-better")
    assert ann.finish(track, masklet=made).next_ticket_id is None, "which only overseers see"
    assert vera.claim(batch_id=batch.batch_id) is None  # she sent this one back, so another person verifies it
    with queue.client("victor") as victor:
        verify = victor.claim(batch_id=batch.batch_id)
        assert verify.ticket_id == pipeline.ticket(track.ticket_id).next_ticket_id
        assert victor.masklet(verify).rle == made.rle
        assert not victor.finish(verify, verdict=Verdict.ACCEPT).batch_drained, "which only overseers see"

    result = pipeline.batch_result(batch.batch_id)
    assert result.batch.drained
    assert sorted(s.verdict for s in result.settled) == ["accept", "accept", "reject"]
    assert {s.masklet.annotated_by for s in result.settled} == {None, "ann"}
    assert [o.kind for o in result.operations].count("verdict") == 4
    wait_until(lambda: batch.batch_id in queue.delivered)
    assert queue.delivered.count(batch.batch_id) == 1


def test_a_ticket_may_have_no_masklet(pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    ticket = ann.claim(ticket_id=name)
    assert ann.masklet(ticket) is None
    assert ann.finish(ticket, verdict=Verdict.REJECT, reasons=[Reason.UNTRACKABLE]).ticket.verdict is Verdict.REJECT
    assert [s.verdict for s in pipeline.batch_result(name).settled] == [Verdict.REJECT]


def test_a_verifier_reads_what_a_correction_corrects(queue, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 1)
    first = vera.claim([Kind.VERIFY], batch_id=batch.batch_id)
    candidate = vera.masklet(first)

    def before(person, ticket):
        response = person._http.get(f"/api/tickets/{ticket.ticket_id}/before")
        return response.status_code, response.json().get("masklet_id")

    assert before(vera, first) == (404, None), "nobody has corrected it yet"
    vera.finish(first, verdict=Verdict.REFINE, frame_idx=4)
    track = ann.claim(batch_id=batch.batch_id)
    ann.finish(track, masklet=corrected(candidate, f"{batch.batch_id}-better"))
    with queue.client("victor") as victor:
        verify = victor.claim(batch_id=batch.batch_id)
        assert before(victor, verify) == (200, candidate.masklet_id)
        assert before(ann, verify)[0] == 403, "she does not hold it"


def test_a_verifier_cannot_read_another_s_verdict(queue, request):
    tickets = TicketStore(queue.accounts._database, policy=QueuePolicy(overlap=2, overlap_share=1.0))
    tickets.open_batch(request.node.name, verify_tickets(1, frame_count=8, prefix=request.node.name))
    with queue.client("vera") as vera, queue.client("victor") as victor, queue.client("lea") as lea:
        first = vera.claim(batch_id=request.node.name)
        vera.finish(first, verdict=Verdict.REFINE)
        back = vera.unsubmit(first.ticket_id)  # the operation of it names her first verdict, too
        vera.finish(back, verdict=Verdict.ACCEPT)
        second = victor.claim(batch_id=request.node.name)
        assert second.ticket_id == first.ticket_id and victor.operations(first.ticket_id) == []
        assert [o.kind for o in vera.operations(first.ticket_id)] == ["verdict", "unsubmit", "verdict"]
        assert len(lea.operations(first.ticket_id)) == 3
        victor.finish(second, verdict=Verdict.ACCEPT)
        assert [o.kind for o in victor.operations(first.ticket_id)] == ["verdict"], "in gold there is no other"
        assert len(lea.operations(first.ticket_id)) == 4


def test_a_verdict_is_taken_back_over_the_api(pipeline, vera, request):
    batch = open_batch(pipeline, request, 2)
    ticket = vera.claim(batch_id=batch.batch_id)
    vera.finish(ticket, verdict=Verdict.REFINE, seconds=3.0)
    recent = vera.recent()[0]
    assert (recent.ticket_id, recent.verdict, recent.seconds) == (ticket.ticket_id, Verdict.REFINE, 3.0)
    back = vera.unsubmit(ticket.ticket_id)
    assert back.leased_by == "vera" and back.lease_token == ticket.lease_token + 1
    assert ticket.ticket_id not in {r.ticket_id for r in vera.recent()}
    vera.finish(back, verdict=Verdict.ACCEPT)
    with pytest.raises(NotAllowed, match="last 10"):
        pipeline.unsubmit(ticket.ticket_id)


def test_a_lead_ends_a_lease_over_the_api(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 1)
    ticket = vera.claim(batch_id=batch.batch_id)
    with pytest.raises(NotAllowed, match="only leads"):
        vera.end_lease(ticket)
    with queue.client("lea") as lea:
        (seen,) = lea.tickets(batch_id=batch.batch_id, state=State.LEASED)
        assert lea.end_lease(seen).state is State.OPEN
    with pytest.raises(LeaseLost):
        vera.heartbeat(ticket)


def test_a_deeply_nested_payload_is_refused(pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    ticket = ann.claim(ticket_id=name)
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    act = NewOperation(operation_id=new_id(), kind="stroke", created_at="", frame_idx=0, payload=deep)
    with pytest.raises(ValueError, match="payload"):
        ann.append_operations(ticket, [act])
