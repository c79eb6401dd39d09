"""Comments, history and portraits over HTTP."""

from __future__ import annotations

import httpx

from annotation_queue.records import Reason
from storage.records import Verdict
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import track_ticket

WHEN = "2026-01-01T00:00:00Z"


def as_person(queue, name):
    headers = {"Authorization": f"Bearer {queue.accounts.issue_token(name)}"}
    return httpx.Client(base_url=queue.url, headers=headers)


def said(text, comment_id, **place):
    return {"comment_id": comment_id, "created_at": WHEN, "text": text, **place}


def test_a_comment_is_kept_once_and_goes_on_in_the_ticket_that_follows(queue, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 1)
    held = vera.claim(batch_id=batch.batch_id)
    at = f"/api/tickets/{held.ticket_id}/comments"
    with as_person(queue, "vera") as hers, as_person(queue, "ann") as anns, as_person(queue, "lea") as leads:
        sent = said("  the ear is missing\n", f"{held.ticket_id}-1", frame_idx=4, x=10.5, y=20)
        first = hers.post(at, json=sent)
        assert first.status_code == 200 and hers.post(at, json=sent).json() == first.json()
        assert hers.get(at).json() == [first.json()]
        assert first.json() | {"text": "the ear is missing", "person": "vera", "x": 10.5} == first.json()
        assert anns.get(at).status_code == anns.post(at, json=said("me too", "c")).status_code == 403
        assert hers.post(at, json=said("x" * 2001, "long")).status_code == 422
        assert hers.post(at, json=said("where?", "far", frame_idx=4, x=10_000, y=0)).status_code == 422
        assert hers.post(at, json=said("when?", "late", frame_idx=48)).status_code == 422
        vera.finish(held, verdict=Verdict.REFINE, reasons=[Reason.DRIFT], frame_idx=4)
        track = ann.claim(batch_id=batch.batch_id)
        thread = f"/api/tickets/{track.ticket_id}/comments"
        (before,) = anns.get(thread).json()
        assert before["text"] == "the ear is missing" and before["ticket_id"] == "", "whose id she does not know"
        assert leads.get(thread).json()[0]["ticket_id"] == held.ticket_id
        assert leads.post(at, json=said("mind the ear", f"{held.ticket_id}-2")).status_code == 200
        assert len(hers.get(at).json()) == 2


def test_a_lead_comments_many_tickets_with_one_request_and_a_refusal_stops_no_other(queue, pipeline, request):
    batch = open_batch(pipeline, request, 3)
    known = [ticket.ticket_id for ticket in pipeline.tickets(batch_id=batch.batch_id)]
    body = {"act_id": batch.batch_id, "ticket_ids": [*known, "nowhere"], "text": "mind the ear", "created_at": WHEN}
    with as_person(queue, "vera") as hers, as_person(queue, "lea") as leads:
        assert hers.post("/api/comments", json=body).status_code == 403
        for _ in range(2):
            results = leads.post("/api/comments", json=body).json()
            assert [each["done"] for each in results] == [True, True, True, False]
        for ticket_id in known:
            assert [c["text"] for c in leads.get(f"/api/tickets/{ticket_id}/comments").json()] == ["mind the ear"]
        late = body | {"act_id": f"{batch.batch_id}-2", "frame_idx": 4000}
        assert not any(each["done"] for each in leads.post("/api/comments", json=late).json())


def test_the_history_lists_what_was_finished_with_pictures_of_it(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 3)
    done = []
    for _ in range(3):
        held = vera.claim(batch_id=batch.batch_id)
        vera.finish(held, verdict=Verdict.REJECT, reasons=[Reason.DRIFT])
        done.append(held.ticket_id)
    with as_person(queue, "vera") as hers, as_person(queue, "victor") as his:
        page = hers.get("/api/me/history?limit=2").json()
        assert [answer["ticket_id"] for answer in page["answers"]] == done[:0:-1]
        assert page["answers"][0] | {"verdict": "reject", "reasons": ["drift"], "batch_id": ""} == page["answers"][0]
        rest = hers.get("/api/me/history", params={"limit": 2, "after": page["next"]}).json()
        assert rest["answers"][0]["ticket_id"] == done[0]
        assert hers.get("/api/me/history?after=nowhere").status_code == 422
        picture = hers.get(f"/api/tickets/{done[0]}/portrait.jpg")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.headers["cache-control"] == "private, no-cache", "a ticket may be about another masklet later"
        known = {"If-None-Match": picture.headers["etag"]}
        assert hers.get(f"/api/tickets/{done[0]}/portrait.jpg", headers=known).status_code == 304
        assert len(picture.content) < 10_000
        assert his.get(f"/api/tickets/{done[0]}/portrait.jpg").status_code == 403
        assert hers.get(f"/api/tickets/{done[0]}/operations").status_code == 200, "to look at it"


def test_a_batch_has_a_name_for_people(queue, pipeline, request):
    name = request.node.name
    opened = pipeline.open_batch(name, [track_ticket(name)], name="kitchen videos")
    assert opened.name == "kitchen videos"
    assert pipeline.open_batch(name, [track_ticket(name)]).name == "kitchen videos", "nothing was said about it"
    with as_person(queue, "lea") as leads:
        assert leads.get(f"/api/batches/{name}").json()["name"] == "kitchen videos"


def test_a_video_has_the_name_of_its_file(pipeline, vera, request):
    batch = open_batch(pipeline, request, 1)
    held = vera.claim(batch_id=batch.batch_id)
    assert vera.video(held.video_id).name == f"{held.video_id}.mp4"
