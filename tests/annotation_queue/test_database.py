"""Databases that the queue cannot open."""

from __future__ import annotations

import pytest

from annotation_queue.database import Database, DatabaseUnreachable


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
