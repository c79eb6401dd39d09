"""Refusals come into the table once: at a cost that follows the new ones, and wherever a run is killed."""

import pytest
from pyiceberg.io.pyarrow import PyArrowFile

from engine.ingest import refusals
from engine.services import connect
from engine.settings import Settings
from storage.blobs.folder import LocalBlobs
from storage.dataset import parts
from storage.records import Quarantined, content_id
from tests.engine.ingest.test_admitted import counted
from tests.storage.killed_writes import Killed, kill_at

pytestmark = pytest.mark.slow


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home")) as services:
        yield services


def refused(*numbers: int) -> list[Quarantined]:
    return [
        Quarantined(stage="ingest", subject=f"/in/{n}.mp4", reason="truncated", detail=f"at {n} s", batch_id="")
        for n in numbers
    ]


def subjects(s) -> list[str]:
    return [row.subject for row in s.tables.quarantine()]


def test_a_refusal_is_committed_once_and_a_new_reason_is_another_refusal(s):
    assert refusals.commit(s, refused(1, 2)) == 2 and refusals.commit(s, refused(1, 2)) == 0
    assert refusals.commit(s, refused(2, 3)) == 1 and refusals.commit(s, []) == 0
    other = Quarantined(stage="ingest", subject="/in/1.mp4", reason="too_short", detail="", batch_id="")
    assert refusals.commit(s, [other]) == 1
    assert subjects(s) == ["/in/1.mp4", "/in/1.mp4", "/in/2.mp4", "/in/3.mp4"]


def test_a_refusal_costs_the_same_with_3_and_with_30_in_the_table(tmp_path, monkeypatch):
    costs = {}
    for earlier in (3, 30):
        with connect(Settings(home=tmp_path / str(earlier))) as s:
            refusals.commit(s, refused(*range(earlier)))
            with monkeypatch.context() as patch:
                costs[earlier] = counted(patch)
                assert refusals.commit(s, refused(1, 100)) == 1
            assert len(subjects(s)) == earlier + 1
    assert costs[3] == costs[30] and costs[3]["create"] == 3, "a part, its marker, and the mark of the refusal"


def test_what_an_earlier_version_committed_is_not_committed_again(s):
    row = refused(1)[0]
    batch_id = content_id("quarantine", "by an earlier version")
    earlier = [Quarantined(**{**row.__dict__, "batch_id": batch_id})]
    parts.write_part(s.blobs, kind="quarantine", batch_id=batch_id, video_id="ingest", rows=earlier)
    parts.commit_batch(s.blobs, s.tables, "quarantine", batch_id)
    assert refusals.commit(s, refused(1, 2)) == 1 and subjects(s) == ["/in/1.mp4", "/in/2.mp4"]


def test_a_commit_that_is_killed_at_any_write_loses_and_doubles_no_refusal(s, monkeypatch):
    left, killed, number = kill_at(monkeypatch, (LocalBlobs, "create"), (PyArrowFile, "create")), True, 0
    refusals.commit(s, refused(0))
    wanted = [0]
    while killed:
        first, more = 10 + 3 * number, 12 + 3 * number
        left[0] = number
        try:
            refusals.commit(s, refused(first, first + 1))
            killed = False
        except Killed:
            left[0] = 10**9
            refusals.commit(s, refused(first, first + 1, more))  # the next run meets one more
        left[0] = 10**9
        wanted += [first, first + 1, *([more] if killed else [])]
        number += 1
    assert sorted(subjects(s)) == sorted(f"/in/{n}.mp4" for n in wanted)
    assert number > 6, "a part, its marker, two marks, and three files of the table"


def test_a_refusal_that_another_process_marked_before_it_died_is_committed(s, monkeypatch):
    """Both met the file, and the one whose mark came first never commits: the other one does it."""
    real = parts.write_part

    def killed(*arguments, **named):
        raise Killed

    def meanwhile(*arguments, **named):
        monkeypatch.setattr(parts, "write_part", real)
        with monkeypatch.context() as patch:
            patch.setattr(parts, "commit_batch", killed)
            with pytest.raises(Killed):
                refusals.commit(s, refused(1, 2))
        return real(*arguments, **named)

    monkeypatch.setattr(parts, "write_part", meanwhile)
    assert refusals.commit(s, refused(1, 3)) == 1
    assert sorted(subjects(s)) == ["/in/1.mp4", "/in/2.mp4", "/in/3.mp4"]
