"""Another object of a video: an annotator opens a track ticket for it and holds that ticket at once.

Works inside the transactions of `TicketStore`.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, func, insert, select

from annotation_queue import schema
from annotation_queue.errors import NotAllowed
from annotation_queue.records import Kind, NewTicket, QueuePolicy, State, Ticket
from annotation_queue.rules import kinds_of
from annotation_queue.tickets import batches, closing, gold, leases, tallies
from annotation_queue.tickets.rows import row_of, to_ticket
from storage.records import content_id

MAX_OBJECTS = 1000  # tickets of a video in a batch; after that, people cannot open more


def open_object(c: Connection, policy: QueuePolicy, ticket: Ticket, lease: leases.NewLease) -> Ticket:
    """Open a track ticket without a masklet for the video of `ticket`, leased to the holder of `ticket`.

    Raises NotAllowed.
    """
    person, now = lease.person, lease.now
    if ticket.kind is Kind.VERIFY:
        raise NotAllowed("another object can be opened from a track or select ticket only")
    if Kind.TRACK not in kinds_of(person.roles):
        raise NotAllowed(f"{person.name} has no role for {Kind.TRACK} tickets")
    gold.check_trained(c, policy, person)
    batch = batches.lock(c, ticket.batch_id)
    assert batch is not None
    t = schema.tickets
    same = (t.c.batch_id == ticket.batch_id) & (t.c.video_id == ticket.video_id)
    full = (c.scalar(select(func.count()).where(same)) or 0) >= MAX_OBJECTS
    # one message for both: only gold is leased in a video whose result went to the pipeline
    if full or closing.is_closed(c, batch, ticket.video_id):
        raise NotAllowed(f"no more objects can be opened for video {ticket.video_id} in this batch")
    payload = {key: value for key, value in json.loads(ticket.payload).items() if key != "pinned"}
    new = NewTicket(
        ticket_id=content_id(ticket.ticket_id, lease.claim_id),
        kind=Kind.TRACK,
        video_id=ticket.video_id,
        phase=ticket.phase,
        priority=ticket.priority,
        payload=json.dumps(payload | {"begun_by": person.name}),
        skill=ticket.skill,
    )
    held = {"state": State.LEASED.value, "leased_by": person.name, "lease_token": 1, "expires_at": lease.until}
    values = row_of(new, ticket.batch_id, now, batch.total, policy, batch.project) | held
    row = c.execute(insert(t).values(**values).returning(t)).one()
    batches.count(c, ticket.batch_id, now, more=1, less=-1)
    leases.note(c, row, lease)
    tallies.add(c, tallies.tickets_added([values]))
    return to_ticket(row)
