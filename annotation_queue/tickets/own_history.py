"""A person's own finished tickets, the latest first, page by page. The cost of a page does not follow their number."""

from __future__ import annotations

from sqlalchemy import and_, or_, select

from annotation_queue import schema
from annotation_queue.database import Database
from annotation_queue.records import HistoryPage, Person
from annotation_queue.tickets import cursors, sight
from annotation_queue.tickets.rows import to_recent_answer


def page(database: Database, person: Person, *, after: str | None, limit: int) -> HistoryPage:
    """Up to `limit` answers of a person; `after` is the last page's `next`. Raises ValueError if it is invalid."""
    t, le = schema.tickets, schema.leases
    query = select(le, t.c.batch_id, t.c.kind, t.c.video_id).join(t, t.c.ticket_id == le.c.ticket_id)
    query = query.where(le.c.person == person.name, schema.HAS_FINISHED, *sight.within(person, t.c.project))
    if after is not None:
        at, ticket_id = cursors.place(after)
        # both conditions are about `finished_at`, so that the index ends the search
        earlier = or_(le.c.finished_at < at, and_(le.c.finished_at == at, le.c.ticket_id < ticket_id))
        query = query.where(le.c.finished_at <= at, earlier)
    query = query.order_by(le.c.finished_at.desc(), le.c.ticket_id.desc()).limit(limit + 1)
    with database.read() as c:
        rows = c.execute(query).all()
    answers = tuple(to_recent_answer(row) for row in rows[:limit])
    more = cursors.cursor(answers[-1].finished_at, answers[-1].ticket_id) if len(rows) > limit else None
    return HistoryPage(answers=answers, next=more)
