"""Columns about verdicts and leases, the maker of gold, work that came late, and a person's keys."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = {
    "leases": [sa.Column("watched", sa.Float), sa.Column("ended_by", sa.String)],
    "gold": [sa.Column("made_by", sa.String)],
    "operations": [sa.Column("closed", sa.String)],
    "people": [sa.Column("keys", sa.Text)],
}


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    for table, columns in COLUMNS.items():
        known = {column["name"] for column in found.get_columns(table)}
        for column in columns:
            if column.name not in known:
                op.add_column(table, column)
    o = sa.table("operations", sa.column("branch", sa.Boolean), sa.column("closed", sa.String))
    kept = sa.and_(o.c.branch.is_(True), o.c.closed.is_(None))
    at: list[str | sa.ColumnElement[Any]] = ["person", "ticket_id", "seq"]
    op.create_index("operations_kept", "operations", at, sqlite_where=kept, postgresql_where=kept, if_not_exists=True)
