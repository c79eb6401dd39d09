"""The outbox of notices: events, what each endpoint has received, and which sources were looked at."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.String, primary_key=True),
        sa.Column("event", sa.String, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "notice_deliveries",
        sa.Column("notice_id", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("not_before", sa.Float),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("delivered_at", sa.Float),
        sa.Column("failure", sa.String),
        sa.Column("status", sa.Integer),
        sa.Column("detail", sa.Text),
        sa.Column("failed_since", sa.Float),
        sa.PrimaryKeyConstraint("notice_id", "endpoint"),
        if_not_exists=True,
    )
    undelivered = sa.column("delivered_at").is_(None)
    op.create_index(
        "notice_deliveries_due",
        "notice_deliveries",
        ["endpoint", "not_before"],
        sqlite_where=undelivered,
        postgresql_where=undelivered,
        if_not_exists=True,
    )
    op.create_table(
        "notice_sources",
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("first_look_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
