"""Does anything tell gold from real work? Compares every answer of the API, field by field, as annotators get them.

    python -m benchmarks.gold_tells [--json]

A person works on one ticket, once real and once gold about the same masklet, with the same acts. The gold comes from a
batch that is finished, with another name. Ids are compared by the order in which they appear, times not at all.
`gold_tells` is the number of fields that differ, in all scenarios together. The benchmark fails if it is not 0.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient

from annotation_queue.api import app as app_module
from annotation_queue.api.app import create_app
from annotation_queue.database import Database
from annotation_queue.people.accounts import Accounts
from annotation_queue.records import (
    Kind,
    NewComment,
    NewGold,
    NewTicket,
    Person,
    QueuePolicy,
    Role,
    Submission,
    VideoInfo,
)
from annotation_queue.tickets import comments
from annotation_queue.tickets.gold import known_of
from annotation_queue.tickets.ontologies import Ontologies
from annotation_queue.tickets.store import TicketStore
from storage import rle
from storage.ontology import ObjectClass, Ontology
from storage.records import FPS, STRIDE, Masklet, Verdict, content_id
from storage.videos.video import jpeg

HEIGHT, WIDTH, FRAMES = 8, 8, 8
BOTH = "wanda"  # who does the work
OTHER = Person(name="victor", roles=frozenset({Role.VERIFIER}))
LEAD = Person(name="lea", roles=frozenset({Role.LEAD}))
TIMES = ("expires_at", "finished_at", "created_at", "at")  # fields that are compared by whether they are there
LISTS = ("/api/me/recent", "/api/me/history", "/api/me/kept", "/api/tickets", "/api/tickets?state=open")
OF_PERSON = ("/api/me", *LISTS, "/api/stats", "/healthz")
PICTURE = jpeg(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
WHEN = "2026-01-01T00:00:00Z"

Answers = list[tuple[str, int, Any]]  # what was asked, the status, the JSON


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a person does with one ticket."""

    kind: Kind
    verdict: Verdict | None  # None: with a masklet
    policy: Mapping[str, float]
    corrected: bool = False  # the masklet was sent back before: a verify ticket about a person's masklet
    labelled: bool = False  # the ticket asks for a label, which the person gives

    def __str__(self) -> str:
        rules = " ".join(f"{key}={value}" for key, value in self.policy.items())
        more = (" of a correction" if self.corrected else "") + (" with a label" if self.labelled else "")
        return f"{self.kind} {self.verdict or 'made'}{more} {rules}".strip()


SCENARIOS = (
    Scenario(kind=Kind.VERIFY, verdict=Verdict.ACCEPT, policy={}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.REFINE, policy={}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.REJECT, policy={}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.UNSURE, policy={}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.ACCEPT, policy={"overlap": 2, "overlap_share": 1.0}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.REFINE, policy={}, corrected=True),
    Scenario(kind=Kind.TRACK, verdict=None, policy={}),
    Scenario(kind=Kind.TRACK, verdict=Verdict.REJECT, policy={}),
    Scenario(kind=Kind.VERIFY, verdict=Verdict.ACCEPT, policy={}, labelled=True),
    Scenario(kind=Kind.TRACK, verdict=None, policy={}, labelled=True),
)
PETS = Ontology(classes=(ObjectClass(name="dog"), ObjectClass(name="cat")))


class SmallVideos:
    """A video of eight frames under any id."""

    def info(self, video_id: str) -> VideoInfo:
        return VideoInfo(video_id=video_id, height=HEIGHT, width=WIDTH, frame_count=FRAMES, fps=FPS)

    def frame(self, video_id: str, frame_idx: int) -> bytes:
        return PICTURE


def masklet(name: str, *, by: str | None = None, video: str = "") -> Masklet:
    """A masklet of one corner, of the object with this name."""
    frames = tuple(range(0, FRAMES, STRIDE))
    return Masklet(
        masklet_id=content_id(name, by or ""),
        video_id=video or content_id("video"),
        batch_id="made-in",
        height=HEIGHT,
        width=WIDTH,
        frame_idx=frames,
        rle=(_corner(3),) * len(frames),
        area_px=(9,) * len(frames),
        score=(0.9,) * len(frames),
        object_score=(6.0,) * len(frames),
        stability=(0.9,) * len(frames),
        kind="auto" if by is None else "manual",
        phase="auto" if by is None else "3",
        round=0,
        checkpoint="micro",
        prompt='{"frame_idx": 0}',
        parent_id=None if by is None else content_id(name, ""),
        annotated_by=by,
    )


def _corner(side: int) -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:side, :side] = True
    return rle.encode(mask)


@contextmanager
def prepared(folder: Path, scenario: Scenario, *, gold: bool) -> Iterator[tuple[TestClient, TicketStore]]:
    """A queue in which the next claim of the person gives the ticket: a client of theirs, and the store.

    Other tickets wait in both queues, so that nothing ends with this one. The policy deals no gold afterwards.
    """
    database = Database(f"sqlite:///{folder}/{'gold' if gold else 'real'}.db")
    tickets, accounts = TicketStore(database), Accounts(database)
    for name, roles in ((BOTH, {Role.ANNOTATOR, Role.VERIFIER}), ("victor", OTHER.roles), ("lea", LEAD.roles)):
        accounts.add(name, roles)
    tickets.policy = QueuePolicy(**{"gold_share": 1.0 if gold else 0.0} | dict(scenario.policy))
    subject = masklet("subject", by="amy" if scenario.corrected else None)
    published = replace(subject, batch_id="of-last-month", verdict="accept", verified_by="victor", split="val")
    rules: dict[str, object] = {}
    if scenario.labelled:
        rules = {"ontology": Ontologies(database, tickets.clock).add(PETS), "label_at": "verify"}
    if scenario.kind is Kind.TRACK:
        pinned = {"frame_idx": 4, "by": "victor", "reasons": ["drift"]}
        rules = {"prompts": ["click", "box", "stroke", "propagate"], "memory": True} | rules | {"pinned": pinned}
    payload = json.dumps(rules)
    ticket = NewTicket(
        ticket_id=content_id("ticket", str(gold)),
        kind=scenario.kind,
        video_id=subject.video_id,
        masklet=published if gold else subject,
        phase="3",
        payload=payload,
        priority=0 if gold else 4,
    )
    plain = replace(ticket, kind=Kind.VERIFY, payload="{}", priority=0)
    video = content_id("another video")
    rest = [
        replace(plain, ticket_id=content_id("rest", str(n)), video_id=video, masklet=masklet(f"rest-{n}", video=video))
        for n in range(6)
    ]
    beside = replace(plain, ticket_id=content_id("beside"), masklet=masklet("beside"))  # in the video of the ticket
    if gold:
        decided = replace(beside, decided=Verdict.ACCEPT, decided_by="verifier-1")
        first = replace(plain, ticket_id=content_id("first"), masklet=masklet("subject"))
        corrected = [replace(first, decided=Verdict.ACCEPT, decided_by="verifier-1")] if scenario.corrected else []
        tickets.open_batch("of-last-month", [decided, *corrected])
        truth, expected = (masklet("truth"), None) if scenario.kind is Kind.TRACK else (None, Verdict.ACCEPT)
        tickets.add_gold("of-last-month", [NewGold(ticket=ticket, truth=truth, expected=expected)], by=LEAD)
        tickets.open_batch("of-today", rest)
        newest = replace(rest[0], ticket_id=content_id("newest"), masklet=masklet("newest", video=video))
        newest = replace(newest, decided=Verdict.ACCEPT, decided_by="verifier-1", payload=_without_pin(ticket))
        tickets.open_batch("of-now", [newest])  # the gold is under its ontology
    else:
        _open_real(tickets, scenario, ticket, [beside, *rest])
    app_module.STATS_S = 0.0  # nothing is cached: the answers depend on the acts only
    with TestClient(create_app(tickets, SmallVideos(), accounts=accounts)) as client:
        client.headers["Authorization"] = f"Bearer {accounts.issue_token(BOTH)}"
        yield client, tickets
    database.close()


def _open_real(tickets: TicketStore, scenario: Scenario, ticket: NewTicket, rest: list[NewTicket]) -> None:
    """Open the real ticket, by the way in which such a ticket comes to be."""
    if scenario.kind is Kind.TRACK:  # a verifier sends a candidate back
        first = replace(ticket, kind=Kind.VERIFY, payload=_without_pin(ticket), ticket_id=content_id("first"))
        tickets.open_batch("of-today", [first, *rest])
        held = tickets.claim(OTHER, claim_id="first", ticket_id=first.ticket_id)
        assert held is not None
        answer = Submission(
            operation_id=content_id("refine"),
            created_at=WHEN,
            verdict=Verdict.REFINE,
            reasons=json.loads(ticket.payload)["pinned"]["reasons"],
            frame_idx=4,
        )
        tickets.finish(held.ticket_id, held.lease_token, OTHER, answer)
    elif scenario.corrected:  # an annotator makes it
        amy = Person(name="amy", roles=frozenset({Role.ANNOTATOR}))
        tickets.open_batch("of-today", [replace(ticket, kind=Kind.TRACK, masklet=masklet("subject")), *rest])
        held = tickets.claim(amy, claim_id="first")
        assert held is not None
        made = Submission(operation_id=content_id("made"), created_at=WHEN, masklet=ticket.masklet)
        tickets.finish(held.ticket_id, held.lease_token, amy, made)
    else:
        tickets.open_batch("of-today", [ticket, *rest])


def _without_pin(ticket: NewTicket) -> str:
    return json.dumps({key: value for key, value in json.loads(ticket.payload).items() if key != "pinned"})


def work(client: TestClient, tickets: TicketStore, scenario: Scenario) -> tuple[dict[str, Any], Answers]:
    """Do everything that a person can do with one ticket. Returns the ticket and the answers to all requests."""
    answers: Answers = []

    def ask(method: str, path: str, body: Any = None) -> Any:
        answer = client.request(method, path, json=body)
        kind = answer.headers.get("content-type", "")
        said: Any = answer.json() if kind.startswith("application/json") else answer.content.hex()
        if path == "/api/stats":  # other people's pace depends on their own work
            said["paces"] = [pace for pace in said["paces"] if pace["person"] == BOTH]
        answers.append((f"{method} {path}", answer.status_code, said))
        return said

    def look() -> None:
        for path in OF_PERSON:
            ask("GET", path)
        parts = ("", "/masklet", "/before", "/operations", "/others", "/versions", "/comments")
        for part in (*parts, "/portrait.jpg", "/thumbnail"):
            ask("GET", f"{at}{part}")
        ask("GET", f"/api/videos/{held['video_id']}")
        ask("GET", f"/api/videos/{held['video_id']}/frames/4.jpg")

    def finish(token: int, number: int) -> None:
        said: dict[str, Any] = {"operation_id": content_id("answer", str(number)), "created_at": WHEN}
        said |= {"frame_idx": 4, "seconds": 3.0, "watched": 1.0, "reasons": [], "text": "the edge is off"}
        if scenario.verdict is None:
            made = masklet("made")
            said["masklet"] = json.loads(json.dumps({**_plain(made), "rle": [r.decode() for r in made.rle]}))
        else:
            said |= {"verdict": scenario.verdict}
            said["reasons"] = ["other"] if scenario.verdict is Verdict.REJECT else []
        ask("POST", f"{at}/finish", {"token": token, "outcome": said})
        ask("POST", f"{at}/finish", {"token": token, "outcome": said})  # an answer that got lost is sent again

    def comment(number: int) -> None:
        said = {"comment_id": content_id("comment", str(number)), "created_at": WHEN, "text": f"remark {number}"}
        ask("POST", f"{at}/comments", said | {"frame_idx": 4, "x": 2.0, "y": 1.5})
        by_lead = NewComment(comment_id=content_id("lead", str(number)), created_at=WHEN, text=f"reply {number}")
        comments.add(tickets.database, held["ticket_id"], LEAD, by_lead, tickets.clock())

    at = "/api/tickets/none"
    held = ask("POST", "/api/tickets/claim", {"claim_id": "c-1", "kinds": [scenario.kind]})
    tickets.policy = tickets.policy.model_copy(update={"gold_share": 0.0})
    at = f"/api/tickets/{held['ticket_id']}"
    look()
    ask("POST", f"{at}/heartbeat", {"token": held["lease_token"]})
    stroke = {
        "operation_id": content_id("stroke"),
        "kind": "stroke",
        "created_at": WHEN,
        "frame_idx": 4,
    }
    stroke["payload"] = json.dumps({"mask_rle": _corner(2).decode()})
    ask("POST", f"{at}/operations", {"token": held["lease_token"], "operations": [stroke]})
    comment(1)
    label = {"operation_id": content_id("label"), "kind": "label", "created_at": WHEN}
    label["payload"] = json.dumps({"label": "cat"})
    ask("POST", f"{at}/operations", {"token": held["lease_token"], "operations": [label]})
    ask("POST", f"{at}/release", {"token": held["lease_token"]})
    again = ask(
        "POST", "/api/tickets/claim", {"claim_id": "c-2", "kinds": [scenario.kind], "ticket_id": held["ticket_id"]}
    )
    look()
    finish(again["lease_token"], 1)
    look()
    undo = {"operation_id": content_id("unsubmit"), "created_at": WHEN}
    back = ask("POST", f"{at}/unsubmit", undo)
    look()
    comment(2)
    finish(back["lease_token"], 2)
    comment(3)
    _others_work(tickets)
    look()
    for part in ("heartbeat", "release", "end-lease"):
        ask("POST", f"{at}/{part}", {"token": back["lease_token"]})
    late = {**stroke, "operation_id": content_id("late")}
    ask("POST", f"{at}/operations", {"token": back["lease_token"], "operations": [late]})
    ask("GET", "/api/me/kept")
    ask("POST", "/api/me/kept/close", {"operation_ids": [late["operation_id"]], "applied": False})
    ask("POST", f"{at}/objects", {"token": back["lease_token"], "claim_id": "c-3"})
    ask("POST", "/api/tickets/claim", {"claim_id": "c-1"})
    ask("POST", "/api/tickets/claim", {"claim_id": "c-4", "ticket_id": held["ticket_id"]})
    return held, answers


def _others_work(tickets: TicketStore) -> None:
    """Other people go on with everything that waits for them."""
    for number in range(20):
        ticket = tickets.claim(OTHER, claim_id=f"of-victor-{number}")
        if ticket is None:
            return
        operation_id = content_id("of-victor", str(number))
        answer = Submission(operation_id=operation_id, created_at=WHEN, verdict=Verdict.ACCEPT)
        tickets.finish(ticket.ticket_id, ticket.lease_token, OTHER, answer)


def _plain(record: Masklet) -> dict[str, Any]:
    return dict(vars(record))


def tells(scenario: Scenario) -> list[str]:
    """The fields in which gold differs from real work, one line each."""
    flat = []
    with tempfile.TemporaryDirectory() as folder:
        for gold in (False, True):
            with prepared(Path(folder), scenario, gold=gold) as (client, tickets):
                held, answers = work(client, tickets, scenario)
                with tickets.database.read() as c:
                    assert known_of(c, held["ticket_id"])[0] == gold, "the claim gave another ticket"
            flat.append(_flat(answers))
    real, golden = flat
    return [
        f"{scenario}: {field}: {real.get(field, 'missing')} ≠ {golden.get(field, 'missing')}"
        for field in sorted({*real, *golden})
        if real.get(field, "missing") != golden.get(field, "missing")
    ]


def everywhere() -> list[str]:
    """The fields in which gold differs from real work, in all scenarios."""
    return [line for scenario in SCENARIOS for line in tells(scenario)]


def _flat(answers: Answers) -> dict[str, Any]:
    """Every field of every answer by its path. Ids are numbered by their first appearance."""
    known: dict[str, str] = {}

    def id_of(found: re.Match[str]) -> str:
        return known.setdefault(found[0], f"id-{len(known)}")

    def plain(value: Any) -> Any:
        return re.sub(r"\b[0-9a-f]{16}\b", id_of, value) if isinstance(value, str) else value

    def walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, str) and value.startswith("{"):
            value = json.loads(value)  # a payload
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(part, f"{path}.{key}")
            yield path, "an object of " + ", ".join(map(str, value))
        elif isinstance(value, list):
            for n, part in enumerate(value):
                yield from walk(part, f"{path}[{n}]")
            yield path, f"a list of {len(value)}"
        elif path.rpartition(".")[2] in TIMES:
            yield path, value is not None
        else:
            yield path, plain(value)

    found: dict[str, Any] = {}
    for n, (asked, status, said) in enumerate(answers):
        name = f"{n} {plain(asked)}"
        found[name] = status
        found.update(walk(said, name))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line, for programs")
    as_json = parser.parse_args().json
    found = everywhere()
    print(
        json.dumps({"benchmark": "gold_tells", "gold_tells": len(found), "scenarios": len(SCENARIOS), "fields": found})
    )
    if not as_json:
        print("\n".join(found), file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
