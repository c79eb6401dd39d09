"""Instances: objects of one class in one video. A class may have one of them on a frame, or numbers to tell them apart.

Only an accepted object keeps others from a class of one, and only where both are seen on the same frame: after a shot
cut, the sky is another masklet. What is still under review may change. A number is taken by every object that was not
rejected. Works inside the transactions of `TicketStore`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, select

from annotation_queue import schema
from annotation_queue.labels import Label, of_payload
from annotation_queue.records import NewOperation, Ticket
from annotation_queue.tickets import batches, gold, masklets, ontologies
from storage.ontology import INSTANCE, Instances
from storage.records import Verdict


def check_operations(c: Connection, ticket: Ticket, sent: Sequence[NewOperation]) -> None:
    """NotAllowed or ValueError for an operation that the ticket's kind, phase or ontology does not permit.

    Refuses also a label of a class that a frame has once, if another object on the same frame has it.
    """
    ontologies.check_operations(c, ticket, sent)
    for operation in sent:
        if operation.kind == "label":
            _check_one(c, ticket, of_payload(json.loads(operation.payload)))


def check_answer(c: Connection, ticket: Ticket, verdict: Verdict | None, label: Label) -> None:
    """ValueError for accepting an object with such a label. Locks the batch: two people may accept at once."""
    if verdict is Verdict.ACCEPT and _instances(c, ticket.payload, label) == "one":
        batches.lock(c, ticket.batch_id)
        _check_one(c, ticket, label)


def numbered(c: Connection, row: Row[Any], label: Label) -> Label:
    """The label of an object that is accepted, with the first free number if its class needs one and it has none."""
    if INSTANCE in label.values or _instances(c, row.payload, label) != "numbered":
        return label
    batches.lock(c, row.batch_id)
    taken = {json.loads(each.attributes or "{}").get(INSTANCE) for each in _of_class(c, row, label)}
    free = next(n for n in range(1, len(taken) + 2) if n not in taken)
    return replace(label, attributes=json.dumps(label.values | {INSTANCE: free}, sort_keys=True))


def _instances(c: Connection, payload: str, label: Label) -> Instances:
    known = ontologies.of_payload(c, payload)
    found = known and known.class_of(label.name)
    return found.instances if found else "many"


def _check_one(c: Connection, ticket: Ticket, label: Label) -> None:
    if _instances(c, ticket.payload, label) != "one":
        return
    _, truth = gold.known_of(c, ticket.ticket_id)
    own = [ticket.masklet_id, *((truth.masklet_id, truth.parent_id) if truth else ())]
    mine = {masklets.origin(c, ticket.batch_id, masklet_id) for masklet_id in own if masklet_id is not None}
    seen = masklets.seen_on(c, ticket.batch_id, ticket.masklet_id)  # empty before a new object has its masks
    for each in _of_class(c, ticket, label):
        if each.settled != Verdict.ACCEPT.value or seen.isdisjoint(masklets.seen_on(c, each.batch_id, each.masklet_id)):
            continue
        # the object of a gold ticket was accepted long ago: it is not another one
        if masklets.origin(c, ticket.batch_id, each.masklet_id) not in mine:
            raise ValueError(
                f"a frame has one {label.name}, and another object has the label: masklet {each.masklet_id}"
            )


def _of_class(c: Connection, about: Ticket | Row[Any], label: Label) -> Sequence[Row[Any]]:
    """The last ticket of each object of a video, in its batch, that has this class and was not rejected."""
    t = schema.tickets
    found = select(t).where(t.c.batch_id == about.batch_id, t.c.video_id == about.video_id, t.c.gold_id.is_(None))
    found = found.where(t.c.label == label.name, t.c.next_ticket_id.is_(None))
    found = found.where(t.c.settled.is_(None) | (t.c.settled != Verdict.REJECT.value))
    return c.execute(found.order_by(t.c.ticket_id)).all()
