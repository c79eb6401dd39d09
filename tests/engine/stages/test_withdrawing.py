"""A withdrawn video in the pipeline: not in the next release, never published later, and not exported."""

import pytest

from annotation_queue.errors import QueueUnreachable
from benchmarks import scale
from engine import batches
from engine.batches import BatchStage
from engine.datasets import layouts
from engine.ingest import admitted
from engine.services import connect
from engine.settings import Settings, StorageSettings
from engine.stages import publish, upkeep, withdrawing
from engine.views import card
from storage.dataset import compaction, parts, releases, withdrawn
from storage.lease import InUse
from tests.storage import rows
from tests.storage.made_videos import MADE
from validation import table_checks

pytestmark = pytest.mark.slow


@pytest.fixture
def s(tmp_path, monkeypatch):
    """Two published batches of two videos."""
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    monkeypatch.setattr(table_checks, "check_tables", lambda *arguments, **named: passed)
    with connect(Settings(home=tmp_path / "home")) as services:
        for number in (1, 2):
            publish.publish_batch(services, scale.collect(services, number, 2)[0])
        yield services


def withdraw(s, video_id: str, erase: bool = False) -> withdrawing.Withdrawn:
    return withdrawing.withdraw(s, video_id, by="ann", why="the person asked", erase=erase)


def newest(s) -> releases.Release:
    return releases.load(s.blobs, releases.names(s.blobs)[-1])


def test_a_withdrawal_says_what_it_did_and_can_run_again(s):
    video_id = scale.ids_of(1, 2)[0]
    earlier = tuple(releases.names(s.blobs))
    done = withdraw(s, video_id)
    assert (done.release, done.held_by, done.erased) == (f"release-0003-without-{video_id}", earlier, 0)
    assert (done.act.by, done.act.why) == ("ann", "the person asked")
    assert len(newest(s).masklets()) == 15 == len(s.tables.masklets())
    again = withdrawing.withdraw(s, video_id, by="bob", why="no")
    assert (again.act, again.release) == (done.act, "") and again.held_by == earlier
    with pytest.raises(ValueError, match="no admitted video"):
        withdraw(s, "ffff")
    assert [act.video_id for act in withdrawn.all_of(s.blobs)] == [video_id]


def test_what_people_decide_later_about_a_withdrawn_video_is_quarantined(s):
    batch_id, ids = scale.collect(s, 3, 2)
    withdraw(s, ids[0])
    late = scale.masklets_of(ids[0], batch_id, "train")
    assert list(parts.rows(s.blobs, "masklets", batch_id))[0].video_id == ids[1], "nothing of it is left to publish"
    s.blobs.delete(f"commits/masklets/{batch_id}/{ids[0]}.json")
    parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=ids[0], rows=late)
    publish.publish_batch(s, batch_id)
    assert {m.video_id for m in newest(s).masklets()} == {*scale.ids_of(1, 2), *scale.ids_of(2, 2), ids[1]}
    found = s.tables.quarantine(where=f"batch_id == '{batch_id}'")
    assert {row.reason for row in found} == {"withdrawn"} and len(found) == 5
    assert {act.video_id for act in s.tables.operations(where=f"batch_id == '{batch_id}'")} == {ids[1]}


class AQueue:
    """The queue's part in a withdrawal: it does not answer until it is up."""

    up = False

    def __init__(self):
        self.told = []

    def withdraw(self, batch_id, video_id, why):
        if not self.up:
            raise QueueUnreachable("no answer for 60 s")
        self.told.append((batch_id, video_id, why))
        return 3


def test_a_withdrawal_rejects_the_open_tickets_and_says_if_the_queue_does_not_answer(s):
    vars(s)["queue"] = queue = AQueue()
    batch_id, ids = scale.collect(s, 3, 2)
    s.blobs.delete(f"batches/{batch_id}/{BatchStage.COLLECTED}.json")
    batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {})
    s.blobs.write(f"videos/{ids[0]}/committed", batch_id.encode())
    first = withdraw(s, ids[0])
    assert first.trouble.endswith("run this again when the queue answers: no answer for 60 s") and not first.rejected
    queue.up = True
    again = withdraw(s, ids[0], erase=True)
    assert (again.trouble, again.rejected, again.act) == ("", 3, first.act)
    assert queue.told == [(batch_id, ids[0], "its video was withdrawn by ann: the person asked")]
    assert not withdraw(s, scale.ids_of(1, 2)[0]).rejected, "a published batch has no open tickets"


def test_a_compaction_leaves_out_what_is_withdrawn_meanwhile(s):
    first, second = scale.ids_of(1, 2)

    def withdrawing_after_one(video_id: str):
        return lambda n, of, name: withdraw(s, video_id, erase=True) if n == 1 else None

    done = upkeep.compact(s, withdrawing_after_one(first), least=1)
    assert (done.groups, done.parts, done.problems) == (1, 2, ()) and done.release == newest(s).name
    assert len(list(s.blobs.keys("compacted/groups/"))) == 1, "nobody takes the other group any more"
    assert len(newest(s).masklets()) == 15 == len(s.tables.masklets()) and newest(s).verify() == []
    done = upkeep.compact(s, withdrawing_after_one(second), least=1)
    assert (done.groups, done.release, done.problems) == (0, "", ())
    assert newest(s).name.endswith(f"-without-{second}"), "a compaction of nothing makes no release"
    assert {m.video_id for m in newest(s).masklets()} == set(scale.ids_of(2, 2))
    cards = [s.blobs.read(card.key_of(name)).decode() for name in releases.names(s.blobs)]
    kinds = ["It adds to no", "It adds to", "without a video that was withdrawn", "in larger files", "without a video"]
    assert all(kind in text for kind, text in zip(kinds, cards, strict=True))
    assert "\n10 masklets of 2 videos, " in cards[-1]


def test_a_compaction_leaves_out_the_acts_of_a_video_that_is_withdrawn_meanwhile(s):
    batch_id, ids = scale.collect(s, 3, 2)
    s.blobs.delete(f"commits/masklets/{batch_id}/{ids[0]}.json")
    parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=ids[0], rows=[])  # acts, and no masklet
    publish.publish_batch(s, batch_id)

    def meanwhile(n, of, name):
        if n == of:
            withdraw(s, ids[0], erase=True)

    done = upkeep.compact(s, meanwhile, least=1)
    assert (done.groups, done.problems) == (2, ())
    done = upkeep.compact(s, least=1)
    assert (done.groups, done.problems) == (1, ()) and ids[0] not in {act.video_id for act in s.tables.operations()}


def test_acts_that_came_after_a_withdrawal_are_in_no_large_file(s):
    batch_id, ids = scale.collect(s, 3, 2)
    acts = [act for act in parts.rows(s.blobs, "operations", batch_id) if act.video_id == ids[0]]
    withdraw(s, ids[0])
    s.blobs.delete(f"commits/operations/{batch_id}/{ids[0]}.json")
    assert parts.write_part(s.blobs, kind="operations", batch_id=batch_id, video_id=ids[0], rows=acts).rows
    publish.publish_batch(s, batch_id)
    done = upkeep.compact(s, least=1)
    assert (done.groups, done.problems) == (3, ())
    assert ids[0] not in {act.video_id for act in s.tables.operations()}


def test_a_group_is_written_while_nobody_withdraws(s, monkeypatch):
    real = compaction.write

    def write(*arguments):
        with pytest.raises(InUse), s.alone(withdrawing.LOCK, wait=False):
            pass
        return real(*arguments)

    monkeypatch.setattr(compaction, "write", write)
    assert upkeep.compact(s, least=1).groups == 2


def test_an_export_of_an_earlier_release_stops_or_leaves_the_video_out(s):
    video_id, old = scale.ids_of(1, 2)[0], newest(s)
    withdraw(s, video_id)
    with pytest.raises(withdrawing.HoldsWithdrawn, match=f"{old.name} holds what was withdrawn later: {video_id}"):
        withdrawing.permitted(s, old)
    assert withdrawing.permitted(s, newest(s)) == newest(s)
    skipping = s.settings.model_copy(update={"storage": StorageSettings(withdrawn="skip")})
    with connect(skipping) as other:
        assert video_id not in {m.video_id for m in withdrawing.permitted(other, old).masklets()}
    assert video_id not in {entry.video_id for entry in layouts.of_release(old).entries}


def test_an_erased_video_leaves_no_file_and_is_never_admitted_again(s):
    record = rows.make_video("abc", batch_id="", split="", source_uri="/home/jo/abc.mp4", source_metadata='{"a": 1}')
    file = s.home / "video.mp4"
    file.write_bytes(b"pictures")
    assert admitted.write(s.blobs, record, file, MADE, b"{}", False)
    (batch_id,), _ = admitted.commit(s, {"/home/jo/abc.mp4"})
    assert batches.pending(s.blobs, BatchStage.PROPOSED) == [batch_id]
    done = withdraw(s, "abc", erase=True)
    assert done.erased == 3 + 1 and done.release == ""
    kept = {key.removeprefix("videos/abc/") for key in s.blobs.keys("videos/abc/")}
    assert kept == {"record.json", "committed"} and b"/home/jo" not in s.blobs.read("videos/abc/record.json")
    assert parts.has_marker(s.blobs, "candidates", batch_id, "abc"), "no model proposes for it"
    assert not admitted.write(s.blobs, record, file, MADE, None, False)
    with pytest.raises(ValueError, match="no admitted video"):
        s.video("abc")
    assert "abc" not in {video.video_id for video in s.tables.videos()}
    assert withdraw(s, "abc", erase=True).act == done.act
