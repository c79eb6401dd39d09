"""Comments on tickets, the names of batches, and an index for the tickets of a video."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    if not found.has_table("comments"):
        op.create_table(
            "comments",
            sa.Column("comment_id", sa.String(), nullable=False),
            sa.Column("thread_id", sa.String(), nullable=False),
            sa.Column("ticket_id", sa.String(), nullable=False),
            sa.Column("person", sa.String(), nullable=False),
            sa.Column("as_lead", sa.Boolean(), nullable=False),
            sa.Column("frame_idx", sa.Integer()),
            sa.Column("x", sa.Float()),
            sa.Column("y", sa.Float()),
            sa.Column("text", sa.Text(), nullable=False),
            sa.Column("created_at", sa.String(), nullable=False),
            sa.Column("received_at", sa.Float(), nullable=False),
            sa.PrimaryKeyConstraint("comment_id"),
        )
    op.create_index("comments_of_thread", "comments", ["thread_id", "received_at"], if_not_exists=True)
    op.create_index("tickets_of_video", "tickets", ["video_id"], if_not_exists=True)
    if "name" not in {column["name"] for column in found.get_columns("batches")}:
        op.add_column("batches", sa.Column("name", sa.String(), nullable=False, server_default=""))
