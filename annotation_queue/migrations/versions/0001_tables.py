"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id"),
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("sealed", sa.Boolean(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("remaining", sa.Integer(), nullable=False),
        sa.Column("drained_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_table(
        "credentials",
        sa.Column("secret_sha256", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("csrf", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("scopes", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("secret_sha256"),
    )
    op.create_index("credentials_of_person", "credentials", ["name"])
    op.create_table(
        "gold",
        sa.Column("gold_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("video_id", sa.String(), nullable=False),
        sa.Column("masklet_id", sa.String(), nullable=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("expected", sa.String(), nullable=True),
        sa.Column("truth", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("gold_id"),
    )
    op.create_table(
        "leases",
        sa.Column("ticket_id", sa.String(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("claim_id", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("reasons", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("masklet_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("ticket_id", "token"),
    )
    op.create_index("leases_by_claim", "leases", ["person", "claim_id"], unique=True)
    op.create_index(
        "leases_finished",
        "leases",
        ["person", "finished_at"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_index(
        "leases_lately",
        "leases",
        ["finished_at"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    )
    op.create_table(
        "masklets",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("masklet_id", sa.String(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "masklet_id"),
    )
    op.create_table(
        "operations",
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("ticket_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("video_id", sa.String(), nullable=False),
        sa.Column("masklet_id", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("frame_idx", sa.Integer(), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", sa.String(), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("branch", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id"),
    )
    op.create_index("operations_of_batch", "operations", ["batch_id", "ticket_id", "seq"])
    op.create_index("operations_of_ticket", "operations", ["ticket_id", "seq"], unique=True)
    op.create_index(
        "operations_on_branches",
        "operations",
        ["received_at"],
        sqlite_where=sa.text("branch IS 1"),
        postgresql_where=sa.text("branch IS true"),
    )
    op.create_table(
        "outbox",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("delivered_at", sa.Float(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id"),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("roles", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("skills", sa.String(), server_default="", nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "tallies",
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("checkpoint", sa.String(), nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("maker", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("needs_lead", sa.Boolean(), nullable=False),
        sa.Column("added", sa.Float(), server_default="0", nullable=False),
        sa.Column("done", sa.Float(), server_default="0", nullable=False),
        sa.Column("answers", sa.Float(), server_default="0", nullable=False),
        sa.Column("first_pass", sa.Float(), server_default="0", nullable=False),
        sa.Column("timed", sa.Float(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("frames", sa.Float(), server_default="0", nullable=False),
        sa.Column("timed_frames", sa.Float(), server_default="0", nullable=False),
        sa.Column("edited_frames", sa.Float(), server_default="0", nullable=False),
        sa.Column("clicked_frames", sa.Float(), server_default="0", nullable=False),
        sa.Column("clicks", sa.Float(), server_default="0", nullable=False),
        sa.Column("votes", sa.Float(), server_default="0", nullable=False),
        sa.Column("agreement", sa.Float(), server_default="0", nullable=False),
        sa.Column("compared", sa.Float(), server_default="0", nullable=False),
        sa.Column("iou", sa.Float(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "kind", "phase", "checkpoint", "person", "maker", "verdict", "needs_lead"),
    )
    op.create_table(
        "tickets",
        sa.Column("ticket_id", sa.String(), nullable=False),
        sa.Column("batch_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("video_id", sa.String(), nullable=False),
        sa.Column("masklet_id", sa.String(), nullable=True),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("made_by", sa.String(), nullable=True),
        sa.Column("needs_lead", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("previous_ticket_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("lease_token", sa.Integer(), nullable=False),
        sa.Column("leased_by", sa.String(), nullable=True),
        sa.Column("expires_at", sa.Float(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("finished_by", sa.String(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("next_ticket_id", sa.String(), nullable=True),
        sa.Column("settled", sa.String(), nullable=True),
        sa.Column("skill", sa.String(), nullable=True),
        sa.Column("lane", sa.String(), server_default="", nullable=False),
        sa.Column("reserved_for", sa.String(), nullable=True),
        sa.Column("reserved_until", sa.Float(), nullable=True),
        sa.Column("sent_back_by", sa.String(), nullable=True),
        sa.Column("rework", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("overlap", sa.Integer(), server_default="1", nullable=False),
        sa.Column("gold_id", sa.String(), nullable=True),
        sa.Column("right", sa.Boolean(), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("checkpoint", sa.String(), server_default="", nullable=False),
        sa.Column("object_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("ticket_id"),
    )
    op.create_index("tickets_finished", "tickets", ["finished_at"])
    op.create_index(
        "tickets_gold",
        "tickets",
        ["reserved_for", "finished_at"],
        sqlite_where=sa.text("gold_id IS NOT NULL"),
        postgresql_where=sa.text("gold_id IS NOT NULL"),
    )
    op.create_index(
        "tickets_held",
        "tickets",
        ["leased_by"],
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index(
        "tickets_leased",
        "tickets",
        ["expires_at"],
        sqlite_where=sa.text("state = 'leased'"),
        postgresql_where=sa.text("state = 'leased'"),
    )
    op.create_index("tickets_of_batch", "tickets", ["batch_id", "settled", "ticket_id"])
    op.create_index(
        "tickets_of_object",
        "tickets",
        ["object_id"],
        sqlite_where=sa.text("object_id IS NOT NULL"),
        postgresql_where=sa.text("object_id IS NOT NULL"),
    )
    op.create_index(
        "tickets_ready",
        "tickets",
        ["kind", "lane", sa.literal_column("priority DESC"), "created_at", "ordinal"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index(
        "tickets_reserved",
        "tickets",
        ["reserved_for"],
        sqlite_where=sa.text("state = 'open' AND reserved_for IS NOT NULL"),
        postgresql_where=sa.text("state = 'open' AND reserved_for IS NOT NULL"),
    )
    op.create_table(
        "versions",
        sa.Column("operation_id", sa.String(), nullable=False),
        sa.Column("ticket_id", sa.String(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id"),
    )
    op.create_index("versions_of_ticket", "versions", ["ticket_id"])
