"""Masklets that are submitted over HTTP: what is refused, and what the queue does not take from the client."""

from __future__ import annotations

import threading
from dataclasses import replace

import httpx
import pytest

from annotation_queue import rules
from annotation_queue.api.app import create_app
from annotation_queue.client import QueueClient
from annotation_queue.database import Database
from annotation_queue.records import Kind, NewTicket
from annotation_queue.tickets.rows import MASKLET
from annotation_queue.tickets.store import TicketStore
from storage import rle
from storage.records import STRIDE
from tests.annotation_queue.synthetic_queue import (
    HEIGHT,
    WIDTH,
    SyntheticMedia,
    add_people,
    candidate,
    mask,
    serving,
    track_ticket,
)

FRAMES = 24  # of the video: 6 annotated frames

pytestmark = pytest.mark.server


@pytest.fixture
def desk(tmp_path):
    """A queue with tickets to correct: (ticket store, URL, tokens of ann and andy)."""
    database = Database(f"sqlite:///{tmp_path}/queue.db")
    tickets, accounts = TicketStore(database), add_people(database)
    accounts.add("andy", [*accounts.caller(accounts.issue_token("ann")).person.roles])
    tickets.open_batch("b", [track_ticket(f"track-{n}", frame_count=FRAMES) for n in range(3)])
    with serving(create_app(tickets, SyntheticMedia(FRAMES), accounts=accounts)) as url:
        yield tickets, url, {name: accounts.issue_token(name) for name in ("ann", "andy")}
    database.close()


def sent(**changes):
    """A masklet of the video as JSON, with changed fields; the lists as long as `frame_idx`."""
    made = MASKLET.dump_python(candidate("made", frame_count=FRAMES), mode="json")
    count = len(changes.get("frame_idx", made["frame_idx"]))
    for name in ("rle", "area_px", "score", "object_score", "stability"):
        made[name] = [made[name][0]] * count if count != len(made[name]) else made[name]
    return made | changes


def submit(http, ticket, masklet, operation_id="end"):
    outcome = {"operation_id": operation_id, "created_at": "2026-01-01T00:00:00Z", "masklet": masklet}
    body = {"token": ticket["lease_token"], "outcome": outcome}
    return http.post(f"/api/tickets/{ticket['ticket_id']}/finish", json=body, timeout=60)


def follower(tickets, answer):
    """The id of the ticket that an answer led to; the answer itself does not say."""
    return tickets.ticket(answer.json()["ticket"]["ticket_id"]).next_ticket_id


def claimed(http, claim_id="c"):
    return http.post("/api/tickets/claim", json={"claim_id": claim_id, "kinds": ["track"]}).json()


def client(url, token):
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"})


FIRST = rle.encode(mask(0)).decode()
AREA = int(mask(0).sum())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frame_idx": [0, 4, 8, 12, 16, 2**40]}, f"frame {2**40} is past the end of the video, which has 24"),
        ({"frame_idx": [0, 4, 8, 12, 16, 24]}, "frame 24 is past the end of the video, which has 24"),
        ({"frame_idx": [0, 4, 8, 12, 16, 17]}, "frame 17 is not an annotated frame"),
        ({"frame_idx": [0, 4, 8, 12, 16, 16]}, "frame 16 comes after frame 16"),
        ({"frame_idx": [0], "area_px": [2**40]}, f"frame 0: {2**40} px, its mask has {AREA}"),
        ({"frame_idx": [0], "area_px": [AREA - 1]}, f"frame 0: {AREA - 1} px, its mask has {AREA}"),
        ({"height": WIDTH, "width": HEIGHT}, "the video is 360 x 640"),
        ({"frame_idx": [0], "rle": [rle.empty(HEIGHT, WIDTH).decode()], "area_px": [0]}, "in none of 1 frame"),
        ({"frame_idx": [0], "rle": [rle.empty(HEIGHT, WIDTH - 1).decode()]}, "the runs fill"),
        ({"frame_idx": list(range(0, 4 * 7, STRIDE))}, "7 frames, the video has 6 annotated frames"),
        ({"video_id": "video-1"}, "the ticket is about video video-0"),
    ],
)
def test_a_masklet_that_does_not_fit_its_video_is_rejected(desk, changes, says):
    tickets, url, tokens = desk
    with client(url, tokens["ann"]) as http:
        ticket = claimed(http)
        answer = submit(http, ticket, sent(**changes))
        assert answer.status_code == 422 and says in answer.json()["error"]
        assert submit(http, ticket, sent()).status_code == 200, "the ticket is still theirs"


@pytest.mark.parametrize("frame_idx", [-5, FRAMES, 2**40])
def test_a_frame_that_the_video_does_not_have_is_rejected(desk, frame_idx):
    _, url, tokens = desk
    with client(url, tokens["ann"]) as http:
        ticket = claimed(http)
        outcome = {"operation_id": "end", "created_at": "", "masklet": sent(), "frame_idx": frame_idx}
        body = {"token": ticket["lease_token"], "outcome": outcome}
        answer = http.post(f"/api/tickets/{ticket['ticket_id']}/finish", json=body)
        assert answer.status_code == 422 and f"not {frame_idx}" in answer.json()["error"]
        assert submit(http, ticket, sent()).status_code == 200, "the ticket is still theirs"


def test_200_000_frames_are_rejected_before_a_mask_is_decoded(desk, monkeypatch):
    _, url, tokens = desk
    decoded = []
    monkeypatch.setattr(rle, "area", lambda *given: decoded.append(given))
    with client(url, tokens["ann"]) as http:
        empty = rle.empty(HEIGHT, WIDTH).decode()
        many = sent(frame_idx=list(range(0, 4 * 200_000, STRIDE)), rle=[empty] * 200_000, area_px=[0] * 200_000)
        many |= {name: [] for name in ("score", "object_score", "stability")}
        answer = submit(http, claimed(http), many)
    assert answer.status_code in (413, 422) and "500" not in answer.text and decoded == []


def test_what_a_client_cannot_know_is_filled_in_by_the_queue(desk):
    tickets, url, tokens = desk
    lies = {
        "masklet_id": "m-track-1",  # another candidate of the batch
        "batch_id": "another",
        "round": 2**70,
        "checkpoint": "my own",
        "prompt": "[" * 100,
        "score": [7.0] * 6,
        "object_score": [1e300] * 6,
        "stability": [-1.0] * 6,
        "parent_id": "m-track-2",
        "click_count": 2**40,
        "edited_frame_count": -1,
        "annotated_by": "vera",
        "verified_by": "vera",
        "verdict": "accept",
        "kind": "auto",
        "phase": "auto",
        "split": "nowhere",
        "source_position": 0,
        "source_metadata": "[" * 100,
    }
    with client(url, tokens["ann"]) as http:
        ticket = claimed(http)
        answer = submit(http, ticket, sent(**lies))
        assert answer.status_code == 200, answer.text
        again = submit(http, ticket, sent(**lies))
        assert again.json() == answer.json()
    base, made = tickets.masklet("track-0"), tickets.masklet(follower(tickets, answer))
    assert made.masklet_id not in {"m-track-0", "m-track-1", "m-track-2"} and made.batch_id == "b"
    assert (made.round, made.checkpoint, made.prompt, made.split) == (
        base.round,
        base.checkpoint,
        base.prompt,
        base.split,
    )
    assert set(made.score) == set(made.stability) == {1.0} and max(made.object_score) == 10.0
    assert (made.parent_id, made.click_count, made.edited_frame_count) == (base.masklet_id, 0, 0)
    assert (made.annotated_by, made.verified_by, made.verdict) == ("ann", None, None)
    assert (made.kind, made.phase) == ("manual", "3")
    assert (made.source_position, made.source_metadata) == (None, None)


@pytest.mark.parametrize("round", [2**70, -1])
def test_a_round_is_not_taken_from_the_client(desk, round):
    tickets, url, tokens = desk
    with client(url, tokens["ann"]) as http:
        answer = submit(http, claimed(http), sent(round=round))
    assert tickets.masklet(follower(tickets, answer)).round == tickets.masklet("track-0").round


def test_two_masklets_with_the_same_id_of_the_client_have_different_ids(desk):
    tickets, url, tokens = desk
    made = []
    for name in tokens:
        with client(url, tokens[name]) as http:
            answer = submit(http, claimed(http, f"of-{name}"), sent(masklet_id="same"), operation_id=f"end-{name}")
            made.append(tickets.masklet(follower(tickets, answer)).masklet_id)
    assert len({*made, "same"}) == 3


def test_a_heartbeat_does_not_wait_while_another_persons_masks_are_decoded(desk, monkeypatch):
    _, url, tokens = desk
    decoding, beaten = threading.Event(), threading.Event()
    check = rules.check_masklet

    def held(*given):
        decoding.set()
        assert beaten.wait(60), "the heartbeat waits for the masks"
        check(*given)

    monkeypatch.setattr("annotation_queue.tickets.outcomes.check_masklet", held)
    answers = []
    with client(url, tokens["ann"]) as ann, client(url, tokens["andy"]) as andy:
        hers, his = claimed(ann), claimed(andy, "his")
        sending = threading.Thread(target=lambda: answers.append(submit(ann, hers, sent())))
        sending.start()
        assert decoding.wait(60)
        path = f"/api/tickets/{his['ticket_id']}/heartbeat"
        assert andy.post(path, json={"token": his["lease_token"]}, timeout=60).status_code == 200
        beaten.set()
        sending.join()
    assert [answer.status_code for answer in answers] == [200]


def test_an_operation_that_comes_while_masks_are_decoded_is_not_lost(desk, monkeypatch):
    tickets, url, tokens = desk
    check, calls = rules.check_masklet, []
    with client(url, tokens["ann"]) as http:
        ticket = claimed(http)
        stroke = {"operation_id": "late", "kind": "stroke", "created_at": "", "frame_idx": 4}
        stroke["payload"] = f'{{"mask_rle": "{FIRST}"}}'.replace(chr(92), chr(92) * 2)

        def late(*given):
            if not calls:
                body = {"token": ticket["lease_token"], "operations": [stroke]}
                calls.append(http.post(f"/api/tickets/{ticket['ticket_id']}/operations", json=body).status_code)
            check(*given)

        monkeypatch.setattr("annotation_queue.tickets.outcomes.check_masklet", late)
        with client(url, tokens["ann"]) as other:
            answer = submit(other, ticket, sent())
    assert calls == [200] and answer.status_code == 200
    made = tickets.masklet(follower(tickets, answer))
    assert made.edited_frame_count == 1, "measured again, with the stroke"


def test_a_masklet_made_from_nothing_gets_its_prompt_from_its_operations(desk):
    tickets, url, tokens = desk
    tickets.open_batch("c", [NewTicket(ticket_id="new", kind=Kind.TRACK, video_id="video-0", phase="3")])
    with QueueClient(url, token=tokens["ann"]) as queue:
        ticket = queue.claim(batch_id="c")
        assert ticket is not None
        done = queue.finish(ticket, masklet=replace(candidate("x", frame_count=FRAMES), checkpoint="mine", round=9))
    assert done.next_ticket_id is None, "which only overseers see"
    made = tickets.masklet(tickets.ticket(done.ticket.ticket_id).next_ticket_id)
    assert (made.checkpoint, made.round, made.prompt, made.parent_id) == ("by hand", 0, "{}", None)
