"""Databases that the queue cannot open."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine, inspect

from annotation_queue.database import Database, DatabaseUnreachable, WrongSchema


@pytest.mark.parametrize("bad", ["mysql://localhost/x", "sqlite://", "sqlite:///:memory:"])
def test_an_unsupported_database_uri_is_rejected(bad):
    with pytest.raises(ValueError):
        Database(bad)


@pytest.mark.parametrize(
    "away", ["postgresql+psycopg://nobody@127.0.0.1:9/queue", "sqlite:////nowhere/at/all/queue.db"]
)
def test_an_unreachable_database_gives_a_one_line_error(away):
    with pytest.raises(DatabaseUnreachable) as caught:
        Database(away)
    assert "\n" not in str(caught.value) and away.split("/")[-1] in str(caught.value)


def test_a_database_that_is_opened_to_be_read_gets_no_table(no_tables, uri):
    with pytest.raises(WrongSchema, match="its tables have the revision None, not"):
        Database(uri, upgrade=False)
    engine = create_engine(uri)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
    Database(uri).close()
    Database(uri, upgrade=False).close()
