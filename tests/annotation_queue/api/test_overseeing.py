"""What leads see and do of all tickets, over HTTP; and who may."""

from __future__ import annotations

from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from annotation_queue.client import new_id
from annotation_queue.errors import NoSuchVideo, TakenBack
from annotation_queue.records import Kind, NewOperation, NewTicket, Role
from storage.records import Verdict
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import SyntheticMedia, centre, picture


def asking(queue, name):
    headers = {"Authorization": f"Bearer {queue.accounts.issue_token(name)}"}
    return httpx.Client(base_url=queue.url, headers=headers)


@pytest.fixture
def lea(queue):
    with asking(queue, "lea") as http:
        yield http


def act(http, action, *ticket_ids, **what):
    return http.post("/api/acts", json={"act_id": new_id(), "action": action, "ticket_ids": ticket_ids, **what})


READ = ("/api/cards", "/api/tickets/{}/history", "/api/kept")
WRITE: list[tuple[str, dict[str, Any]]] = [
    ("/api/acts", {"act_id": "a", "action": "take back", "ticket_ids": ["x"]}),
    ("/api/kept/close", {"operation_ids": [], "applied": False}),
]


@pytest.mark.parametrize("name", ["vera", "ann"])
def test_only_leads_see_and_do_what_concerns_all_tickets(queue, pipeline, request, name):
    batch = open_batch(pipeline, request, 1)
    ticket_id = f"{batch.batch_id}-0000"
    with asking(queue, name) as http:
        for path in READ:
            assert http.get(path.format(ticket_id)).status_code == 403, path
        for path, body in WRITE:
            assert http.post(path, json=body).status_code == 403, path
        assert http.get(f"/api/tickets/{ticket_id}/thumbnail").status_code == 403


def test_the_pipeline_reads_but_does_nothing_to_tickets(queue, pipeline, request):
    batch = open_batch(pipeline, request, 1)
    with asking(queue, "pipeline") as http:
        assert http.get("/api/cards", params={"batch_id": batch.batch_id}).json()["cards"]
        assert act(http, "take back", f"{batch.batch_id}-0000").status_code == 403


def test_a_lead_filters_and_goes_through_the_pages(lea, pipeline, vera, request):
    batch = open_batch(pipeline, request, 5)
    vera.finish(vera.claim(batch_id=batch.batch_id), verdict=Verdict.ACCEPT)
    of_batch = {"batch_id": batch.batch_id}
    first = lea.get("/api/cards", params=of_batch | {"limit": 3}).json()
    second = lea.get("/api/cards", params=of_batch | {"limit": 3, "after": first["next"]}).json()
    ids = [card["ticket"]["ticket_id"] for card in first["cards"] + second["cards"]]
    assert ids == sorted(ids, reverse=True) and len(ids) == 5 and second["next"] is None
    [done] = lea.get("/api/cards", params=of_batch | {"verdict": "accept", "person": "vera"}).json()["cards"]
    assert done["settled"] == "accept" and done["ticket"]["finished_by"] == "vera" and 0 < done["score"] < 1
    assert lea.get("/api/cards", params={"state": "lost"}).status_code == 422
    assert lea.get("/api/cards", params={"after": "nowhere"}).status_code == 422


def test_a_lead_assigns_tickets_and_the_others_do_not_get_them(queue, lea, pipeline, vera, request):
    batch = open_batch(pipeline, request, 2)
    ids = [f"{batch.batch_id}-{n:04d}" for n in range(2)]
    answer = act(lea, "assign", *ids, "nothing", to="victor").json()
    assert [each["done"] for each in answer] == [True, True, False]
    assert vera.claim(batch_id=batch.batch_id) is None
    with queue.client("victor") as victor:
        assert victor.claim(batch_id=batch.batch_id).ticket_id in ids
    audited = [line for line in lea.get("/api/audit").json() if line["subject"] in ids]
    assert [(line["actor"], line["action"]) for line in audited] == [("lea", "assign")] * 2


def test_nothing_is_assigned_to_a_person_who_is_missing_or_disabled(queue, lea, pipeline, request):
    batch = open_batch(pipeline, request, 1)
    ticket_id = f"{batch.batch_id}-0000"
    answer = act(lea, "assign", ticket_id, to="nobody")
    assert (answer.status_code, answer.json()["error"]) == (422, "there is no person nobody")
    queue.accounts.add("gone", [Role.VERIFIER])
    queue.accounts.disable("gone")
    assert act(lea, "assign", ticket_id, to="gone").status_code == 403
    assert act(lea, "assign", ticket_id).status_code == 422


def test_a_history_has_the_log_the_leases_the_acts_and_the_tickets_around(lea, pipeline, vera, ann, request):
    batch = open_batch(pipeline, request, 1)
    verify = vera.claim(batch_id=batch.batch_id)
    vera.finish(verify, verdict=Verdict.REFINE, frame_idx=4, seconds=1.5)
    track = ann.claim(batch_id=batch.batch_id)
    stroke = NewOperation(operation_id=new_id(), kind="lock", created_at="", frame_idx=4, payload='{"on": true}')
    ann.append_operations(track, [stroke])
    act(lea, "take back", track.ticket_id)
    late = NewOperation(operation_id=new_id(), kind="lock", created_at="", frame_idx=0, payload='{"on": true}')
    with pytest.raises(TakenBack):
        ann.append_operations(track, [late])
    found = lea.get(f"/api/tickets/{track.ticket_id}/history").json()
    assert [card["ticket"]["ticket_id"] for card in found["line"]] == [verify.ticket_id, track.ticket_id]
    assert found["card"]["ticket"]["ticket_id"] == track.ticket_id
    assert [(lease["person"], lease["ended_by"]) for lease in found["leases"]] == [("ann", "lea")]
    logged = [(each["operation"]["operation_id"], each["branch"], each["token"]) for each in found["operations"]]
    assert logged == [(stroke.operation_id, False, 1), (late.operation_id, True, 1)]
    assert [(line["actor"], line["action"]) for line in found["acts"]] == [("lea", "take back")]
    before = lea.get(f"/api/tickets/{verify.ticket_id}/history").json()
    assert [(lease["verdict"], lease["seconds"]) for lease in before["leases"]] == [("refine", 1.5)]
    assert lea.get("/api/tickets/nothing/history").status_code == 404


def test_a_lead_dismisses_kept_work_of_another_person(lea, pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    track = ann.claim(ticket_id=name)
    act(lea, "take back", name)
    late = NewOperation(operation_id=new_id(), kind="lock", created_at="", frame_idx=0, payload='{"on": true}')
    with pytest.raises(TakenBack):
        ann.append_operations(track, [late])
    assert [o["operation_id"] for o in lea.get("/api/kept").json() if o["ticket_id"] == name] == [late.operation_id]
    body = {"operation_ids": [late.operation_id], "applied": False}
    assert lea.post("/api/kept/close", json=body).json() == {"closed": 1}
    assert lea.post("/api/kept/close", json=body).json() == {"closed": 0}, "the same again changes nothing"
    found = lea.get(f"/api/tickets/{name}/history").json()
    assert [(each["branch"], each["closed"]) for each in found["operations"]] == [(True, "dismissed")]
    assert [(line["actor"], line["action"]) for line in found["acts"]][-1] == ("lea", "dismiss kept work")


def shown(http, ticket_id):
    answer = http.get(f"/api/tickets/{ticket_id}/thumbnail")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR), answer.headers["etag"]


def test_a_thumbnail_shows_the_object_with_its_mask(lea, pipeline, request, monkeypatch):
    batch = open_batch(pipeline, request, 1)
    ticket_id = f"{batch.batch_id}-0000"
    whole, tag = shown(lea, ticket_id)
    assert whole.shape == (180, 320, 3)
    masklet = lea.get(f"/api/tickets/{ticket_id}/masklet").json()
    best = masklet["frame_idx"][np.argmax(np.multiply(masklet["area_px"], masklet["score"]))]
    plain = cv2.resize(picture(best), (320, 180), interpolation=cv2.INTER_AREA)
    y, x = np.nonzero(np.abs(whole.astype(int) - plain).max(axis=2) > 30)
    assert (x.mean(), y.mean()) == pytest.approx((centre(best)[0] / 2, centre(best)[1] / 2), abs=2), "tinted"
    assert len(x) == pytest.approx(3625 / 4, rel=0.2)
    again = lea.get(f"/api/tickets/{ticket_id}/thumbnail", headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.content == b""

    def gone(self, video_id):
        raise NoSuchVideo(f"video {video_id} was withdrawn")

    monkeypatch.setattr(SyntheticMedia, "info", gone)
    later = lea.get(f"/api/tickets/{ticket_id}/thumbnail", headers={"If-None-Match": tag})
    assert later.status_code == 404, "browsers show no picture of a withdrawn video"


def test_a_ticket_without_a_masklet_is_shown_by_its_video_and_to_its_holder(lea, pipeline, ann, request):
    name = request.node.name
    pipeline.open_batch(name, [NewTicket(ticket_id=name, kind=Kind.TRACK, video_id="video-0", phase="1")])
    whole, _ = shown(lea, name)
    assert whole.shape == (180, 320, 3)
    assert ann._http.get(f"/api/tickets/{name}/thumbnail").status_code == 403
    ann.claim(ticket_id=name)
    assert ann._http.get(f"/api/tickets/{name}/thumbnail").status_code == 200
