"""What leads see and do of all tickets: `Overseeing` is a ticket store for them.

A write is one transaction for each ticket, so that an act on hundreds of tickets makes nobody wait for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from annotation_queue.errors import QueueError
from annotation_queue.leads import acts, browsing, history
from annotation_queue.leads.acts import Act
from annotation_queue.leads.browsing import CardPage, Wanted
from annotation_queue.leads.history import History
from annotation_queue.records import Person
from annotation_queue.tickets import kept, leases, sight
from annotation_queue.tickets.store import TicketStore
from storage.records import Operation


@dataclass(frozen=True, kw_only=True)
class ActResult:
    """What an act did to one ticket."""

    ticket_id: str
    done: bool  # False: it was refused, and nothing has changed
    said: str  # one sentence


@dataclass(frozen=True)
class Overseeing:
    """The queue as its leads work with it."""

    tickets: TicketStore

    def page(self, wanted: Wanted, *, after: str | None = None, limit: int = 60) -> CardPage:
        """Up to `limit` of the wanted tickets; `after` is the last page's `next`. ValueError for an invalid `after`."""
        with self.tickets.database.read() as c:
            return browsing.page(c, wanted, after, limit)

    def history(self, ticket_id: str, *, seen_by: Person) -> History:
        """A ticket with all that is known of it. Raises NoSuchTicket, also for one of another project."""
        with self.tickets.database.read() as c:
            sight.check_tickets(c, seen_by, [ticket_id])
            return history.read(c, ticket_id)

    def kept(self, *, seen_by: Person | None = None) -> list[Operation]:
        """The operations (in tickets of `seen_by`) that came after their lease was lost, and still wait."""
        with self.tickets.database.read() as c:
            return kept.kept(c, None, seen_by)

    def close_kept(self, by: Person, operation_ids: Sequence[str], *, applied: bool) -> int:
        """Note that a lead applied kept work of any person, or dismissed it. Returns how many operations were open."""
        with self.tickets.database.write() as c:
            return kept.close_any(c, by, operation_ids, applied=applied, now=self.tickets.clock())

    def act(self, act: Act, ticket_ids: Iterable[str]) -> list[ActResult]:
        """Do an act to each of these tickets. A refusal of one does not stop the others.

        The same act_id again gives the same results. Raises ValueError for an act without what it needs.
        """
        acts.check(act)
        return [self._act(act, ticket_id) for ticket_id in dict.fromkeys(ticket_ids)]

    def _act(self, act: Act, ticket_id: str) -> ActResult:
        try:
            with self.tickets.database.write() as c:
                sight.check_tickets(c, act.by, [ticket_id])
                row = leases.lock_ticket(c, ticket_id)
                said = acts.do(c, self.tickets.policy, row, act, self.tickets.clock())
        except (QueueError, ValueError) as error:
            return ActResult(ticket_id=ticket_id, done=False, said=str(error))
        return ActResult(ticket_id=ticket_id, done=True, said=said)
