"""The tickets, their leases and what people do in them, in a database.

Knows nothing about HTTP, passwords or files. Every verb is one transaction, and every verb that a client calls can
be repeated with the same ids and changes nothing the second time.

A lease is held under a fencing token, one more at each claim. It ends when its holder finishes or releases the
ticket, or when somebody asks for work after it has expired; until then a late write of its holder still counts.
A write under a token that is over raises LeaseLost, and what it carried is kept beside the ticket as a branch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from annotation_queue import database as db
from annotation_queue.database import Database
from annotation_queue.records import (
    NEXT,
    Appended,
    Batch,
    BatchResult,
    BatchSealed,
    Count,
    Finished,
    Kind,
    LeaseLost,
    NewOperation,
    NewTicket,
    NoSuchBatch,
    NoSuchMasklet,
    NoSuchTicket,
    NotAllowed,
    Outcome,
    Pace,
    Person,
    Reason,
    ResultPage,
    Role,
    Settled,
    State,
    Stats,
    Ticket,
    check_id,
    check_new_ticket,
    check_operation,
    check_outcome,
    kinds_of,
    next_ticket_id,
    why_not,
)
from storage.records import Masklet, Operation, Verdict

LEASE_S = 90.0  # a lease ends this long after its last heartbeat
HEARTBEAT_S = 20.0  # how often a client should send one
DELIVERY_S = 300.0  # how long one delivery of a drained batch may take before another process tries
RETRY_S = (1.0, 5.0, 30.0, 60.0)  # waits between deliveries that failed; the last one repeats

MASKLET: TypeAdapter[Masklet] = TypeAdapter(Masklet)


class Store:
    """The queue in one database; safe to share between threads, and between processes by opening one each."""

    def __init__(self, database: Database, *, lease_s: float = LEASE_S, clock: Callable[[], float] = time.time) -> None:
        """clock: s since the epoch; processes that share a database must agree on it to within a few seconds."""
        self.database = database
        self.lease_s = lease_s
        self._clock = clock

    # --- batches -----------------------------------------------------------------------------------------------

    def open_batch(self, batch_id: str, tickets: Iterable[NewTicket] = (), *, sealed: bool = True) -> Batch:
        """Add tickets to a batch, which is made if it is not there; `sealed` says that these were the last.

        Tickets that the batch has already are left as they are: call again after any failure.
        Raises ValueError for a malformed ticket (nothing is added then), BatchSealed for a new ticket in a sealed
        batch.
        """
        check_id(batch_id, "batch_id")
        wanted = {ticket.ticket_id: ticket for ticket in tickets}
        for ticket in wanted.values():
            check_new_ticket(ticket)
        now = self._clock()
        with self.database.write() as c:
            row = self._lock_batch(c, batch_id)
            if row is None:
                new = {"batch_id": batch_id, "created_at": now, "sealed": False, "total": 0, "remaining": 0}
                c.execute(_insert_missing(self.database, db.batches), [new])
                row = self._lock_batch(c, batch_id)
                assert row is not None
            there: dict[str, str] = {}
            ids = list(wanted)
            for start in range(0, len(ids), 500):
                query = select(db.tickets.c.ticket_id, db.tickets.c.batch_id)
                found = c.execute(query.where(db.tickets.c.ticket_id.in_(ids[start : start + 500])))
                there |= {ticket_id: owner for ticket_id, owner in found}
            if strangers := [ticket_id for ticket_id, owner in there.items() if owner != batch_id]:
                raise ValueError(f"ticket {strangers[0]} belongs to batch {there[strangers[0]]}")
            fresh = [ticket for ticket_id, ticket in wanted.items() if ticket_id not in there]
            if fresh and row.sealed:
                raise BatchSealed(f"batch {batch_id} is sealed: {len(fresh)} new tickets were refused")
            if contents := [ticket.masklet for ticket in fresh if ticket.masklet is not None]:
                self._keep_masklets(c, batch_id, contents)
            if fresh:
                rows = [_row_of(ticket, batch_id, now, row.total + i) for i, ticket in enumerate(fresh)]
                c.execute(insert(db.tickets), rows)
            counts = {"total": row.total + len(fresh), "remaining": row.remaining + len(fresh)}
            c.execute(
                update(db.batches)
                .where(db.batches.c.batch_id == batch_id)
                .values(sealed=bool(row.sealed or sealed), **counts)
            )
            self._tell_if_drained(c, batch_id, now)
            return _batch(self._lock_batch(c, batch_id))

    def batch(self, batch_id: str) -> Batch:
        """The counts of a batch. Raises NoSuchBatch."""
        with self.database.read() as c:
            return self._batch(c, batch_id)

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        with self.database.read() as c:
            query = select(db.batches).order_by(db.batches.c.created_at.desc(), db.batches.c.batch_id)
            return [_batch(row) for row in c.execute(query)]

    def drained_batches(self) -> list[str]:
        """The ids of the batches with nothing left to do, in the order in which they became so."""
        with self.database.read() as c:
            query = select(db.batches.c.batch_id).where(db.batches.c.drained_at.is_not(None))
            return list(c.scalars(query.order_by(db.batches.c.drained_at, db.batches.c.batch_id)))

    def result_page(self, batch_id: str, *, after: str | None = None, limit: int = 200) -> ResultPage:
        """Up to `limit` decisions or operations of a batch, in a fixed order; `after` is the last page's `next`.

        Operations that came too late (branches) are not in it. Raises NoSuchBatch; ValueError for a strange `after`.
        """
        part, ticket_id, seq = _parse_cursor(after)
        with self.database.read() as c:
            batch = self._batch(c, batch_id)
            if part == "settled":
                t = db.tickets
                query = (
                    select(t, db.masklets.c.content)
                    .select_from(
                        t.outerjoin(
                            db.masklets,
                            and_(db.masklets.c.batch_id == t.c.batch_id, db.masklets.c.masklet_id == t.c.masklet_id),
                        )
                    )
                    .where(t.c.batch_id == batch_id, t.c.settled.is_not(None), t.c.ticket_id > ticket_id)
                    .order_by(t.c.ticket_id)
                    .limit(limit)
                )
                settled = tuple(_settled(row) for row in c.execute(query))
                more = f"settled:{settled[-1].ticket_id}" if len(settled) == limit else "operations:"
                return ResultPage(batch=batch, settled=settled, operations=(), next=more)
            o = db.operations
            query = (
                select(o)
                .where(o.c.batch_id == batch_id, o.c.branch.is_(False))
                .where((o.c.ticket_id > ticket_id) | ((o.c.ticket_id == ticket_id) & (o.c.seq > seq)))
                .order_by(o.c.ticket_id, o.c.seq)
                .limit(limit)
            )
            done = tuple(_operation(row) for row in c.execute(query))
            last = f"operations:{done[-1].ticket_id}:{done[-1].seq}" if len(done) == limit else None
            return ResultPage(batch=batch, settled=(), operations=done, next=last)

    def batch_result(self, batch_id: str) -> BatchResult:
        """Everything that was decided and done in a batch so far. Raises NoSuchBatch."""
        settled: list[Settled] = []
        done: list[Operation] = []
        page = self.result_page(batch_id)
        while True:
            settled += page.settled
            done += page.operations
            if page.next is None:
                return BatchResult(batch=page.batch, settled=tuple(settled), operations=tuple(done))
            page = self.result_page(batch_id, after=page.next)

    # --- tickets -----------------------------------------------------------------------------------------------

    def claim(
        self,
        person: Person,
        kinds: Sequence[Kind] | None = None,
        *,
        claim_id: str,
        ticket_id: str | None = None,
        batch_id: str | None = None,
    ) -> Ticket | None:
        """Lease the next ticket to `person`, or None if there is none for them.

        kinds: in order of preference; None for every kind that their roles permit.
        claim_id: made by the client; the same id again gives the same ticket while the lease lasts.
        ticket_id, batch_id: only this ticket, only tickets of this batch.
        Raises NotAllowed if no role of theirs permits any of `kinds`, or not this ticket; NoSuchTicket; LeaseLost if
        the lease that this claim gave is over; ValueError for a bad id.
        """
        try:
            return self._claim(person, kinds, claim_id, ticket_id, batch_id)
        except IntegrityError:  # the same claim arrived twice at once: the other one has the answer now
            return self._claim(person, kinds, claim_id, ticket_id, batch_id)

    def _claim(
        self,
        person: Person,
        kinds: Sequence[Kind] | None,
        claim_id: str,
        ticket_id: str | None,
        batch_id: str | None,
    ) -> Ticket | None:
        check_id(claim_id, "claim_id")
        allowed = kinds_of(person.roles)
        wanted = [kind for kind in (kinds if kinds is not None else list(Kind)) if kind in allowed]
        if not wanted:
            raise NotAllowed(f"{person.name} has no role for {', '.join(kinds) if kinds else 'any'} tickets")
        now = self._clock()
        t = db.tickets
        with self.database.write() as c:
            before = c.execute(
                select(db.leases).where(db.leases.c.person == person.name, db.leases.c.claim_id == claim_id)
            ).first()
            if before is not None:
                ticket = _ticket(self._lock_ticket(c, before.ticket_id))
                if not _holds(ticket, before.token, person):
                    raise LeaseLost(f"the lease that claim {claim_id} gave is over")
                return ticket
            self._return_expired(c, now)
            for kind in wanted:
                ready = select(t.c.ticket_id).where(db.IS_OPEN, t.c.kind == kind.value)
                if kind is Kind.VERIFY:
                    ready = ready.where(t.c.made_by.is_(None) | (t.c.made_by != person.name))
                if Role.LEAD not in person.roles:
                    ready = ready.where(t.c.needs_lead.is_(False))
                if ticket_id is not None:
                    ready = ready.where(t.c.ticket_id == ticket_id)
                if batch_id is not None:
                    ready = ready.where(t.c.batch_id == batch_id)
                ready = ready.order_by(t.c.priority.desc(), t.c.created_at, t.c.ordinal).limit(1)
                row = c.execute(
                    update(t)
                    .where(t.c.ticket_id == ready.with_for_update(skip_locked=True).scalar_subquery())
                    .values(
                        state=State.LEASED.value,
                        leased_by=person.name,
                        lease_token=t.c.lease_token + 1,
                        expires_at=now + self.lease_s,
                    )
                    .returning(t)
                ).first()
                if row is None:
                    continue
                lease = {"ticket_id": row.ticket_id, "token": row.lease_token, "claimed_at": now}
                c.execute(insert(db.leases).values(person=person.name, claim_id=claim_id, **lease))
                return _ticket(row)
            if ticket_id is not None:
                ticket = _ticket(self._lock_ticket(c, ticket_id))
                if refusal := why_not(person, ticket):
                    raise NotAllowed(refusal)
        return None

    def heartbeat(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Keep the lease for another `lease_s`. Raises NoSuchTicket, LeaseLost."""
        with self.database.write() as c:
            ticket = _ticket(self._lock_ticket(c, ticket_id))
            self._check_held(c, ticket, token, person)
            until = self._clock() + self.lease_s
            query = update(db.tickets).where(db.tickets.c.ticket_id == ticket_id).values(expires_at=until)
            return _ticket(c.execute(query.returning(db.tickets)).one())

    def release(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Give the ticket back; its operations stay. Again: nothing. Raises NoSuchTicket, LeaseLost."""
        with self.database.write() as c:
            ticket = _ticket(self._lock_ticket(c, ticket_id))
            if ticket.state is State.OPEN and ticket.lease_token == token and self._held_once(c, ticket, token, person):
                return ticket
            self._check_held(c, ticket, token, person)
            query = update(db.tickets).where(db.tickets.c.ticket_id == ticket_id)
            back = query.values(state=State.OPEN.value, leased_by=None, expires_at=None)
            return _ticket(c.execute(back.returning(db.tickets)).one())

    def append_operations(
        self, ticket_id: str, token: int, person: Person, operations: Sequence[NewOperation]
    ) -> Appended:
        """Keep what the holder of a ticket did, in order; operations that are there already are skipped.

        Raises NoSuchTicket; LeaseLost, after keeping what is new as a branch; NotAllowed for a prompt that the
        ticket's phase does not permit; ValueError. After the last two nothing is kept.
        """
        lost = False
        with self.database.write() as c:
            ticket = _ticket(self._lock_ticket(c, ticket_id))
            known = self._known_operations(c, ticket, [o.operation_id for o in operations])
            fresh = list({o.operation_id: o for o in operations if o.operation_id not in known}.values())
            for operation in fresh:
                check_operation(ticket, operation)
            if fresh and not _holds(ticket, token, person):
                self._check_held_once(c, ticket, token, person)
                lost = True
            lost = lost or any(known.values())
            seq = self._append(c, ticket, token, person, fresh, branch=lost)
        if lost:
            raise LeaseLost()
        return Appended(stored=len(fresh), repeated=len(operations) - len(fresh), seq=seq)

    def finish(self, ticket_id: str, token: int, person: Person, outcome: Outcome) -> Finished:
        """Finish a ticket and open the one that follows from it, in one transaction.

        The same `outcome.operation_id` again gives the same answer. What a person made is kept under their name,
        as a manual masklet whose parent is the one that the ticket was about.
        Raises NoSuchTicket; LeaseLost, after keeping the outcome as a branch; ValueError.
        """
        now = self._clock()
        lost = False
        with self.database.write() as c:
            ticket = _ticket(self._lock_ticket(c, ticket_id))
            check_outcome(ticket, outcome)
            known = self._known_operations(c, ticket, [outcome.operation_id])
            if known.get(outcome.operation_id) is False:
                return self._finished(c, ticket)
            if known or not _holds(ticket, token, person):
                self._check_held_once(c, ticket, token, person)
                if not known:
                    self._append(c, ticket, token, person, [_act(outcome, keep_masklet=True)], branch=True)
                lost = True
            else:
                self._append(c, ticket, token, person, [_act(outcome)], branch=False)
                self._settle_or_follow(c, ticket, person, outcome, now)
                return self._finished(c, _ticket(self._lock_ticket(c, ticket_id)))
        assert lost
        raise LeaseLost()

    def ticket(self, ticket_id: str) -> Ticket:
        """A ticket as it stands. Raises NoSuchTicket."""
        with self.database.read() as c:
            row = c.execute(select(db.tickets).where(db.tickets.c.ticket_id == ticket_id)).first()
        if row is None:
            raise NoSuchTicket(f"no ticket {ticket_id}")
        return _ticket(row)

    def tickets(
        self,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        limit: int = 50,
    ) -> list[Ticket]:
        """Up to `limit` tickets in the order in which they are handed out."""
        t = db.tickets
        query = select(t).order_by(t.c.priority.desc(), t.c.created_at, t.c.ordinal, t.c.ticket_id).limit(limit)
        if kind is not None:
            query = query.where(t.c.kind == kind.value)
        if state is not None:
            query = query.where(db.IS_OPEN if state is State.OPEN else t.c.state == state.value)
        if batch_id is not None:
            query = query.where(t.c.batch_id == batch_id)
        with self.database.read() as c:
            return [_ticket(row) for row in c.execute(query)]

    def masklet_json(self, ticket_id: str) -> str:
        """The masklet that a ticket is about, as JSON of its record. Raises NoSuchTicket, NoSuchMasklet."""
        ticket = self.ticket(ticket_id)
        m = db.masklets
        with self.database.read() as c:
            content = c.scalar(
                select(m.c.content).where(m.c.batch_id == ticket.batch_id, m.c.masklet_id == ticket.masklet_id)
            )
        if content is None:
            raise NoSuchMasklet(f"ticket {ticket_id} has no masklet")
        return str(content)

    def masklet(self, ticket_id: str) -> Masklet:
        """The masklet that a ticket is about. Raises NoSuchTicket, NoSuchMasklet."""
        return MASKLET.validate_json(self.masklet_json(ticket_id))

    def operations(self, ticket_id: str, *, branch: bool = False) -> list[Operation]:
        """What was done in a ticket, in order; `branch`: what came after the lease was lost, instead."""
        o = db.operations
        with self.database.read() as c:
            query = select(o).where(o.c.ticket_id == ticket_id, o.c.branch.is_(branch)).order_by(o.c.seq)
            return [_operation(row) for row in c.execute(query)]

    def stats(self) -> Stats:
        """The queue in numbers; the paces are those of the last hour. An expired lease counts as open."""
        now = self._clock()
        t = db.tickets
        with self.database.read() as c:
            expired = and_(t.c.state == State.LEASED.value, t.c.expires_at < now)
            counts: dict[tuple[str, str, bool], int] = {}
            rows = c.execute(
                select(t.c.kind, t.c.state, t.c.needs_lead, expired.label("expired"), func.count().label("n")).group_by(
                    t.c.kind, t.c.state, t.c.needs_lead, expired
                )
            )
            for row in rows:
                key = (row.kind, State.OPEN.value if row.expired else row.state, bool(row.needs_lead))
                counts[key] = counts.get(key, 0) + row.n
            paces = c.execute(
                select(t.c.finished_by, func.count(), func.avg(t.c.seconds))
                .where(t.c.finished_at > now - 3600)
                .group_by(t.c.finished_by)
                .order_by(func.count().desc(), t.c.finished_by)
            ).all()
            undelivered = c.scalar(select(func.count()).where(db.outbox.c.delivered_at.is_(None))) or 0
        return Stats(
            counts=tuple(
                Count(kind=Kind(kind), state=State(state), needs_lead=needs_lead, tickets=n)
                for (kind, state, needs_lead), n in sorted(counts.items())
            ),
            paces=tuple(Pace(person=name, finished=n, seconds=mean) for name, n, mean in paces),
            undelivered=undelivered,
        )

    # --- the outbox --------------------------------------------------------------------------------------------

    def deliver(self, tell: Callable[[str], object]) -> int:
        """Call `tell(batch_id)` for each drained batch that nobody was told of; return how many were delivered.

        A batch is told once: it is marked before this returns, and two processes never tell the same one at the
        same time. After a failure of `tell` it is tried again later; only a process killed between the end of
        `tell` and the mark makes `tell` run twice, so let it be harmless.
        """
        told = 0
        o = db.outbox
        while True:
            now = self._clock()
            due = select(o.c.batch_id).where(o.c.delivered_at.is_(None), o.c.not_before <= now)
            due = due.order_by(o.c.created_at).limit(1).with_for_update(skip_locked=True)
            with self.database.write() as c:
                row = c.execute(
                    update(o)
                    .where(o.c.batch_id == due.scalar_subquery())
                    .values(attempts=o.c.attempts + 1, not_before=now + DELIVERY_S)
                    .returning(o)
                ).first()
            if row is None:
                return told
            changed: dict[str, Any]
            try:
                tell(row.batch_id)
            except Exception as error:
                wait = RETRY_S[min(row.attempts, len(RETRY_S)) - 1]
                changed = {"last_error": f"{type(error).__name__}: {error}", "not_before": self._clock() + wait}
            else:
                changed = {"delivered_at": self._clock(), "last_error": None}
                told += 1
            with self.database.write() as c:
                c.execute(update(o).where(o.c.batch_id == row.batch_id).values(**changed))

    # --- inside a transaction ----------------------------------------------------------------------------------

    def _lock_batch(self, c: Connection, batch_id: str) -> Row[Any] | None:
        return c.execute(select(db.batches).where(db.batches.c.batch_id == batch_id).with_for_update()).first()

    def _batch(self, c: Connection, batch_id: str) -> Batch:
        row = c.execute(select(db.batches).where(db.batches.c.batch_id == batch_id)).first()
        if row is None:
            raise NoSuchBatch(f"no batch {batch_id}")
        return _batch(row)

    def _lock_ticket(self, c: Connection, ticket_id: str) -> Row[Any]:
        row = c.execute(select(db.tickets).where(db.tickets.c.ticket_id == ticket_id).with_for_update()).first()
        if row is None:
            raise NoSuchTicket(f"no ticket {ticket_id}")
        return row

    def _keep_masklets(self, c: Connection, batch_id: str, contents: Sequence[Masklet]) -> None:
        """Keep masklets; ValueError if another one has the same id in this batch."""
        now = self._clock()
        m = db.masklets
        for content in contents:
            text = MASKLET.dump_json(content).decode()
            there = c.scalar(select(m.c.content).where(m.c.batch_id == batch_id, m.c.masklet_id == content.masklet_id))
            if there is None:
                key = {"batch_id": batch_id, "masklet_id": content.masklet_id}
                c.execute(insert(m).values(content=text, created_at=now, **key))
            elif there != text:
                raise ValueError(f"another masklet {content.masklet_id} is in batch {batch_id} already")

    def _return_expired(self, c: Connection, now: float) -> None:
        t = db.tickets
        expired = select(t.c.ticket_id).where(db.IS_LEASED, t.c.expires_at < now)
        c.execute(
            update(t)
            .where(t.c.ticket_id.in_(expired.with_for_update(skip_locked=True)))
            .values(state=State.OPEN.value, leased_by=None, expires_at=None)
        )

    def _held_once(self, c: Connection, ticket: Ticket, token: int, person: Person) -> bool:
        key = (db.leases.c.ticket_id == ticket.ticket_id) & (db.leases.c.token == token)
        return c.scalar(select(db.leases.c.person).where(key)) == person.name

    def _check_held_once(self, c: Connection, ticket: Ticket, token: int, person: Person) -> None:
        if not self._held_once(c, ticket, token, person):
            raise NotAllowed(f"{person.name} never held ticket {ticket.ticket_id} under token {token}")

    def _check_held(self, c: Connection, ticket: Ticket, token: int, person: Person) -> None:
        if not _holds(ticket, token, person):
            self._check_held_once(c, ticket, token, person)
            raise LeaseLost()

    def _known_operations(self, c: Connection, ticket: Ticket, ids: Sequence[str]) -> dict[str, bool]:
        """Those of `ids` that are stored, with whether they are a branch; ValueError if another ticket has one."""
        o = db.operations
        rows = c.execute(select(o.c.operation_id, o.c.ticket_id, o.c.branch).where(o.c.operation_id.in_(ids))).all()
        for row in rows:
            if row.ticket_id != ticket.ticket_id:
                raise ValueError(f"operation {row.operation_id} belongs to another ticket")
        return {row.operation_id: bool(row.branch) for row in rows}

    def _append(
        self,
        c: Connection,
        ticket: Ticket,
        token: int,
        person: Person,
        operations: Sequence[NewOperation],
        *,
        branch: bool,
    ) -> int:
        o = db.operations
        seq = c.scalar(select(func.coalesce(func.max(o.c.seq), 0)).where(o.c.ticket_id == ticket.ticket_id)) or 0
        if not operations:
            return int(seq)
        about = {
            "ticket_id": ticket.ticket_id,
            "batch_id": ticket.batch_id,
            "video_id": ticket.video_id,
            "masklet_id": ticket.masklet_id or "",
            "person": person.name,
            "lease_token": token,
            "received_at": self._clock(),
            "branch": branch,
        }
        rows = [
            about
            | {
                "operation_id": operation.operation_id,
                "seq": seq + i,
                "kind": operation.kind,
                "frame_idx": operation.frame_idx,
                "payload": operation.payload,
                "created_at": operation.created_at,
            }
            for i, operation in enumerate(operations, start=1)
        ]
        c.execute(insert(o), rows)
        return int(seq) + len(rows)

    def _settle_or_follow(self, c: Connection, ticket: Ticket, person: Person, outcome: Outcome, now: float) -> None:
        masklet_id, made_by = ticket.masklet_id, ticket.made_by
        if outcome.masklet is not None:
            made = _made(outcome.masklet, ticket, person)
            self._keep_masklets(c, ticket.batch_id, [made])
            masklet_id, made_by = made.masklet_id, person.name
        following = NEXT[(ticket.kind, outcome.verdict)]
        follower = None if following is None else next_ticket_id(ticket, following)
        c.execute(
            update(db.tickets)
            .where(db.tickets.c.ticket_id == ticket.ticket_id)
            .values(
                state=State.DONE.value,
                leased_by=None,
                expires_at=None,
                verdict=outcome.verdict,
                reasons=",".join(outcome.reasons),
                finished_by=person.name,
                finished_at=now,
                seconds=outcome.seconds,
                next_ticket_id=follower,
                settled=outcome.verdict if following is None else None,
            )
        )
        if following is not None:
            c.execute(
                insert(db.tickets).values(
                    ticket_id=follower,
                    batch_id=ticket.batch_id,
                    kind=following.value,
                    video_id=ticket.video_id,
                    masklet_id=masklet_id,
                    phase=ticket.phase,
                    priority=ticket.priority,
                    payload=ticket.payload,
                    made_by=made_by,
                    needs_lead=outcome.verdict is Verdict.UNSURE,
                    attempt=ticket.attempt + 1,
                    previous_ticket_id=ticket.ticket_id,
                    created_at=now,
                    ordinal=0,
                    state=State.OPEN.value,
                    lease_token=0,
                    reasons="",
                )
            )
        b = db.batches
        change = {"total": b.c.total + 1} if following is not None else {"remaining": b.c.remaining - 1}
        c.execute(update(b).where(b.c.batch_id == ticket.batch_id).values(change))
        self._tell_if_drained(c, ticket.batch_id, now)

    def _tell_if_drained(self, c: Connection, batch_id: str, now: float) -> None:
        """Write the outbox row in the transaction that drains the batch, whose row is locked: exactly one does."""
        b = db.batches
        drained = c.execute(
            update(b)
            .where(b.c.batch_id == batch_id, b.c.sealed.is_(True), b.c.remaining == 0, b.c.drained_at.is_(None))
            .values(drained_at=now)
        )
        if drained.rowcount:
            c.execute(insert(db.outbox).values(batch_id=batch_id, created_at=now, not_before=now, attempts=0))

    def _finished(self, c: Connection, ticket: Ticket) -> Finished:
        settled = ticket.verdict if ticket.next_ticket_id is None else None
        drained = self._batch(c, ticket.batch_id).drained
        return Finished(ticket=ticket, next_ticket_id=ticket.next_ticket_id, settled=settled, batch_drained=drained)


def _insert_missing(database: Database, table: Any) -> Any:
    """INSERT … ON CONFLICT DO NOTHING, which each database spells in its own dialect."""
    if database.is_sqlite:
        from sqlalchemy.dialects.sqlite import insert as dialect_insert
    else:
        from sqlalchemy.dialects.postgresql import insert as dialect_insert  # type: ignore[assignment]
    return dialect_insert(table).on_conflict_do_nothing()


def _holds(ticket: Ticket, token: int, person: Person) -> bool:
    return ticket.state is State.LEASED and ticket.lease_token == token and ticket.leased_by == person.name


def _act(outcome: Outcome, *, keep_masklet: bool = False) -> NewOperation:
    """The operation that records an outcome; with the masklet itself where no row of `masklets` will hold it."""
    payload: dict[str, Any] = {"reasons": list(outcome.reasons), "seconds": outcome.seconds}
    if outcome.verdict is not None:
        payload["verdict"] = outcome.verdict.value
    if outcome.masklet is not None:
        payload["masklet_id"] = outcome.masklet.masklet_id
        if keep_masklet:
            payload["masklet"] = MASKLET.dump_python(outcome.masklet, mode="json")
    return NewOperation(
        operation_id=outcome.operation_id,
        kind="submit" if outcome.verdict is None else "verdict",
        created_at=outcome.created_at,
        frame_idx=outcome.frame_idx,
        payload=json.dumps(payload, sort_keys=True),
    )


def _made(masklet: Masklet, ticket: Ticket, person: Person) -> Masklet:
    """The masklet with what the queue knows better than the client that sent it."""
    return replace(
        masklet,
        batch_id=ticket.batch_id,
        kind="manual",
        phase=ticket.phase if ticket.phase != "auto" else masklet.phase,
        parent_id=ticket.masklet_id,
        annotated_by=person.name,
        verdict=None,
        verified_by=None,
    )


def _row_of(ticket: NewTicket, batch_id: str, now: float, ordinal: int) -> dict[str, Any]:
    return {
        "ticket_id": ticket.ticket_id,
        "batch_id": batch_id,
        "kind": ticket.kind.value,
        "video_id": ticket.video_id,
        "masklet_id": None if ticket.masklet is None else ticket.masklet.masklet_id,
        "phase": ticket.phase,
        "priority": ticket.priority,
        "payload": ticket.payload,
        "made_by": None if ticket.masklet is None else ticket.masklet.annotated_by,
        "needs_lead": False,
        "attempt": 1,
        "created_at": now,
        "ordinal": ordinal,
        "state": State.OPEN.value,
        "lease_token": 0,
        "reasons": "",
    }


def _reasons(text: str) -> tuple[Reason, ...]:
    return tuple(Reason(reason) for reason in text.split(",") if reason)


def _ticket(row: Row[Any]) -> Ticket:
    return Ticket(
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        kind=Kind(row.kind),
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        phase=row.phase,
        priority=row.priority,
        payload=row.payload,
        state=State(row.state),
        made_by=row.made_by,
        needs_lead=bool(row.needs_lead),
        attempt=row.attempt,
        previous_ticket_id=row.previous_ticket_id,
        lease_token=row.lease_token,
        leased_by=row.leased_by,
        expires_at=row.expires_at,
        verdict=None if row.verdict is None else Verdict(row.verdict),
        reasons=_reasons(row.reasons),
        finished_by=row.finished_by,
        next_ticket_id=row.next_ticket_id,
    )


def _batch(row: Row[Any] | None) -> Batch:
    assert row is not None
    return Batch(
        batch_id=row.batch_id,
        sealed=bool(row.sealed),
        total=row.total,
        remaining=row.remaining,
        drained=row.drained_at is not None,
    )


def _settled(row: Row[Any]) -> Settled:
    masklet = None
    if row.content is not None:
        masklet = MASKLET.validate_json(row.content)
        masklet = replace(masklet, verdict=row.settled, verified_by=row.finished_by)
    return Settled(
        ticket_id=row.ticket_id,
        video_id=row.video_id,
        verdict=Verdict(row.settled),
        reasons=_reasons(row.reasons),
        decided_by=row.finished_by,
        masklet=masklet,
    )


def _operation(row: Row[Any]) -> Operation:
    return Operation(
        operation_id=row.operation_id,
        ticket_id=row.ticket_id,
        batch_id=row.batch_id,
        video_id=row.video_id,
        masklet_id=row.masklet_id,
        person=row.person,
        kind=row.kind,
        frame_idx=row.frame_idx,
        payload=row.payload,
        created_at=row.created_at,
        seq=row.seq,
    )


def _parse_cursor(after: str | None) -> tuple[str, str, int]:
    part, _, rest = (after or "settled:").partition(":")
    if part == "settled":
        return part, rest, 0
    if part == "operations":
        ticket_id, _, seq = rest.rpartition(":")
        if not rest or seq.isdigit():
            return part, ticket_id, int(seq or 0)
    raise ValueError(f"not a place in a result: {after!r}")
