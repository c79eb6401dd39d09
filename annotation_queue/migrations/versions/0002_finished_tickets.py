"""An index for the list of finished tickets in the order in which they were handed out."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    columns: list[str | sa.ColumnElement[Any]] = ["kind", sa.column("priority").desc(), "created_at", "ordinal"]
    done = sa.text("state = 'done'")
    op.create_index("tickets_done", "tickets", columns, sqlite_where=done, postgresql_where=done, if_not_exists=True)
