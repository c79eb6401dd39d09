"""Live refinement over HTTP: what is stored, what streams back, and what happens on repeats and cancels."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from queue import Queue

import httpx
import pytest

from annotation_queue.api import refinement
from annotation_queue.api.app import create_app
from annotation_queue.errors import NotAllowed, TooBusy
from annotation_queue.records import Kind, NewOperation
from annotation_queue.refinement.live import MOST_JOBS, Live
from annotation_queue.refinement.turns import Cancelled
from storage import rle
from tests.annotation_queue.refinement.refining import (
    ANDY,
    ANN,
    FRAMES,
    draft,
    operation,
    refine,
    standing_still,
)
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    SyntheticModel,
    add_people,
    mask,
    serving,
    track_ticket,
)
from tests.annotation_queue.waiting import wait_until

pytestmark = pytest.mark.server


def test_a_click_is_stored_and_its_answer_becomes_a_version(bench, tickets, model):
    client, ticket = bench
    kept, frame, done = refine(client, ticket, operation(1))
    assert kept == {"event": "kept", "seq": 1, "frames": 1, "made": 0}
    assert frame["frame"]["frame_idx"] == 8 and frame["frame"]["rle"].encode() == rle.encode(mask(8))
    assert done == {"event": "done", "checkpoint": "disc-finder", "round": 3, "frames": 1}
    assert draft(tickets, ticket, model).masks[8].rle == rle.encode(mask(8))
    assert [o.kind for o in tickets.operations(ticket.ticket_id)] == ["prompt"]
    (version,) = client.get(f"/api/tickets/{ticket.ticket_id}/versions").json()
    assert version["operation_id"] == "o1" and version["checkpoint"] == "disc-finder"


def test_the_same_operation_again_is_answered_without_the_model(bench, model):
    client, ticket = bench
    first = refine(client, ticket, operation(1))
    asked = list(model.calls)
    again = refine(client, ticket, operation(1))
    assert again[0] == {"event": "kept", "seq": 1, "frames": 1, "made": 1} and again[1:] == first[1:]
    assert model.calls == asked


def test_a_slow_answer_sends_keep_alive_events(bench, model, monkeypatch):
    """So a page can tell a busy model from a dead connection."""
    client, ticket = bench
    monkeypatch.setattr(refinement, "ALIVE_S", 0.01)
    click, heard = model.click, threading.Event()
    monkeypatch.setattr(model, "click", lambda *given, **more: heard.wait(60) and click(*given, **more))
    body = {"token": ticket.lease_token, "operation": operation(1)}
    with client.stream("POST", f"/api/tickets/{ticket.ticket_id}/refine", json=body) as answer:
        lines = (json.loads(line)["event"] for line in answer.iter_lines())
        assert [next(lines), next(lines)] == ["kept", "alive"]
        heard.set()
        assert [event for event in lines if event != "alive"] == ["frame", "done"]


def test_another_click_of_the_ticket_ends_its_propagation(bench, model):
    client, ticket = bench
    model.track = standing_still(model.track, 1)
    refine(client, ticket, operation(1))
    body = {"token": ticket.lease_token, "operation": operation(2, "propagate", direction="both")}
    with client.stream("POST", f"/api/tickets/{ticket.ticket_id}/refine", json=body) as answer:
        lines = answer.iter_lines()
        next(lines), next(lines)
        with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as other:
            assert refine(other, ticket, operation(3, frame_idx=20))[-1]["event"] == "done"
        assert json.loads(list(lines)[-1])["why"] == "cancelled"


def test_answered_and_cancelled_jobs_are_removed(tickets, model):
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c")
    live, ended = Live(tickets, SyntheticMedia(FRAMES).info, model), Queue()

    def start(said):
        begun = live.begin(ticket.ticket_id, ticket.lease_token, ANN, NewOperation(**said))
        return begun.version.start(lambda made: None, ended.put)

    start(operation(1))
    assert ended.get(timeout=60) is None and live._running == {}
    model.track = standing_still(model.track, 1)
    job = start(operation(2, "propagate", frame_idx=0, direction="both"))
    (running,) = live._running.values()
    assert (running.person, running.operation_id, running.job) == ("ann", "o2", job)
    job.cancel()
    assert isinstance(ended.get(timeout=60), Cancelled) and live._running == {}
    live.close()


def test_the_model_works_on_a_few_tickets_of_one_person_at_once(tickets, model):
    many = [track_ticket(f"track-{n}", frame_count=FRAMES) for n in range(MOST_JOBS + 1)]
    tickets.open_batch("b", many)
    live, ended = Live(tickets, SyntheticMedia(FRAMES).info, model), Queue()
    held = [tickets.claim(ANN, [Kind.TRACK], claim_id=f"c{n}", ticket_id=t.ticket_id) for n, t in enumerate(many)]

    def click(ticket, number):
        begun = live.begin(ticket.ticket_id, ticket.lease_token, ANN, NewOperation(**operation(number)))
        return begun.version.start(lambda made: None, ended.put)

    gate = threading.Event()

    def waiting():
        gate.wait(60)
        yield

    live._turns.warm("gate", waiting())  # the model's thread waits here
    for number, ticket in enumerate(held[:-1]):
        click(ticket, number)
    with pytest.raises(TooBusy, match=f"{MOST_JOBS} tickets of ann"):
        click(held[-1], 100)
    assert tickets.operations(held[-1].ticket_id) == []
    click(held[0], 101)  # another click on a ticket replaces its job
    gate.set()
    assert sum(ended.get(timeout=60) is None for _ in range(MOST_JOBS + 1)) == MOST_JOBS
    click(held[-1], 100)
    assert ended.get(timeout=60) is None
    live.close()


def test_a_prompt_that_the_model_rejects_fails_and_makes_no_version(bench, tickets, model):
    client, ticket = bench
    said = operation(1, points_xy=[[5, 5]] * 21, labels=[1] * 21)
    assert refine(client, ticket, said)[-1] == {"event": "failed", "why": "ValueError", "error": "too many clicks"}
    assert client.get(f"/api/tickets/{ticket.ticket_id}/versions").json() == []
    assert refine(client, ticket, operation(2))[-1]["event"] == "done"


def test_a_mask_with_scores_that_are_not_finite_fails_and_makes_no_version(bench, tickets, model, monkeypatch):
    client, ticket = bench
    found = model.click

    def sick(*about, **more):
        for made in found(*about, **more):
            yield replace(made, score=float("nan"))

    monkeypatch.setattr(model, "click", sick)
    said = refine(client, ticket, operation(1))[-1]
    assert (said["event"], said["why"]) == ("failed", "ValueError") and "finite" in said["error"]
    assert client.get(f"/api/tickets/{ticket.ticket_id}/versions").json() == []


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (operation(1, "stroke", mask_rle="x"), 422),
        (operation(1, frame_idx=7), 422),
        (operation(1, points_xy=[[1]], labels=[1]), 422),
        (operation(1, points_xy=[[1, float("nan")]], labels=[1]), 422),
        (operation(1) | {"frame_idx": None}, 422),
        (operation(1, "dance"), 422),
    ],
)
def test_an_operation_that_the_model_cannot_answer_is_rejected(bench, said, status):
    client, ticket = bench
    assert refine(client, ticket, said).status_code == status


def test_an_operation_under_a_stale_lease_is_rejected_and_stored_as_a_branch(bench, tickets):
    client, ticket = bench
    tickets.release(ticket.ticket_id, ticket.lease_token, ANN)
    tickets.claim(ANN, [Kind.TRACK], claim_id="again")
    answer = refine(client, ticket, operation(1))
    assert answer.status_code == 409 and answer.json()["kind"] == "LeaseLost"
    assert [o.operation_id for o in tickets.operations(ticket.ticket_id, branch=True)] == ["o1"]
    warm = client.post(f"/api/tickets/{ticket.ticket_id}/warm", json={"token": ticket.lease_token})
    assert warm.status_code == 409


def test_a_repeated_operation_is_answered_as_first_stored_and_only_to_the_holder(bench, tickets, model):
    client, ticket = bench
    path = f"/api/tickets/{ticket.ticket_id}/operations"
    assert client.post(path, json={"token": ticket.lease_token, "operations": [operation(1)]}).status_code == 200
    refine(client, ticket, operation(2, frame_idx=12))
    other = operation(1, frame_idx=20, points_xy=[[1, 1]], labels=[0])
    assert refine(client, ticket, other)[1]["frame"]["frame_idx"] == 8
    assert client.post(path, json={"token": ticket.lease_token, "operations": [operation(3)]}).status_code == 200
    tickets.release(ticket.ticket_id, ticket.lease_token, ANN)
    again = tickets.claim(ANN, [Kind.TRACK], claim_id="again")
    for number in (1, 3):  # answered already, and not
        answer = refine(client, ticket, operation(number))
        assert (answer.status_code, answer.json()["kind"]) == (409, "LeaseLost")
        live = Live(tickets, SyntheticMedia(FRAMES).info, model)
        with pytest.raises(NotAllowed):
            live.begin(ticket.ticket_id, again.lease_token, ANDY, NewOperation(**operation(number)))
    assert refine(client, again, operation(3))[-1]["event"] == "done"


def test_an_undone_operation_is_not_answered(bench, tickets):
    client, ticket = bench
    acts = [operation(1), operation(2, "undo", operation_id="o1")]
    path = f"/api/tickets/{ticket.ticket_id}/operations"
    assert client.post(path, json={"token": ticket.lease_token, "operations": acts}).status_code == 200
    answer = refine(client, ticket, operation(1))
    assert answer.status_code == 422 and "undone" in answer.json()["error"]


def test_embeddings_are_computed_ahead_starting_at_the_nearest_frame(bench, model):
    client, ticket = bench
    path = f"/api/tickets/{ticket.ticket_id}/warm"
    assert client.post(path, json={"token": ticket.lease_token, "frame_idx": 20}).status_code == 202
    wait_until(lambda: len(model.calls) == 13)
    assert model.calls[:4] == ["load", "warm 20", "warm 16", "warm 24"]


class Videos(SyntheticModel):
    """Records which videos are encoded ahead; waits for `begin` first."""

    def __init__(self):
        super().__init__()
        self.begin, self.ahead = threading.Event(), []

    def load(self):
        assert self.begin.wait(60)

    def warm(self, video_id, frame_idx):
        for i in frame_idx:
            yield
            self.ahead.append((video_id, i))


def test_the_ticket_on_screen_is_encoded_before_the_next_one_and_people_take_turns(tickets):
    model, people = Videos(), (ANN, ANDY)
    new = track_ticket(frame_count=FRAMES)
    assert new.masklet is not None
    videos = [
        (f"track-{i}", f"video-{i}", replace(new.masklet, masklet_id=f"m{i}", video_id=f"video-{i}")) for i in range(4)
    ]
    tickets.open_batch("b", [replace(new, ticket_id=t, video_id=v, masklet=masklet) for t, v, masklet in videos])
    live = Live(tickets, SyntheticMedia(FRAMES).info, model)
    live.load()  # the model is busy until everybody has asked
    mine = {person.name: [tickets.claim(person, [Kind.TRACK], claim_id=f"c{n}") for n in range(2)] for person in people}
    for n in range(2):
        for person in people:
            ticket = mine[person.name][n]
            live.warm(ticket.ticket_id, ticket.lease_token, person, 0)
    model.begin.set()
    wait_until(lambda: len(model.ahead) == 4 * FRAMES // 4)
    order = {
        person.name: [video for video, _ in model.ahead if video in {t.video_id for t in mine[person.name]}]
        for person in people
    }
    for name, (shown, coming) in mine.items():
        assert order[name] == [shown.video_id] * 12 + [coming.video_id] * 12
    first = {video for video, _ in model.ahead[:24]}
    assert first == {shown.video_id for shown, _ in mine.values()}, "one person waits for another's next ticket"

    model.ahead.clear()
    shown, coming = mine["ann"]
    tickets.release(shown.ticket_id, shown.lease_token, ANN)
    live.warm(coming.ticket_id, coming.lease_token, ANN, 0)
    wait_until(lambda: len(model.ahead) >= 12)
    assert {video for video, _ in model.ahead} == {coming.video_id}, "a ticket that was given back is not encoded"
    live.close()


def test_a_propagation_keeps_its_checkpoint_when_another_is_promoted(tickets):
    """All masks of an operation come from one checkpoint, and the version names it."""
    old, new = SyntheticModel(), SyntheticModel()
    new.checkpoint, new.round = "newcomer", 4

    class Promoting(SyntheticModel):
        serving = old

        def now(self):
            return self.serving

    model = Promoting()
    tickets.open_batch("b", [track_ticket(frame_count=FRAMES)])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c")
    live, ended, made = Live(tickets, SyntheticMedia(FRAMES).info, model), Queue(), []
    begun = live.begin(
        ticket.ticket_id, ticket.lease_token, ANN, NewOperation(**operation(1, "propagate", frame_idx=20))
    )

    def each(frame):
        made.append(frame)
        model.serving = new

    begun.version.start(each, ended.put)
    assert ended.get(timeout=60) is None
    assert len(old.calls) == len(made) == 11 and new.calls == []
    version = begun.version.save(tuple(made))
    assert (version.checkpoint, version.round) == ("disc-finder", 3)
    live.close()


def test_phase_1_answers_clicks_without_memory_and_refuses_propagation(tickets, model):
    accounts = add_people(tickets.database)
    tickets.open_batch("b", [track_ticket(phase="1")])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c")
    with serving(create_app(tickets, SyntheticMedia(FRAMES), accounts=accounts, segmenter=model)) as url:
        headers = {"Authorization": f"Bearer {accounts.issue_token('ann')}"}
        with httpx.Client(base_url=url, headers=headers) as client:
            assert refine(client, ticket, operation(1))[-1]["event"] == "done"
            answer = refine(client, ticket, operation(2, "propagate", direction="both"))
    assert model.calls == ["click 8 alone"]
    assert answer.status_code == 403 and "phase 1" in answer.json()["error"]
