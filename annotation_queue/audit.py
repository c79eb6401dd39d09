"""The audit: one line for each change of a person, a token or a decision."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, insert

from annotation_queue import schema


def note(c: Connection, at: float, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    """Write a line of the audit, in the transaction that does what it says."""
    row = {"at": at, "actor": actor, "action": action, "subject": subject, "detail": json.dumps(detail, sort_keys=True)}
    c.execute(insert(schema.audit).values(**row))
