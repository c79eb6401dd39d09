"""What alembic runs for each command: on the connection of `migrate.upgrade`, or on a database of its own.

A new revision, after a change of schema.py (then set schema.REVISION to its id):

    alembic -x uri=sqlite:////tmp/queue.db upgrade head
    alembic -x uri=sqlite:////tmp/queue.db revision --autogenerate --rev-id 0002 -m "what changes"
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, create_engine

from annotation_queue.schema import metadata


def migrate(connection: Connection) -> None:
    # SQLite cannot change a column in place: alembic copies the table
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with create_engine(context.get_x_argument(as_dictionary=True)["uri"]).connect() as own:
        migrate(own)
