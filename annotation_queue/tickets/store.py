"""The queue's tickets: `TicketStore` holds the database, the clock and the policy. A write is one transaction.

Knows nothing about HTTP, passwords or files. The rules of each subject are in the other modules of this folder. A
client may repeat every call with the same ids; the second call changes nothing.

A lease has a fencing token, which grows by one at each claim. The lease ends when its holder finishes or releases the
ticket, or at the first claim of any person after it has expired. Until then, a late write of its holder still counts.
A write under an old token raises LeaseLost, and its content is stored as a branch of the ticket.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from annotation_queue import audit
from annotation_queue.database import Database
from annotation_queue.figure_records import QueueFigures
from annotation_queue.records import (
    LEASE_S,
    AppendResult,
    Batch,
    BatchResult,
    FinishResult,
    Gold,
    Kind,
    NewGold,
    NewOperation,
    NewTicket,
    OtherMasklet,
    Person,
    QueuePolicy,
    RecentAnswer,
    ResultPage,
    SettledTicket,
    State,
    Stats,
    Stuck,
    Submission,
    Ticket,
    VideoInfo,
)
from annotation_queue.rules import (
    MAX_OPERATIONS,
    check_frame,
    check_gold,
    check_id,
    check_new_ticket,
    check_operation,
    check_project,
    check_submission,
)
from annotation_queue.tickets import (
    batches,
    claims,
    delivery,
    figures,
    gold,
    instances,
    kept,
    leases,
    masklets,
    objects,
    operations,
    outcomes,
    reading,
    sight,
    takeback,
)
from annotation_queue.tickets.rows import MASKLET, operation_of, to_recent_answer, to_ticket
from annotation_queue.tickets.shown import OwnAnswer
from storage.records import Masklet, Operation

SWEEP_S = 1.0  # at a claim, a process looks for expired leases if it last did so longer ago than this
LOCKED_S = (0.005, 0.02, 0.1)  # waits before a claim retries because every suitable ticket was locked
HEARTBEAT_S = 20.0  # how often a client should send one
GRACE_S = 30.0  # after an outage: longer than HEARTBEAT_S and than the longest wait of a page between two retries


class TicketStore:
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

        grace_s: for this long after opening, this process ends no expired lease, because its holder may have been
        unable to reach a server. GRACE_S is enough.
        """
        self.database = database
        self.lease_s = lease_s
        self.policy = policy or QueuePolicy()
        self.clock = clock
        self._opened, self._grace_s = clock(), grace_s
        self._swept = float("-inf")  # when this process last looked for expired leases

    # --- batches -----------------------------------------------------------------------------------------------

    def open_batch(
        self, batch_id: str, tickets: Iterable[NewTicket] = (), *, sealed: bool = True, project: str = ""
    ) -> Batch:
        """Add tickets to a batch; a missing batch is created, for this project. `sealed`: these were the last tickets.

        Tickets that the batch already has are skipped, so call again after any failure.
        Raises ValueError for a malformed ticket or another project (then nothing is added), BatchSealed for a new
        ticket in a sealed batch.
        """
        check_id(batch_id, "batch_id")
        check_project(project)
        wanted = {ticket.ticket_id: ticket for ticket in tickets}
        for ticket in wanted.values():
            check_new_ticket(ticket)
        with self.database.write() as c:
            return batches.add(c, self.policy, batch_id, wanted, self.clock(), sealed=sealed, project=project)

    def batch(self, batch_id: str, *, seen_by: Person | None = None) -> Batch:
        """The counts of a batch. Raises NoSuchBatch."""
        with self.database.read() as c:
            return batches.read(c, batch_id, seen_by)

    def batches(
        self, *, seen_by: Person | None = None, only: Sequence[str] | None = None, drained: bool | None = None
    ) -> list[Batch]:
        """Every batch, or those of a person's projects, the newest first.

        only: those with these ids; ids without a batch are skipped. drained: whether they are.
        """
        with self.database.read() as c:
            return reading.find_batches(c, seen_by, only, drained)

    def result_page(
        self, batch_id: str, *, after: str | None = None, limit: int = 200, only: Sequence[str] | None = None
    ) -> ResultPage:
        """Up to `limit` decisions or operations of a batch, in a fixed order; `after` is the last page's `next`.

        only: about these videos. Branches (operations that came after their lease was lost) are left out.
        Raises NoSuchBatch; ValueError for an invalid `after`.
        """
        with self.database.read() as c:
            return reading.result_page(c, batch_id, after, limit, only)

    def batch_result(self, batch_id: str) -> BatchResult:
        """Everything that was decided and done in a batch so far. Raises NoSuchBatch."""
        settled: list[SettledTicket] = []
        done: list[Operation] = []
        page = self.result_page(batch_id)
        while True:
            settled += page.settled
            done += page.operations
            if page.next is None:
                return BatchResult(batch=page.batch, settled=tuple(settled), operations=tuple(done))
            page = self.result_page(batch_id, after=page.next)

    def deliver(self, tell: Callable[[str], object]) -> int:
        """Call `tell(batch_id)` for each drained batch that was not delivered yet. See `delivery.deliver`."""
        return delivery.deliver(self.database, self.clock, tell)

    def undelivered(self) -> list[Stuck]:
        """The drained batches whose last delivery failed, the oldest first."""
        with self.database.read() as c:
            return delivery.undelivered(c)

    def add_gold(self, batch_id: str, tickets: Iterable[NewGold], *, by: Person) -> int:
        """Add gold tickets beside a batch; existing ones are skipped. Returns how many are new.

        Raises ValueError for a malformed ticket (then nothing is added), NoSuchBatch.
        """
        wanted, now = list(tickets), self.clock()
        for each in wanted:
            check_gold(each)
        with self.database.write() as c:
            batches.read(c, batch_id, by)
            masklets.add(c, batch_id, [g.ticket.masklet for g in wanted if g.ticket.masklet is not None], now)
            return gold.add(c, batch_id, wanted, by.name, now)

    def gold(self, *, seen_by: Person | None = None) -> list[Gold]:
        """Every gold ticket, or those of a person's projects, with how often people finished it and were right."""
        with self.database.read() as c:
            return gold.all_of(c, seen_by)

    # --- leases ------------------------------------------------------------------------------------------------

    def claim(
        self,
        person: Person,
        kinds: Sequence[Kind] | None = None,
        *,
        claim_id: str,
        ticket_id: str | None = None,
        batch_id: str | None = None,
        project: str | None = None,
    ) -> Ticket | None:
        """Lease the next ticket to `person`, or None if there is no ticket for them.

        kinds: in order of preference; None for every kind that their roles permit.
        claim_id: made by the client; the same id again gives the same ticket while the lease lasts.
        ticket_id, batch_id, project: only this ticket, only tickets of this batch, of this project of theirs.
        Raises NotAllowed if their roles permit none of `kinds`, if they may not have this ticket or project, or if they
        need a warm-up and there is no gold for it; LeaseLost if the lease of this claim has ended; ValueError for an
        invalid id; NoSuchTicket (a lead).
        """
        check_id(claim_id, "claim_id")
        request = claims.asked(
            person, kinds, claim_id=claim_id, ticket_id=ticket_id, batch_id=batch_id, project=project
        )
        for wait_s in (*LOCKED_S, None):
            ticket, again = self._claim(request)
            if not again or wait_s is None:
                return ticket
            time.sleep(wait_s)
        return None

    def _claim(self, request: claims.Request) -> tuple[Ticket | None, bool]:
        """The ticket of a claim, and whether to retry soon."""
        now = self.clock()
        sweeps = not 0 <= now - self._swept < SWEEP_S and not 0 <= now - self._opened < self._grace_s

        def change(c: Connection) -> tuple[Ticket | None, bool]:
            before = leases.given(c, request.person, request.claim_id)
            if before is not None:
                return before, False
            if sweeps:
                leases.return_expired(c, now)
            row, again = claims.claim(c, self.policy, request, now, now + self.lease_s)
            return (None if row is None else to_ticket(row)), again

        claimed = self.database.retry(change)
        if sweeps:
            self._swept = now
        return claimed

    def new_object(self, ticket_id: str, token: int, person: Person, *, claim_id: str) -> Ticket:
        """Open a ticket for another object of a video that `person` is correcting, and lease it to them.

        The same claim_id again gives the same ticket while the lease lasts. Raises LeaseLost; NotAllowed without a
        lease, without a role for track tickets, from a verify ticket, in a warm-up, and if the video has MAX_OBJECTS
        tickets or its batch is drained.
        """
        check_id(claim_id, "claim_id")

        def change(c: Connection) -> Ticket:
            now, ticket = self.clock(), to_ticket(leases.held_once(c, ticket_id, token, person))
            before = leases.given(c, person, claim_id)
            if before is not None:
                return before
            leases.check_held(c, ticket, token, person)
            lease = leases.NewLease(person=person, claim_id=claim_id, now=now, until=now + self.lease_s)
            return objects.open_object(c, self.policy, ticket, lease)

        return self.database.retry(change)

    def held(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """The ticket, if this person holds it under this token. Raises NotAllowed, LeaseLost."""
        with self.database.read() as c:
            ticket = to_ticket(leases.held_once(c, ticket_id, token, person, lock=False))
            leases.check_held(c, ticket, token, person)
        return ticket

    def has_held(self, person: Person, ticket_id: str) -> bool:
        """Whether this person holds or held the ticket."""
        with self.database.read() as c:
            return leases.has_held(c, ticket_id, person)

    def heartbeat(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Keep the lease for another `lease_s`. Raises NotAllowed, LeaseLost."""
        with self.database.write() as c:
            leases.check_held(c, to_ticket(leases.held_once(c, ticket_id, token, person)), token, person)
            return leases.extend(c, ticket_id, self.clock() + self.lease_s)

    def release(self, ticket_id: str, token: int, person: Person) -> Ticket:
        """Return a ticket to the queue; its operations stay. Can be repeated. Raises NotAllowed, LeaseLost."""
        with self.database.write() as c:
            ticket = to_ticket(leases.held_once(c, ticket_id, token, person))
            if ticket.state is State.OPEN and ticket.lease_token == token:
                return ticket
            leases.check_held(c, ticket, token, person)
            return to_ticket(leases.open_again(c, ticket_id))

    def end_lease(self, ticket_id: str, token: int, *, by: Person) -> Ticket:
        """End the lease under this token at once, as if it had expired. The holder may be anybody; the operations stay.

        If that lease has already ended, returns the ticket unchanged. Raises NoSuchTicket.
        """
        with self.database.write() as c:
            sight.check_tickets(c, by, [ticket_id])
            row = leases.lock_ticket(c, ticket_id)
            if row.state != State.LEASED.value or row.lease_token != token:
                return to_ticket(row)
            audit.note(c, self.clock(), by.name, "end lease", ticket_id, {"held_by": row.leased_by})
            leases.end_early(c, ticket_id, token, by)
            return to_ticket(leases.open_again(c, ticket_id))

    # --- work --------------------------------------------------------------------------------------------------

    def append_operations(
        self, ticket_id: str, token: int, person: Person, sent: Sequence[NewOperation]
    ) -> AppendResult:
        """Store the operations of a ticket's holder, in order; operations that are already stored are skipped.

        Raises LeaseLost, after storing the new ones as branches. Raises NotAllowed for a ticket that they never held
        and for a prompt that the ticket's phase does not permit, and ValueError, also for a label that the ticket's
        ontology does not have; in these cases nothing is stored.
        """
        for operation in sent:
            check_operation(operation)
        with self.database.write() as c:
            ticket = to_ticket(leases.held_once(c, ticket_id, token, person))
            known = operations.known(c, ticket, [each.operation_id for each in sent])
            fresh = list({each.operation_id: each for each in sent if each.operation_id not in known}.values())
            instances.check_operations(c, ticket, fresh)
            lost = any(known.values()) or (bool(fresh) and not leases.holds(ticket, token, person))
            sender = operations.Sender(person=person, token=token, now=self.clock(), branch=lost)
            seq = operations.append(c, ticket, sender, fresh)
            if fresh and seq > MAX_OPERATIONS:
                raise ValueError(f"a ticket has at most {MAX_OPERATIONS} operations, not {seq}")
            why = leases.lost(c, ticket_id, token) if lost else None
        if why is not None:
            raise why
        return AppendResult(stored=len(fresh), repeated=len(sent) - len(fresh), seq=seq)

    def finish(
        self,
        ticket_id: str,
        token: int,
        person: Person,
        submission: Submission,
        *,
        video_of: Callable[[str], VideoInfo] | None = None,
    ) -> FinishResult:
        """Finish a ticket and open the next ticket, in one transaction.

        The same `submission.operation_id` again gives the same answer. The masklet that a person made is stored under
        their name, as a manual masklet whose parent is the ticket's masklet. It is built from the ticket's operations,
        or a program sends it. Then only its frames, masks and areas are taken from the client; `sent_masklet` and
        `with_origin` fill in the other fields, also the id.
        The ticket's operations always reproduce its masks: masks that a program made elsewhere are stored in the last
        operation. video_of: size and length of a video; without it, nothing is compared with the video. A
        verdict needs no video: it may have been erased.
        The holder may finish the ticket even if they have lost the role for it in the meantime.
        Raises LeaseLost, after storing the submission as a branch; NotAllowed, if they never held the ticket;
        ValueError.
        """
        now = self.clock()
        with self.database.read() as c:
            ticket = to_ticket(leases.held_once(c, ticket_id, token, person, lock=False))
        check_submission(ticket, submission)
        info = outcomes.video_about(ticket, submission, video_of)
        check_frame(submission.frame_idx, info)
        while True:
            with self.database.read() as c:  # decodes masks, which no writing transaction may do
                row = leases.held_once(c, ticket_id, token, person, lock=False)
                prepared = outcomes.prepare(c, row, person, submission, info)
            with self.database.write() as c:
                row = leases.held_once(c, ticket_id, token, person)
                ticket = to_ticket(row)
                known = operations.known(c, ticket, [submission.operation_id])
                if known.get(submission.operation_id) is False:
                    return outcomes.finished(c, row)
                if leases.holds(ticket, token, person) and not known:
                    if prepared.submission.verdict is None and prepared.submission.masklet is None:
                        raise ValueError(f"ticket {ticket_id} has no operation {submission.last_operation_id}")
                    if operations.last_seq(c, ticket_id) != prepared.seq:
                        continue  # an operation came in the meantime
                    return outcomes.submit(c, self.policy, row, person, prepared, now)
                if not known:
                    operation = operation_of(prepared.submission, keep_masklet=True)
                    sender = operations.Sender(person=person, token=token, now=now, branch=True)
                    operations.append(c, ticket, sender, [operation])
                why = leases.lost(c, ticket_id, token)
            raise why

    def unsubmit(self, ticket_id: str, person: Person, *, operation_id: str, created_at: str) -> Ticket:
        """Take back a person's answer, and lease the ticket to them again.

        Only one of their last RECENT answers can be taken back, and only until the next ticket is claimed. The
        take-back is stored as an operation, which contains the masklet that was made. The same operation_id again gives
        the same ticket while the lease lasts. Raises NotAllowed for another ticket, or if their roles no longer permit
        this one; TooLate; LeaseLost if the lease of this take-back has ended; ValueError.
        """
        check_id(operation_id, "operation_id")
        with self.database.read() as c:
            measured = takeback.measure_again(c, ticket_id, person)

        def change(c: Connection) -> Ticket:
            now = self.clock()
            lease = leases.NewLease(person=person, claim_id=operation_id, now=now, until=now + self.lease_s)
            return takeback.take_back(c, ticket_id, lease, created_at, measured)

        return self.database.retry(change)

    # --- reading -----------------------------------------------------------------------------------------------

    def recent(self, person: Person) -> list[RecentAnswer]:
        """The last RECENT tickets that a person finished, the latest first."""
        with self.database.read() as c:
            return [to_recent_answer(row) for row in reading.recent(c, person)]

    def others(self, ticket_id: str, *, seen_by: Person | None = None) -> list[OtherMasklet]:
        """The other masklets of a ticket's video in its batch, each in its latest version.

        Without rejected masklets and those of other frames, and without those of the ticket's own object, because for
        a gold ticket they would show the answer. For a gold ticket, the verdicts of the others are also left out.

        seen_by: also leaves out other people's masklets of an object, as long as `seen_by` can still take back their
        own masklet of that object.
        Raises NoSuchTicket.
        """
        with self.database.read() as c:
            return reading.others(c, ticket_id, seen_by)

    def own_answer(self, ticket_id: str, person: Person) -> OwnAnswer | None:
        """How a person answered a ticket the last time, or None if they did not."""
        with self.database.read() as c:
            return reading.own_answer(c, ticket_id, person)

    def may_see(self, person: Person, ticket_id: str) -> bool:
        """Whether a person may see a ticket, its masklet and its operations. See `reading.may_see`."""
        with self.database.read() as c:
            return reading.may_see(c, person, ticket_id)

    def may_see_video(self, person: Person, video_id: str) -> bool:
        """Whether a person may see a video. See `reading.may_see_video`."""
        with self.database.read() as c:
            return reading.may_see_video(c, person, video_id)

    def ticket(self, ticket_id: str) -> Ticket:
        """A ticket in its current state. Raises NoSuchTicket."""
        with self.database.read() as c:
            return reading.ticket(c, ticket_id)

    def find(
        self,
        *,
        kind: Kind | None = None,
        state: State | None = None,
        batch_id: str | None = None,
        limit: int = 50,
        seen_by: Person | None = None,
    ) -> list[Ticket]:
        """Up to `limit` tickets, in the order in which claims get them.

        seen_by: only the tickets that this person may see: for overseers those of their projects, otherwise those that
        they hold, by their ids. With a list of what they could claim, they would know gold: it is in no list before it
        is dealt.
        """
        with self.database.read() as c:
            return reading.tickets(c, kind=kind, state=state, batch_id=batch_id, limit=limit, seen_by=seen_by)

    def masklet_json(self, ticket_id: str, *, before: bool = False) -> str:
        """The masklet that a ticket is about, as JSON. before: its parent. Raises NoSuchTicket, NoSuchMasklet."""
        with self.database.read() as c:
            return reading.masklet_json(c, ticket_id, before=before)

    def masklet(self, ticket_id: str) -> Masklet:
        """The masklet that a ticket is about. Raises NoSuchTicket, NoSuchMasklet."""
        return MASKLET.validate_json(self.masklet_json(ticket_id))

    def operations(self, ticket_id: str, *, branch: bool = False) -> list[Operation]:
        """The operations of a ticket, in order. branch: instead, those that came after their lease was lost."""
        with self.database.read() as c:
            return operations.of_ticket(c, ticket_id, branch=branch)

    def branches(self, limit: int = 100, *, seen_by: Person | None = None) -> list[Operation]:
        """The operations (in tickets of `seen_by`) that came after their lease was lost, the latest first."""
        with self.database.read() as c:
            return operations.branches(c, limit, seen_by)

    def kept(self, person: Person) -> list[Operation]:
        """A person's operations that came after their lease was lost, and of which nothing has become yet."""
        with self.database.read() as c:
            return kept.kept(c, person, person)

    def close_kept(self, person: Person, operation_ids: Sequence[str], *, applied: bool) -> int:
        """Note that a person applied such operations again, or dismissed them. Returns how many were open."""
        with self.database.write() as c:
            return kept.close(c, person, operation_ids, applied=applied)

    def stats(self, projects: figures.Projects = None) -> Stats:
        """The queue in numbers; the paces are those of the last hour. An expired lease counts as open."""
        with self.database.read() as c:
            return figures.stats(c, self.clock(), projects)

    def figures(self, projects: figures.Projects = None) -> QueueFigures:
        """The queue in figures, from the rolling sums."""
        with self.database.read() as c:
            return figures.count(c, self.clock(), self.policy, projects)
