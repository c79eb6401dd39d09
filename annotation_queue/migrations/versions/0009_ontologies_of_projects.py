"""Which projects have tickets under which ontology: their people may read it, and nobody else's."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

NAMED = (
    "SELECT DISTINCT project, payload FROM tickets WHERE payload LIKE '%\"ontology\"%' "
    "UNION SELECT b.project, g.payload FROM gold g JOIN batches b ON b.batch_id = g.batch_id "
    "WHERE g.payload LIKE '%\"ontology\"%'"
)


def upgrade() -> None:
    bind = op.get_bind()
    if sa.inspect(bind).has_table("ontologies_of_projects"):
        return
    table = op.create_table(
        "ontologies_of_projects",
        sa.Column("version", sa.String, primary_key=True),
        sa.Column("project", sa.String, primary_key=True),
    )
    named = {(json.loads(payload).get("ontology"), project) for project, payload in bind.execute(sa.text(NAMED))}
    op.bulk_insert(table, [{"version": version, "project": project} for version, project in named if version])
