"""Operations sent to live refinement over HTTP, and what they lead to."""

from __future__ import annotations

import json
import time

from annotation_queue.records import Person, Role, Submission
from annotation_queue.refinement.live import Live
from tests.annotation_queue.synthetic_queue import (
    SyntheticMedia,
    centre,
)

ANN, ANDY = (Person(name=name, roles=frozenset({Role.ANNOTATOR})) for name in ("ann", "andy"))
FRAMES = 48


def operation(number, kind="prompt", frame_idx=8, **payload):
    if kind == "prompt" and not payload:
        payload = {"points_xy": [centre(frame_idx)], "labels": [1]}
    return {
        "operation_id": f"o{number}",
        "kind": kind,
        "created_at": "2026-01-01T00:00:00Z",
        "frame_idx": frame_idx,
        "payload": json.dumps(payload),
    }


def refine(client, ticket, said, token=None):
    body = {"token": token or ticket.lease_token, "operation": said}
    answer = client.post(f"/api/tickets/{ticket.ticket_id}/refine", json=body)
    if answer.status_code != 200:
        return answer
    return [said for said in map(json.loads, answer.text.splitlines()) if said["event"] != "alive"]


def draft(tickets, ticket, model):
    """The draft as another server process computes it."""
    return Live(tickets, SyntheticMedia(FRAMES).info, model).draft(tickets.ticket(ticket.ticket_id))


def propagate_partly(client, ticket, frames, number=2, **payload):
    """Ask for a propagation, and close the connection once this many of its masks have come. Returns the masks."""
    body = {"token": ticket.lease_token, "operation": operation(number, "propagate", direction="both", **payload)}
    with client.stream("POST", f"/api/tickets/{ticket.ticket_id}/refine", json=body) as answer:
        lines = map(json.loads, answer.iter_lines())
        kept = next(lines)
        assert kept["event"] == "kept"
        return [line["frame"] for line, _ in zip(filter(is_frame, lines), range(frames), strict=False)]


def standing_still(track, after):
    """The model's `track`, which computes this many masks, and then no more until its propagation is cancelled."""

    def tracking(*given):
        computed = 0
        for made in track(*given):
            yield made
            computed += made is not None
            while computed == after:
                time.sleep(0.01)
                yield None

    return tracking


def is_frame(line):
    return line["event"] == "frame"


def stop(number, about, last=None):
    return operation(number, "stop", None, operation_id=about, last=last)


def stored(client, ticket, operation_id):
    """A version as a reload reads it, or None."""
    versions = client.get(f"/api/tickets/{ticket.ticket_id}/versions").json()
    return next((v for v in versions if v["operation_id"] == operation_id), None)


def end(number, last):
    return Submission(operation_id=f"end-{number}", created_at="", last_operation_id=last)


def made_by(tickets, ticket):
    """The masklet that the next ticket is about."""
    return tickets.masklet(tickets.ticket(ticket.ticket_id).next_ticket_id)
