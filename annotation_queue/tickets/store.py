"""The tickets, their leases and what people do in them, in a database.

Knows nothing about HTTP, passwords or files. Every verb is one transaction, and every verb that a client calls can
be repeated with the same ids and changes nothing the second time.

A lease is held under a fencing token, one more at each claim. It ends when its holder finishes or releases the
ticket, or when somebody asks for work after it has expired; until then a late write of its holder still counts.
A write under a token that is over raises LeaseLost, and what it carried is kept beside the ticket as a branch.

Who gets what is decided in the one statement of `claims.py`: a person's own reserved tickets first (rework, gold), then
those of their lanes by priority and age. What an answer leads to is decided in `answers.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import IntegrityError

from annotation_queue import audit, schema
from annotation_queue import database as db
from annotation_queue.database import Database
from annotation_queue.errors import BatchSealed, LeaseLost, NoSuchMasklet, NoSuchTicket, NotAllowed, TooLate
from annotation_queue.records import (
    Appended,
    Batch,
    BatchResult,
    Finished,
    Gold,
    Kind,
    NewGold,
    NewOperation,
    NewTicket,
    Other,
    Person,
    QueueFigures,
    QueuePolicy,
    Recent,
    ResultPage,
    Role,
    Settled,
    State,
    Stats,
    Submission,
    Ticket,
)
from annotation_queue.rules import (
    HANDED_OUT,
    OVERSEERS,
    check_id,
    check_new_ticket,
    check_operation,
    check_submission,
    kinds_of,
    lanes_of,
    why_not,
)
from annotation_queue.tickets import figures, gold, outcomes, tallies
from annotation_queue.tickets.claims import RETURN_EXPIRED, claiming, not_barred, waiting
from annotation_queue.tickets.rows import (
    MASKLET,
    act_of,
    holds,
    parse_cursor,
    row_of,
    to_batch,
    to_operation,
    to_recent,
    to_settled,
    to_ticket,
)
from storage.records import Masklet, Operation, Verdict, content_id

T = TypeVar("T")

LEASE_S = 90.0  # a lease ends this long after its last heartbeat
SWEEP_S = 1.0  # how often a process looks for leases that are over, at a claim
LOCKED_S = (
    0.005,
    0.02,
    0.1,
)  # how long a claim waits for others, which locked all that there is, before it looks again
HEARTBEAT_S = 20.0  # how often a client should send one
GRACE_S = 30.0  # after an outage: longer than a heartbeat and the longest wait of a page that looks for the queue
DELIVERY_S = 300.0  # how long one delivery of a drained batch may take before another process tries
RETRY_S = (1.0, 5.0, 30.0, 60.0)  # waits between deliveries that failed; the last one repeats
MAX_OBJECTS = 1000  # tickets that people may bring a video to in a batch: nobody fills the queue by leaning on a key
RECENT = 10  # finished tickets that a person may look at again and take back

# Statements of every claim and finish: building one takes longer than running it.
_GIVEN = select(schema.leases).where(
    schema.leases.c.person == bindparam("person"), schema.leases.c.claim_id == bindparam("claim_id")
)
_HELD_ONCE = (  # one statement and one lock, on the ticket only
    select(schema.tickets)
    .join(schema.leases, schema.leases.c.ticket_id == schema.tickets.c.ticket_id)
    .where(
        schema.leases.c.ticket_id == bindparam("ticket_id"),
        schema.leases.c.token == bindparam("token"),
        schema.leases.c.person == bindparam("person"),
    )
)
_LOCK_HELD_ONCE = _HELD_ONCE.with_for_update(of=schema.tickets)
_END_LEASE = update(schema.leases).where(
    schema.leases.c.ticket_id == bindparam("of_ticket"), schema.leases.c.token == bindparam("of_token")
)
_KNOWN_OPERATIONS = select(
    schema.operations.c.operation_id, schema.operations.c.ticket_id, schema.operations.c.branch
).where(schema.operations.c.operation_id.in_(bindparam("ids", expanding=True)))
_LAST_OPERATION = select(func.max(schema.operations.c.seq)).where(
    schema.operations.c.ticket_id == bindparam("ticket_id")
)


class Store:
    """The queue in one database; safe to share between threads, and between processes by opening one each."""

    def __init__(
        self,
        database: Database,
        *,
        lease_s: float = LEASE_S,
        policy: QueuePolicy | None = None,
        clock: Callable[[], float] = time.time,
        grace_s: float = 0.0,
    ) -> None:
        """clock: s since the epoch; processes that share a database must agree on it to within a few seconds.

        grace_s: for how long this process, once opened, ends no lease that has run out: whoever holds one may only
        have had no server to renew it at. GRACE_S is enough.
        """
        self.database = database
        self.lease_s = lease_s
        self.policy = policy or QueuePolicy()
        self._clock = clock
        self._opened, self._grace_s = clock(), grace_s
        self._swept = float("-inf")  # when this process last looked for leases that are over

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
            row = outcomes.lock_batch(c, batch_id)
            if row is None:
                new = {"batch_id": batch_id, "created_at": now, "sealed": False, "total": 0, "remaining": 0}
                db.insert_missing(c, schema.batches, [new])
                row = outcomes.lock_batch(c, batch_id)
                assert row is not None
            there: dict[str, str] = {}
            ids = list(wanted)
            for start in range(0, len(ids), 500):
                query = select(schema.tickets.c.ticket_id, schema.tickets.c.batch_id)
                found = c.execute(query.where(schema.tickets.c.ticket_id.in_(ids[start : start + 500])))
                there |= {ticket_id: owner for ticket_id, owner in found}
            if strangers := [ticket_id for ticket_id, owner in there.items() if owner != batch_id]:
                raise ValueError(f"ticket {strangers[0]} belongs to batch {there[strangers[0]]}")
            fresh = [ticket for ticket_id, ticket in wanted.items() if ticket_id not in there]
            if fresh and row.sealed:
                raise BatchSealed(f"batch {batch_id} is sealed: {len(fresh)} new tickets were refused")
            if contents := [ticket.masklet for ticket in fresh if ticket.masklet is not None]:
                outcomes.keep_masklets(c, batch_id, contents, now)
            if fresh:
                rows = [row_of(ticket, batch_id, now, row.total + i, self.policy) for i, ticket in enumerate(fresh)]
                c.execute(insert(schema.tickets), rows)
            counts = {"total": row.total + len(fresh), "remaining": row.remaining + len(fresh)}
            c.execute(
                update(schema.batches)
                .where(schema.batches.c.batch_id == batch_id)
                .values(sealed=bool(row.sealed or sealed), **counts)
            )
            outcomes.tell_if_drained(c, batch_id, now)
            tallies.add(c, tallies.added(rows if fresh else []))
            return to_batch(outcomes.lock_batch(c, batch_id))

    def batch(self, batch_id: str) -> Batch:
        """The counts of a batch. Raises NoSuchBatch."""
        with self.database.read() as c:
            return outcomes.read_batch(c, batch_id)

    def batches(self) -> list[Batch]:
        """Every batch, the newest first."""
        with self.database.read() as c:
            query = select(schema.batches).order_by(schema.batches.c.created_at.desc(), schema.batches.c.batch_id)
            return [to_batch(row) for row in c.execute(query)]

    def drained_batches(self) -> list[str]:
        """The ids of the batches with nothing left to do, in the order in which they became so."""
        with self.database.read() as c:
            query = select(schema.batches.c.batch_id).where(schema.batches.c.drained_at.is_not(None))
            return list(c.scalars(query.order_by(schema.batches.c.drained_at, schema.batches.c.batch_id)))

    def result_page(self, batch_id: str, *, after: str | None = None, limit: int = 200) -> ResultPage:
        """Up to `limit` decisions or operations of a batch, in a fixed order; `after` is the last page's `next`.

        Operations that came too late (branches) are not in it. Raises NoSuchBatch; ValueError for a strange `after`.
        """
        part, ticket_id, seq = parse_cursor(after)
        with self.database.read() as c:
            batch = outcomes.read_batch(c, batch_id)
            if part == "settled":
                t = schema.tickets
                query = (
                    select(t, schema.masklets.c.content)
                    .select_from(
                        t.outerjoin(
                            schema.masklets,
                            and_(
                                schema.masklets.c.batch_id == t.c.batch_id,
                                schema.masklets.c.masklet_id == t.c.masklet_id,
                            ),
                        )
                    )
                    .where(t.c.batch_id == batch_id, t.c.settled.is_not(None), t.c.ticket_id > ticket_id)
                    .order_by(t.c.ticket_id)
                    .limit(limit)
                )
                settled = tuple(to_settled(row) for row in c.execute(query))
                more = f"settled:{settled[-1].ticket_id}" if len(settled) == limit else "operations:"
                return ResultPage(batch=batch, settled=settled, operations=(), next=more)
            o = schema.operations
            query = (
                select(o)
                .where(o.c.batch_id == batch_id, o.c.branch.is_(False))
                .where(o.c.ticket_id.not_in(select(schema.tickets.c.ticket_id).where(schema.IS_GOLD)))
                .where((o.c.ticket_id > ticket_id) | ((o.c.ticket_id == ticket_id) & (o.c.seq > seq)))
                .order_by(o.c.ticket_id, o.c.seq)
                .limit(limit)
            )
            done = tuple(to_operation(row) for row in c.execute(query))
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

    def add_gold(self, batch_id: str, tickets: Iterable[NewGold], *, by: Person) -> int:
        """Add gold tickets beside a batch; those that are there are left as they are. Returns how many are new.

        Raises ValueError for one that is malformed (none is added then), NoSuchBatch.
        """
        wanted, now = list(tickets), self._clock()
        with self.database.write() as c:
            outcomes.read_batch(c, batch_id)
            known = [g.ticket.masklet for g in wanted if g.ticket.masklet is not None]
            outcomes.keep_masklets(c, batch_id, known, now)
            return gold.add(c, batch_id, wanted, by.name, now)

    def gold(self) -> list[Gold]:
        """Every gold ticket, with how people did."""
        with self.database.read() as c:
            return gold.all_of(c)

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
        Raises NotAllowed if no role of theirs permits any of `kinds`, if they cannot have this ticket, if a warm-up
        keeps them from any; LeaseLost if the lease that this claim gave is over; ValueError for a bad id; NoSuchTicket
        (a lead).
        """
        check_id(claim_id, "claim_id")
        waits = iter(LOCKED_S)
        while True:
            ticket, locked = _once(lambda: self._claim(person, kinds, claim_id, ticket_id, batch_id))
            wait_s = next(waits, None)
            if not locked or wait_s is None:
                return ticket
            time.sleep(wait_s)

    def _claim(
        self,
        person: Person,
        kinds: Sequence[Kind] | None,
        claim_id: str,
        ticket_id: str | None,
        batch_id: str | None,
    ) -> tuple[Ticket | None, bool]:
        """What `claim` gives, and whether there was none only because every ticket was locked by other claims."""
        allowed = kinds_of(person.roles)
        wanted = [kind for kind in (kinds if kinds is not None else HANDED_OUT) if kind in allowed]
        if not wanted:
            raise NotAllowed(f"{person.name} has no role for {', '.join(kinds) if kinds else 'any'} tickets")
        now = self._clock()
        sweeps = not 0 <= now - self._swept < SWEEP_S and not 0 <= now - self._opened < self._grace_s
        with self.database.write() as c:
            before = self._given(c, person, claim_id)
            if before is not None:
                return before, False
            if sweeps:
                c.execute(RETURN_EXPIRED, {"claim_now": now})
            only_gold = False
            if ticket_id is None:
                only_gold, dealt = gold.deal(c, self.policy, person, wanted, batch_id, now)
                wanted = [*dealt, *(kind for kind in wanted if kind not in dealt)]
            else:
                self._check_trained(c, person)
            lead = Role.LEAD in person.roles
            chooses = ticket_id is None or lead or not self._led_to(c, person, ticket_id)
            how = (tuple(lanes_of(person)), lead, ticket_id is not None, batch_id is not None, only_gold)
            given = {"claim_ticket": ticket_id, "claim_batch": batch_id, "claim_now": now}
            given |= {"claim_person": person.name, "claim_until": now + self.lease_s}
            row, locked = None, False
            for kind in wanted if chooses else []:
                row = c.execute(claiming(kind, *how), given | {"claim_kind": kind.value}).first()
                if row is not None:
                    self._note_lease(c, row, person, claim_id, now)
                    break
            if row is None and chooses and not self.database.is_sqlite:
                locked = any(c.scalar(waiting(kind, *how), given | {"claim_kind": kind.value}) for kind in wanted)
            if row is None and ticket_id is not None and not locked:
                self._refuse(c, person, ticket_id)
        if sweeps:
            self._swept = now
        return (None if row is None else to_ticket(row)), locked

    def _led_to(self, c: Connection, person: Person, ticket_id: str) -> bool:
        """Whether an answer of this person led to a ticket; nothing is there where an answer to gold would have."""
        t, le = schema.tickets, schema.leases
        mine = select(le.c.ticket_id).where(le.c.person == person.name, schema.HAS_FINISHED)
        query = select(t.c.ticket_id).where(t.c.ticket_id.in_(mine), t.c.next_ticket_id == ticket_id)
        return c.execute(query.limit(1)).first() is not None

    def _refuse(self, c: Connection, person: Person, ticket_id: str) -> None:
        """Why a person does not get the ticket that they asked for, if they may know; nothing: somebody else has it."""
        if Role.LEAD not in person.roles:  # whether there is one or not, as nothing follows from gold
            raise NotAllowed(f"ticket {ticket_id} is not to be had by {person.name}")
        if refusal := why_not(person, to_ticket(outcomes.lock_ticket(c, ticket_id))):
            raise NotAllowed(refusal)

    def _given(self, c: Connection, person: Person, claim_id: str) -> Ticket | None:
        """What a claim gave when it came before, or None. Raises LeaseLost if that lease is over."""
        lease = c.execute(_GIVEN, {"person": person.name, "claim_id": claim_id}).first()
        if lease is None:
            return None
        ticket = to_ticket(outcomes.lock_ticket(c, lease.ticket_id))
        if not holds(ticket, lease.token, person):
            raise LeaseLost(f"the lease that claim {claim_id} gave is over")
        return ticket

    def _note_lease(self, c: Connection, row: Row[Any], person: Person, claim_id: str, now: float) -> None:
        lease = {"ticket_id": row.ticket_id, "token": row.lease_token, "claimed_at": now}
        c.execute(insert(schema.leases), lease | {"person": person.name, "claim_id": claim_id})

    def new_object(self, ticket_id: str, token: int, person: Person, *, claim_id: str) -> Ticket:
        """Open a ticket for another object of a video that `person` is correcting, and lease it to them.

        The same claim_id again gives the same ticket while the lease lasts. Raises LeaseLost; NotAllowed without a
        lease, without a role for track tickets, from a verify ticket, in a warm-up, and where the video has
        MAX_OBJECTS tickets or its batch is done.
        """
        check_id(claim_id, "claim_id")
        return _once(lambda: self._new_object(ticket_id, token, person, claim_id))

    def _new_object(self, ticket_id: str, token: int, person: Person, claim_id: str) -> Ticket:
        now = self._clock()
        t, b = schema.tickets, schema.batches
        with self.database.write() as c:
            ticket = to_ticket(self._held_once(c, ticket_id, token, person))
            before = self._given(c, person, claim_id)
            if before is not None:
                return before
            _check_held(ticket, token, person)
            if ticket.kind is Kind.VERIFY:
                raise NotAllowed("a new object begins in a ticket that is corrected or selected")
            if Kind.TRACK not in kinds_of(person.roles):
                raise NotAllowed(f"{person.name} has no role for {Kind.TRACK} tickets")
            self._check_trained(c, person)
            batch = outcomes.lock_batch(c, ticket.batch_id)
            assert batch is not None
            same = (t.c.batch_id == ticket.batch_id) & (t.c.video_id == ticket.video_id)
            full = (c.scalar(select(func.count()).where(same)) or 0) >= MAX_OBJECTS
            if full or batch.drained_at is not None:  # one answer: only gold is left of a batch that is done
                raise NotAllowed(f"video {ticket.video_id} takes no further object in this batch")
            rules = {key: value for key, value in json.loads(ticket.payload).items() if key != "pinned"}
            rules["begun_by"] = person.name
            new = NewTicket(
                ticket_id=content_id(ticket_id, claim_id),
                kind=Kind.TRACK,
                video_id=ticket.video_id,
                phase=ticket.phase,
                priority=ticket.priority,
                payload=json.dumps(rules),
                skill=ticket.skill,
            )
            lease = {"state": State.LEASED.value, "leased_by": person.name, "lease_token": 1}
            values = row_of(new, ticket.batch_id, now, batch.total, self.policy) | lease
            row = c.execute(insert(t).values(**values, expires_at=now + self.lease_s).returning(t)).one()
            counts = {"total": b.c.total + 1, "remaining": b.c.remaining + 1}
            c.execute(update(b).where(b.c.batch_id == ticket.batch_id).values(counts))
            self._note_lease(c, row, person, claim_id, now)
            tallies.add(c, tallies.added([values]))
            return to_ticket(row)

    def held(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """The ticket, for who holds it under this token. Raises NotAllowed, LeaseLost."""
        with self.database.read() as c:
            ticket = to_ticket(self._held_once(c, ticket_id, token, person, lock=False))
        _check_held(ticket, token, person)
        return ticket

    def heartbeat(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Keep the lease for another `lease_s`. Raises NotAllowed, LeaseLost."""
        with self.database.write() as c:
            ticket = to_ticket(self._held_once(c, ticket_id, token, person))
            _check_held(ticket, token, person)
            until = self._clock() + self.lease_s
            query = update(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id).values(expires_at=until)
            return to_ticket(c.execute(query.returning(schema.tickets)).one())

    def release(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Give the ticket back; its operations stay. Again: nothing. Raises NotAllowed, LeaseLost."""
        with self.database.write() as c:
            ticket = to_ticket(self._held_once(c, ticket_id, token, person))
            if ticket.state is State.OPEN and ticket.lease_token == token:
                return ticket
            _check_held(ticket, token, person)
            return to_ticket(outcomes.open_again(c, ticket_id))

    def end_lease(self, ticket_id: str, token: int, *, by: Person) -> Ticket:
        """End the lease under this token at once, whoever holds it, as if it had run out: what was done stays.

        The ticket as it stands, if that lease is over already. Raises NoSuchTicket.
        """
        with self.database.write() as c:
            row = outcomes.lock_ticket(c, ticket_id)
            if row.state != State.LEASED.value or row.lease_token != token:
                return to_ticket(row)
            audit.note(c, self._clock(), by.name, "end lease", ticket_id, {"held_by": row.leased_by})
            return to_ticket(outcomes.open_again(c, ticket_id))

    def append_operations(
        self, ticket_id: str, token: int, person: Person, operations: Sequence[NewOperation]
    ) -> Appended:
        """Keep what the holder of a ticket did, in order; operations that are there already are skipped.

        Raises LeaseLost, after keeping what is new as a branch; NotAllowed for a ticket that they never held and for a
        prompt that the ticket's phase does not permit; ValueError. After the last two nothing is kept.
        """
        with self.database.write() as c:
            ticket = to_ticket(self._held_once(c, ticket_id, token, person))
            known = self._known_operations(c, ticket, [o.operation_id for o in operations])
            fresh = list({o.operation_id: o for o in operations if o.operation_id not in known}.values())
            for operation in fresh:
                check_operation(ticket, operation)
            lost = any(known.values()) or (bool(fresh) and not holds(ticket, token, person))
            seq = self._append(c, ticket, token, person, fresh, branch=lost)
        if lost:
            raise LeaseLost()
        return Appended(stored=len(fresh), repeated=len(operations) - len(fresh), seq=seq)

    def finish(self, ticket_id: str, token: int, person: Person, outcome: Submission) -> Finished:
        """Finish a ticket and open the one that follows from it, in one transaction.

        The same `outcome.operation_id` again gives the same answer. What a person made is kept under their name,
        as a manual masklet whose parent is the one that the ticket was about. Its masks always follow from the
        ticket's operations: those that do not, of a program that made them elsewhere, are kept in the last one.
        Who holds a ticket may finish it, although the role for it was taken away meanwhile.
        Raises LeaseLost, after keeping the outcome as a branch; NotAllowed, if they never held the ticket; ValueError.
        """
        now = self._clock()
        with self.database.write() as c:
            row = self._held_once(c, ticket_id, token, person)
            ticket = to_ticket(row)
            check_submission(ticket, outcome)
            known = self._known_operations(c, ticket, [outcome.operation_id])
            if known.get(outcome.operation_id) is False:
                return outcomes.finished(c, row)
            if holds(ticket, token, person) and not known:
                is_gold = row.gold_id is not None
                unlike = {} if outcome.masklet is None else outcomes.unlike(c, row, outcome.masklet)
                act = act_of(outcome, keep_masklet=is_gold, beside=unlike)
                self._append(c, ticket, token, person, [act], branch=False)
                self._end_lease(c, ticket, token, outcome, now)
                if not is_gold:
                    return outcomes.answer(c, self.policy, row, person, outcome, now)
                gold.close(c, row, self.policy, outcome, person.name, now)
                return outcomes.finished(c, outcomes.lock_ticket(c, ticket_id))
            if not known:
                self._append(c, ticket, token, person, [act_of(outcome, keep_masklet=True)], branch=True)
        raise LeaseLost()

    def unsubmit(self, ticket_id: str, person: Person, *, operation_id: str, created_at: str) -> Ticket:
        """Take back what a person finished, and lease the ticket to them again.

        Only of their last RECENT tickets, and while nobody touched what followed. The take-back is an operation; a
        masklet that was made is kept in it. The same operation_id again gives the same ticket while the lease lasts.
        Raises NotAllowed for a ticket that is not among those, or not for their roles any more; TooLate; LeaseLost if
        the lease that this take-back gave is over; ValueError.
        """
        check_id(operation_id, "operation_id")
        return _once(lambda: self._unsubmit(ticket_id, person, operation_id, created_at))

    def _unsubmit(self, ticket_id: str, person: Person, operation_id: str, created_at: str) -> Ticket:
        now = self._clock()
        t, le = schema.tickets, schema.leases
        with self.database.write() as c:
            row = c.execute(outcomes.LOCK_TICKET, {"ticket_id": ticket_id}).first()
            again = self._given(c, person, operation_id)
            if again is not None:
                if again.ticket_id != ticket_id:
                    raise ValueError(f"{operation_id} took back another ticket")
                return again
            mine = next((r for r in self._recent(c, person) if r.ticket_id == ticket_id), None)
            if row is None or mine is None:
                raise NotAllowed(f"ticket {ticket_id} is not among the last {RECENT} that {person.name} finished")
            ticket = to_ticket(row)
            if refusal := why_not(person, ticket):  # their roles are others now
                raise NotAllowed(refusal)
            if self._known_operations(c, ticket, [operation_id]):
                raise ValueError(f"operation {operation_id} is another one's")
            if ticket.state is State.LEASED:
                raise TooLate("somebody else holds this ticket now")
            lost, made = ([], None) if row.gold_id is not None else outcomes.take_back(c, row, mine)
            ended = le.update().where(le.c.ticket_id == ticket_id, le.c.token == mine.token)
            c.execute(ended.values(finished_at=None, verdict=None, reasons=None, seconds=None, masklet_id=None))
            nothing = (
                "verdict",
                "finished_by",
                "finished_at",
                "seconds",
                "next_ticket_id",
                "settled",
                "right",
                "score",
            )
            back = c.execute(
                update(t)
                .where(t.c.ticket_id == ticket_id)
                .values(
                    **dict.fromkeys(nothing),
                    reasons="",
                    state=State.LEASED.value,
                    leased_by=person.name,
                    lease_token=t.c.lease_token + 1,
                    expires_at=now + self.lease_s,
                )
                .returning(t)
            ).one()
            self._note_lease(c, back, person, operation_id, now)
            said = {"verdict": mine.verdict} | ({} if made is None else {"masklet": json.loads(made)})
            payload = json.dumps(said, sort_keys=True)
            act = NewOperation(operation_id=operation_id, kind="unsubmit", created_at=created_at, payload=payload)
            self._append(c, ticket, back.lease_token, person, [act], branch=False)
            audit.note(c, now, person.name, "unsubmit", ticket_id, {"verdict": mine.verdict})
            tallies.add(c, lost)
            return to_ticket(back)

    def recent(self, person: Person) -> list[Recent]:
        """The last RECENT tickets that a person finished, the latest first."""
        with self.database.read() as c:
            return [to_recent(row) for row in self._recent(c, person)]

    def others(self, ticket_id: str, *, seen_by: Person | None = None) -> list[Other]:
        """The other masklets of a ticket's video in its batch, as far as they have come; rejected ones are left out,
        and so is whatever is of the ticket's own object: of gold that would be the answer. Nor does gold say what is
        settled.

        seen_by: without what another one made of an object, while this person can still take back theirs of it.
        Raises NoSuchTicket.
        """
        ticket = self.ticket(ticket_id)
        t, m, le = schema.tickets, schema.masklets, schema.leases
        ends = t.c.next_ticket_id.is_(None) & (t.c.settled.is_(None) | (t.c.settled != Verdict.REJECT.value))
        query = (
            select(t.c.settled, m.c.content)
            .select_from(t.join(m, and_(m.c.batch_id == t.c.batch_id, m.c.masklet_id == t.c.masklet_id)))
            .where(t.c.batch_id == ticket.batch_id, t.c.video_id == ticket.video_id, t.c.ticket_id != ticket_id)
            .where(ends, t.c.gold_id.is_(None))
            .order_by(t.c.ordinal, t.c.ticket_id)
        )
        if seen_by is not None:
            before = schema.tickets.alias()
            theirs = select(before.c.ticket_id).join(le, le.c.ticket_id == before.c.ticket_id)
            theirs = theirs.where(before.c.video_id == ticket.video_id, before.c.object_id.is_not(None))
            theirs = theirs.where(le.c.person == seen_by.name, schema.HAS_FINISHED)
            untouched = func.coalesce(t.c.previous_ticket_id, "").in_(theirs) & (t.c.lease_token == 0)
            query = query.where(t.c.made_by.is_(None) | (t.c.made_by == seen_by.name) | ~untouched)
        with self.database.read() as c:
            rows = [(row.settled, MASKLET.validate_json(row.content)) for row in c.execute(query)]
            is_gold, truth = gold.known_of(c, ticket_id)
            own = [ticket.masklet_id, *((truth.masklet_id, truth.parent_id) if truth else ())]
            origins = {outcomes.origin(c, ticket.batch_id, masklet_id) for masklet_id in own if masklet_id is not None}
            found = [
                (settled, masklet)
                for settled, masklet in rows
                if masklet.masklet_id not in origins
                and (masklet.parent_id is None or outcomes.origin(c, ticket.batch_id, masklet.parent_id) not in origins)
            ]
        return [
            Other(
                masklet_id=masklet.masklet_id,
                settled=None if settled is None or is_gold else Verdict(settled),
                frame_idx=masklet.frame_idx,
                rle=masklet.rle,
                score=masklet.score,
            )
            for settled, masklet in found
        ]

    def branches(self, limit: int = 100) -> list[Operation]:
        """What came after its lease was lost, in any ticket, the latest first."""
        o = schema.operations
        with self.database.read() as c:
            query = select(o).where(o.c.branch.is_(True)).order_by(o.c.received_at.desc(), o.c.seq.desc()).limit(limit)
            return [to_operation(row) for row in c.execute(query)]

    def may_see(self, person: Person, ticket_id: str) -> bool:
        """Whether a person may see a ticket, its masklet and what was done in it: while they hold it, once they have
        finished it, and overseers always.
        """
        if person.roles & OVERSEERS:
            return True
        t, le = schema.tickets, schema.leases
        held = select(t.c.ticket_id).where(t.c.ticket_id == ticket_id, schema.IS_LEASED, t.c.leased_by == person.name)
        done = select(le.c.ticket_id).where(
            le.c.ticket_id == ticket_id, le.c.person == person.name, schema.HAS_FINISHED
        )
        with self.database.read() as c:
            return c.execute(union_all(held, done).limit(1)).first() is not None

    def may_see_video(self, person: Person, video_id: str) -> bool:
        """Whether a person may see a video: one of a ticket that they hold or finished lately; overseers every one."""
        if person.roles & OVERSEERS:
            return True
        t = schema.tickets
        held = select(t.c.ticket_id).where(schema.IS_LEASED, t.c.leased_by == person.name, t.c.video_id == video_id)
        with self.database.read() as c:
            if c.execute(held.limit(1)).first() is not None:
                return True
            return any(row.video_id == video_id for row in self._recent(c, person))

    def ticket(self, ticket_id: str) -> Ticket:
        """A ticket as it stands. Raises NoSuchTicket."""
        with self.database.read() as c:
            row = c.execute(select(schema.tickets).where(schema.tickets.c.ticket_id == ticket_id)).first()
        if row is None:
            raise NoSuchTicket(f"no ticket {ticket_id}")
        return to_ticket(row)

    def tickets(
        self,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        limit: int = 50,
        seen_by: Person | None = None,
    ) -> list[Ticket]:
        """Up to `limit` tickets in the order in which they are handed out.

        seen_by: only what this person may see: all for overseers, else what they hold or could be handed.
        """
        t = schema.tickets
        query = select(t).order_by(t.c.priority.desc(), t.c.created_at, t.c.ordinal, t.c.ticket_id).limit(limit)
        if kind is not None:
            query = query.where(t.c.kind == kind.value)
        if state is not None:
            query = query.where(schema.IS_OPEN if state is State.OPEN else t.c.state == state.value)
        if batch_id is not None:
            query = query.where(t.c.batch_id == batch_id)
        if seen_by is not None and not seen_by.roles & OVERSEERS:
            free = t.c.reserved_for.is_(None) | (t.c.reserved_until < self._clock())
            lane = (free & t.c.lane.in_(lanes_of(seen_by))) | (t.c.reserved_for == seen_by.name)
            could = [
                and_(schema.IS_OPEN, t.c.kind == may.value, lane, *not_barred(literal(seen_by.name), may, lead=False))
                for may in sorted(kinds_of(seen_by.roles))
            ]
            le = schema.leases
            mine = select(le.c.ticket_id).where(le.c.person == seen_by.name, schema.HAS_FINISHED)
            followed = t.c.previous_ticket_id.is_(None) | t.c.previous_ticket_id.not_in(mine)  # nothing does from gold
            query = query.where(or_(schema.IS_LEASED & (t.c.leased_by == seen_by.name), followed & or_(*could)))
        with self.database.read() as c:
            return [to_ticket(row) for row in c.execute(query)]

    def masklet_json(self, ticket_id: str) -> str:
        """The masklet that a ticket is about, as JSON of its record. Raises NoSuchTicket, NoSuchMasklet."""
        ticket = self.ticket(ticket_id)
        m = schema.masklets
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
        o = schema.operations
        with self.database.read() as c:
            query = select(o).where(o.c.ticket_id == ticket_id, o.c.branch.is_(branch)).order_by(o.c.seq)
            return [to_operation(row) for row in c.execute(query)]

    def stats(self) -> Stats:
        """The queue in numbers; the paces are those of the last hour. An expired lease counts as open."""
        with self.database.read() as c:
            return figures.stats(c, self._clock())

    def figures(self) -> QueueFigures:
        """The queue in figures, from the rolling sums."""
        with self.database.read() as c:
            return figures.count(c, self._clock())

    # --- the outbox --------------------------------------------------------------------------------------------

    def deliver(self, tell: Callable[[str], object]) -> int:
        """Call `tell(batch_id)` for each drained batch that nobody was told of; return how many were delivered.

        A batch is told once: it is marked before this returns, and two processes never tell the same one at the
        same time. After a failure of `tell` it is tried again later; only a process killed between the end of
        `tell` and the mark makes `tell` run twice, so let it be harmless.
        """
        told = 0
        o = schema.outbox
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

    def _held_once(self, c: Connection, ticket_id: str, token: int, person: Person, *, lock: bool = True) -> Row[Any]:
        """A ticket, for who holds it or did. NotAllowed else, whether there is one or not: nothing follows from gold,
        and who never held a ticket is told nothing about it.
        """
        key = {"ticket_id": ticket_id, "token": token, "person": person.name}
        row = c.execute(_LOCK_HELD_ONCE if lock else _HELD_ONCE, key).first()
        if row is None:
            raise NotAllowed(f"{person.name} never held ticket {ticket_id} under token {token}")
        return row

    def _check_trained(self, c: Connection, person: Person) -> None:
        if not gold.is_trained(c, self.policy, person):
            raise NotAllowed(f"{person.name} has a warm-up to finish before choosing tickets")

    def _known_operations(self, c: Connection, ticket: Ticket, ids: Sequence[str]) -> dict[str, bool]:
        """Those of `ids` that are stored, with whether they are a branch; ValueError if another ticket has one."""
        rows = c.execute(_KNOWN_OPERATIONS, {"ids": ids}).all()
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
        seq = c.scalar(_LAST_OPERATION, {"ticket_id": ticket.ticket_id}) or 0
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
        c.execute(insert(schema.operations), rows)
        return int(seq) + len(rows)

    def _recent(self, c: Connection, person: Person) -> Sequence[Row[Any]]:
        t, le = schema.tickets, schema.leases
        about = select(le, t.c.batch_id, t.c.kind, t.c.video_id).join(t, t.c.ticket_id == le.c.ticket_id)
        mine = about.where(le.c.person == person.name, schema.HAS_FINISHED)
        return c.execute(mine.order_by(le.c.finished_at.desc(), le.c.claimed_at.desc()).limit(RECENT)).all()

    def _end_lease(self, c: Connection, ticket: Ticket, token: int, outcome: Submission, now: float) -> None:
        said = {"verdict": outcome.verdict, "reasons": ",".join(outcome.reasons), "seconds": outcome.seconds}
        said["masklet_id"] = None if outcome.masklet is None else outcome.masklet.masklet_id
        c.execute(_END_LEASE, said | {"of_ticket": ticket.ticket_id, "of_token": token, "finished_at": now})


def _check_held(ticket: Ticket, token: int, person: Person) -> None:
    if not holds(ticket, token, person):
        raise LeaseLost()


def _once(change: Callable[[], T]) -> T:
    """What `change` gives. Where the same request arrives twice at once, one of them finds the other's answer."""
    try:
        return change()
    except IntegrityError:
        return change()
