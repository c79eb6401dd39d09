"""Ontologies, the labels of objects, and the rolling sums by label."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

KEYS = ("batch_id", "kind", "phase", "checkpoint", "person", "maker", "verdict", "needs_lead")
SUMS = (
    *("added", "done", "answers", "first_pass", "timed", "seconds", "frames", "timed_frames", "edited_frames"),
    *("clicked_frames", "clicks", "votes", "agreement", "compared", "iou"),
)


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    op.create_table(
        "ontologies",
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
        if_not_exists=True,
    )
    for table in ("tickets", "leases"):
        known = {column["name"] for column in found.get_columns(table)}
        for column in (sa.Column("label", sa.String), sa.Column("attributes", sa.Text)):
            if column.name not in known:
                op.add_column(table, column)
    if "label" not in {column["name"] for column in found.get_columns("tallies")}:
        _add_to_the_key_of_tallies()


def _add_to_the_key_of_tallies() -> None:
    """Make the table again with one more column in its primary key: SQLite cannot change a key."""
    op.rename_table("tallies", "tallies_before")
    op.create_table(
        "tallies",
        *(sa.Column(name, sa.Boolean() if name == "needs_lead" else sa.String(), nullable=False) for name in KEYS),
        sa.Column("label", sa.String(), nullable=False),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint(*KEYS, "label"),
    )
    columns = ", ".join((*KEYS, *SUMS))
    op.execute(f"INSERT INTO tallies ({columns}, label) SELECT {columns}, '' FROM tallies_before")
    op.drop_table("tallies_before")
