"""Columns about assigned, reopened and scored tickets, and the indexes of the lists that leads look through."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COLUMNS = [
    sa.Column("assigned_by", sa.String),
    sa.Column("reopened_by", sa.String),
    sa.Column("mean_score", sa.Float),
    sa.Column("agreement", sa.Float),
]
DONE = "state = 'done'"
RESERVED = "state = 'open' AND reserved_for IS NOT NULL"
BROWSED = {  # columns before the ticket's id, and the tickets that the index has
    "kinds": (["kind", "state", "created_at"], None),
    "batches": (["batch_id", "kind", "state", "created_at"], None),
    "videos": (["video_id", "created_at"], None),
    "checkpoints": (["checkpoint", "created_at"], None),
    "labels": (["label", "created_at"], "label IS NOT NULL"),
    "verdicts": (["verdict", "created_at"], DONE),
    "reasons": (["reasons", "created_at"], "reasons <> ''"),
    "deciders": (["finished_by", "created_at"], DONE),
    "reserved": (["reserved_for", "created_at"], RESERVED),
    "scores": (["mean_score"], "mean_score IS NOT NULL"),
    "agreements": (["agreement"], "agreement IS NOT NULL"),
}


def upgrade() -> None:
    known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("tickets")}
    for column in COLUMNS:
        if column.name not in known:
            op.add_column("tickets", column)
    _index(
        "tickets_reserved", ["reserved_for", "kind", sa.column("priority").desc(), "created_at", "ordinal"], RESERVED
    )
    for name, (columns, where) in BROWSED.items():
        _index(f"browsed_{name}", [*columns, "ticket_id"], where)
    op.create_index("audit_of_subject", "audit", ["subject", "audit_id"], if_not_exists=True)


def _index(name: str, columns: list[Any], where: str | None) -> None:
    partial = None if where is None else sa.text(where)
    op.drop_index(name, "tickets", if_exists=True)
    op.create_index(name, "tickets", columns, sqlite_where=partial, postgresql_where=partial)
