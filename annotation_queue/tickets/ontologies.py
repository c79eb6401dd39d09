"""Ontologies in the queue's database: kept by their version and never changed. A ticket names the version it is under.

A batch goes on under the ontology that it was opened with, also when the project's file has changed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

from cachetools import LRUCache, cached
from sqlalchemy import Connection, Row, select

from annotation_queue import labels, schema
from annotation_queue.database import Database, insert_missing
from annotation_queue.errors import NoSuchOntology
from annotation_queue.labels import Label
from annotation_queue.records import Kind, NewOperation, Person, Ticket
from annotation_queue.rules import check_allowed
from annotation_queue.tickets import masklets, operations, sight
from annotation_queue.tickets.rows import to_ticket
from storage import ontology
from storage.ontology import Ontology
from storage.records import Verdict

REMEMBERED = 16  # ontologies that a process keeps parsed


class Ontologies:
    """The ontologies of one queue; safe to share between threads."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database, self._clock = database, clock

    def add(self, content: Ontology) -> str:
        """Keep an ontology, if it is not kept already. Returns its version. Raises OntologyError."""
        content = ontology.from_json(content.to_json())  # checks it as a file is checked
        row = {"version": content.version, "content": content.to_json(), "created_at": self._clock()}
        with self._database.write() as c:
            insert_missing(c, schema.ontologies, [row])
        return content.version

    def get(self, version: str, seen_by: Person | None = None) -> Ontology:
        """The ontology of this version.

        seen_by: who reads it. They need a ticket under it in their hands, or a project that has tickets under it.
        Raises NoSuchOntology.
        """
        with self._database.read() as c:
            if seen_by is not None and not _may_read(c, seen_by, version):
                raise NoSuchOntology(f"no ontology {version}")
            return read(c, version)


def _may_read(c: Connection, person: Person, version: str) -> bool:
    if person.projects is None:
        return True
    t, of = schema.tickets, schema.ontologies_of_projects
    mine = select(of.c.version).where(of.c.version == version, *sight.within(person, of.c.project))
    if c.scalar(mine.limit(1)) is not None:
        return True
    held = select(t.c.payload).where(schema.IS_LEASED, t.c.leased_by == person.name)  # also if they left its project
    return any(json.loads(payload).get("ontology") == version for payload in c.scalars(held))


@cached(LRUCache(REMEMBERED), key=lambda c, version: version, lock=threading.Lock())  # a version is its content
def read(c: Connection, version: str) -> Ontology:
    """The ontology of this version. Raises NoSuchOntology."""
    o = schema.ontologies
    text = c.scalar(select(o.c.content).where(o.c.version == version))
    if text is None:
        raise NoSuchOntology(f"no ontology {version}")
    return ontology.from_json(text)


def of_payload(c: Connection, payload: str) -> Ontology | None:
    """The ontology that a ticket's payload names, or None. Raises NoSuchOntology."""
    version = json.loads(payload).get("ontology")
    return None if version is None else read(c, version)


def note_use(c: Connection, payloads: Sequence[str], project: str) -> None:
    """Note that a project has new tickets under the ontologies that their payloads name, so its people may read them.

    ValueError for an ontology that was not sent before.
    """
    o, named = schema.ontologies, {json.loads(payload).get("ontology") for payload in set(payloads)} - {None}
    known = set(c.scalars(select(o.c.version).where(o.c.version.in_(named)))) if named else set()
    if unknown := sorted(named - known):
        raise ValueError(f"no ontology {unknown[0]}: send it before its tickets")
    if named:
        rows = [{"version": version, "project": project} for version in sorted(named)]
        insert_missing(c, schema.ontologies_of_projects, rows)


def check_operations(c: Connection, ticket: Ticket, sent: Sequence[NewOperation]) -> None:
    """NotAllowed or ValueError for an operation that the ticket's kind, phase or ontology does not permit."""
    for operation in sent:
        check_allowed(ticket, operation)
        if operation.kind == "label":
            labels.check_operation(of_payload(c, ticket.payload), operation)


def of_answer(c: Connection, row: Row[object], person: str) -> Label:
    """The label of a ticket's object as this person leaves it.

    Several verifiers of one ticket choose without seeing each other's labels; a draft is everybody's.
    """
    came = Label(name=row.label, attributes=row.attributes)
    if "ontology" not in json.loads(row.payload):
        return came
    done = operations.of_ticket(c, row.ticket_id)
    alone = row.kind == Kind.VERIFY.value
    return labels.chosen(came, [each for each in done if each.person == person or not alone])


def check_answer(c: Connection, row: Row[object], verdict: Verdict | None, label: Label) -> None:
    """ValueError if a ticket asks for a label that an answer lacks."""
    if labels.asks(to_ticket(row), verdict):
        found = of_payload(c, row.payload)
        assert found is not None  # `check_rules`
        if problem := labels.lacking(found, label, verdict):
            raise ValueError(problem)


def before_answer(c: Connection, row: Row[object]) -> Label:
    """The label that a ticket came with, also after it is done: that of the ticket before it, or of its masklet."""
    t = schema.tickets
    if row.previous_ticket_id is not None and row.gold_id is None:
        before = c.execute(select(t.c.label, t.c.attributes).where(t.c.ticket_id == row.previous_ticket_id)).first()
        if before is not None:
            return Label(name=before.label, attributes=before.attributes)
    found = masklets.label(c, row.batch_id, row.masklet_id)
    return Label(name=found["label"], attributes=found["attributes"])
