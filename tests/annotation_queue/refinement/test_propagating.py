"""Propagations over HTTP: every mask that was computed is kept, through stops, cut connections and bounds."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import replace

import httpx
import pytest

from annotation_queue.client import QueueClient
from annotation_queue.errors import QueueError
from annotation_queue.records import Kind, NewOperation
from annotation_queue.refinement import turns
from annotation_queue.versions import add_part, versions_of
from storage import rle
from tests.annotation_queue.refinement.refining import (
    ANN,
    FRAMES,
    draft,
    is_frame,
    operation,
    propagate_partly,
    refine,
    standing_still,
    stop,
    stored,
)
from tests.annotation_queue.synthetic_queue import centre, mask, track_ticket
from tests.annotation_queue.waiting import wait_until

pytestmark = pytest.mark.server


def test_a_propagation_that_is_cut_off_keeps_its_masks_and_goes_on_behind_them(bench, tickets, model, monkeypatch):
    client, ticket = bench
    closed, track = threading.Event(), standing_still(model.track, 5)

    def tracking(*given):
        try:
            yield from track(*given)
        finally:
            closed.set()

    refine(client, ticket, operation(1))
    with monkeypatch.context() as patch:
        patch.setattr(model, "track", tracking)
        came = propagate_partly(client, ticket, 3)
        assert closed.wait(60), "the model works on, though nobody waits"
    computed = [int(call.split()[1]) for call in model.calls if call.startswith("track")]
    assert len(computed) == 5

    def found():
        return stored(client, ticket, "o2")

    wait_until(lambda: found() and [f["frame_idx"] for f in found()["frames"]] == computed)
    assert not found()["complete"] and found()["frames"][: len(came)] == came
    kept = draft(tickets, ticket, model)
    assert [i for i, m in kept.masks.items() if i > 8 and m.rle == rle.encode(mask(i))] == computed
    model.calls.clear()
    kept, *lines, done = refine(client, ticket, operation(2, "propagate", direction="both"))
    assert (kept["frames"], kept["made"], done["event"], done["frames"]) == (11, len(computed), "done", 11)
    order = [12, 16, 20, 24, 28, 32, 36, 40, 44, 4, 0]
    assert [line["frame"]["frame_idx"] for line in lines] == order
    assert [call for call in model.calls if call.startswith("track")] == [f"track {i}" for i in order[len(computed) :]]
    assert found()["complete"] and [f["frame_idx"] for f in found()["frames"]] == order


def test_each_mask_is_stored_before_it_is_sent(bench, tickets, model):
    client, ticket = bench
    model.frame_s = 0.05
    refine(client, ticket, operation(1))
    body = {"token": ticket.lease_token, "operation": operation(2, "propagate", direction="forward")}
    with (
        httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as other,
        client.stream("POST", f"/api/tickets/{ticket.ticket_id}/refine", json=body) as answer,
    ):
        for line in filter(is_frame, map(json.loads, answer.iter_lines())):
            assert line["frame"] in stored(other, ticket, "o2")["frames"]


def test_a_stopped_propagation_keeps_all_that_was_computed(bench, tickets, model, monkeypatch):
    client, ticket = bench
    refine(client, ticket, operation(1))
    gate, track = threading.Semaphore(0), model.track

    def gated(*given):
        for made in track(*given):
            yield made
            if made is not None:
                gate.acquire(timeout=60)

    model.track = gated
    body = {"token": ticket.lease_token, "operation": operation(2, "propagate", direction="forward")}
    with client.stream("POST", f"/api/tickets/{ticket.ticket_id}/refine", json=body) as answer:
        lines = filter(is_frame, map(json.loads, answer.iter_lines()))
        first = next(lines)["frame"]
        gate.release(3)
        while next(lines)["frame"]["frame_idx"] != 24:  # four are computed now, and a client knows the first of them
            pass
        told, cancel = threading.Event(), turns.Job.cancel

        def heard(job):
            cancel(job)
            told.set()

        monkeypatch.setattr(turns.Job, "cancel", heard)
    with httpx.Client(base_url=client.base_url, headers=client.headers, timeout=60) as other:
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(refine(other, ticket, stop(3, "o2", first["frame_idx"])))
        )
        asking.start()
        wait_until(lambda: [o.kind for o in tickets.operations(ticket.ticket_id)][-1] == "stop")
        assert told.wait(60)  # the stop is in the log before the model hears of it
        gate.release(20)
        asking.join(60)
    kept, *rest, done = answers[0]
    computed = [int(call.split()[1]) for call in model.calls if call.startswith("track")]
    assert [line["frame"]["frame_idx"] for line in rest] == computed[1:], "those that the client does not have"
    assert (kept["event"], done["event"], done["checkpoint"]) == ("kept", "done", "disc-finder")
    assert stored(client, ticket, "o2")["complete"] and len(computed) < 9
    assert [f["frame_idx"] for f in stored(client, ticket, "o2")["frames"]] == computed
    assert refine(client, ticket, stop(3, "o2", first["frame_idx"]))[1:] == answers[0][1:], "the same again"
    again = refine(client, ticket, operation(2, "propagate", direction="forward"))
    assert len(again) == len(computed) + 2 and len(model.calls) == len(computed) + 1, "it does not go on"


def test_a_stop_before_the_first_mask_leaves_an_empty_answer(bench, tickets, model):
    client, ticket = bench
    before = draft(tickets, ticket, model)
    sent = client.post(
        f"/api/tickets/{ticket.ticket_id}/operations",
        json={"token": ticket.lease_token, "operations": [operation(2, "propagate", direction="forward")]},
    )
    assert sent.status_code == 200
    assert [line["event"] for line in refine(client, ticket, stop(3, "o2"))] == ["kept", "done"]
    assert [line["event"] for line in refine(client, ticket, operation(2, "propagate", direction="forward"))] == [
        "kept",
        "done",
    ]
    assert draft(tickets, ticket, model).masks == before.masks


def test_a_stop_names_a_propagation_of_its_own_ticket(bench, tickets):
    client, ticket = bench
    refine(client, ticket, operation(1))
    for about in ("o1", "o99", "of another ticket"):
        answer = refine(client, ticket, stop(f"s-{about[:2]}", about))
        assert answer.status_code == 422 and "no propagation" in answer.json()["error"]
    assert refine(client, ticket, stop(8, None)).status_code == 422
    with tickets.database.read() as c:
        assert [v.operation_id for v in versions_of(c, ticket.ticket_id).values()] == ["o1"]


def test_a_frame_without_a_mask_cannot_be_propagated(bench, tickets):
    client, ticket = bench
    tickets.release(ticket.ticket_id, ticket.lease_token, ANN)
    tickets.open_batch("c", [replace(track_ticket("blank", frame_count=FRAMES), masklet=None)])
    ticket = tickets.claim(ANN, [Kind.TRACK], claim_id="c2", ticket_id="blank")
    kept, failed = refine(client, ticket, operation(1, "propagate", frame_idx=20, direction="both"))
    assert failed["event"] == "failed" and "no mask yet" in failed["error"]
    assert stored(client, ticket, "o1") is None


def test_a_propagation_ends_at_its_bound(bench, tickets, model):
    client, ticket = bench
    refine(client, ticket, operation(1))
    kept, *lines, done = refine(client, ticket, operation(2, "propagate", direction="forward", last=20))
    assert kept["frames"] == 3 and [line["frame"]["frame_idx"] for line in lines] == [12, 16, 20]
    assert refine(client, ticket, operation(3, "propagate", direction="both", last="x")).status_code == 422


def test_a_killed_database_takes_no_mask_back(bench, tickets, model, monkeypatch):
    """A part that cannot be stored is not sent, and is stored with the next one."""
    client, ticket = bench
    refine(client, ticket, operation(1))
    real, failures = add_part, [OSError("the disk is full")]

    def failing(*given):
        if failures:
            raise failures.pop()
        return real(*given)

    monkeypatch.setattr("annotation_queue.refinement.live.add_part", failing)
    model.frame_s = 0.05
    with contextlib.suppress(httpx.RemoteProtocolError):
        assert propagate_partly(client, ticket, 1) == []
    wait_until(lambda: stored(client, ticket, "o2"))
    assert refine(client, ticket, operation(2, "propagate", direction="both"))[-1]["frames"] == 11


def test_a_propagation_streams_its_masks_and_stores_them(bench, tickets, model):
    client, ticket = bench
    refine(client, ticket, operation(1))
    lines = refine(client, ticket, operation(2, "propagate", direction="both"))
    assert [line["event"] for line in lines] == ["kept", *["frame"] * 11, "done"]
    found = draft(tickets, ticket, model)
    assert all(found.masks[i].rle == rle.encode(mask(i)) for i in range(0, FRAMES, 4))


def test_a_program_refines_with_the_live_model(bench, model, monkeypatch):
    client, ticket = bench
    click = NewOperation(
        operation_id="o1",
        kind="prompt",
        created_at="2026-01-01T00:00:00Z",
        frame_idx=8,
        payload=json.dumps({"points_xy": [centre(8)], "labels": [1]}),
    )
    with QueueClient(str(client.base_url), token=client.headers["Authorization"].split()[1]) as program:
        made = program.refine(ticket, click)
        assert [(frame.frame_idx, frame.rle) for frame in made] == [(8, rle.encode(mask(8)))]
        calls = len(model.calls)
        assert program.refine(ticket, click) == made and len(model.calls) == calls
        monkeypatch.setattr(model, "click", lambda *given, **more: 1 / 0)
        with pytest.raises(QueueError, match="division"):
            program.refine(ticket, replace(click, operation_id="o2"))
