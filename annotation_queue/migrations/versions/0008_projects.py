"""The project of each batch, of its tickets and of the rolling sums, and the index of the lists of one project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

KEYS = ("batch_id", "kind", "phase", "checkpoint", "person", "maker", "verdict", "needs_lead", "label")
SUMS = (
    *("added", "done", "answers", "first_pass", "timed", "seconds", "frames", "timed_frames", "edited_frames"),
    *("clicked_frames", "clicks", "votes", "agreement", "compared", "iou"),
)


def upgrade() -> None:
    bind = op.get_bind()
    for table in ("batches", "tickets"):
        if "project" not in {column["name"] for column in sa.inspect(bind).get_columns(table)}:
            op.add_column(table, sa.Column("project", sa.String, nullable=False, server_default=""))
    op.create_index(
        "browsed_projects",
        "tickets",
        ["project", "kind", "state", "created_at", "ticket_id"],
        if_not_exists=True,
    )
    open_ones = sa.text("project <> '' AND drained_at IS NULL")
    op.create_index(
        "batches_of_projects",
        "batches",
        ["project"],
        sqlite_where=open_ones,
        postgresql_where=open_ones,
        if_not_exists=True,
    )
    if "project" not in {column["name"] for column in sa.inspect(bind).get_columns("tallies")}:
        _add_to_the_key_of_tallies()


def _add_to_the_key_of_tallies() -> None:
    """Make the table again with one more column in its primary key: SQLite cannot change a key."""
    op.rename_table("tallies", "tallies_before")
    op.create_table(
        "tallies",
        *(sa.Column(name, sa.Boolean() if name == "needs_lead" else sa.String(), nullable=False) for name in KEYS),
        sa.Column("project", sa.String(), nullable=False),
        *(sa.Column(name, sa.Float(), server_default="0", nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint(*KEYS, "project"),
    )
    columns = ", ".join((*KEYS, *SUMS))
    op.execute(f"INSERT INTO tallies ({columns}, project) SELECT {columns}, '' FROM tallies_before")
    op.drop_table("tallies_before")
