"""A process is paused at its work, loses its lock, and goes on: nothing is lost, doubled or brought back."""

from collections import Counter

import pytest

from benchmarks import scale
from engine import locks
from engine.services import connect
from engine.settings import Settings
from engine.stages import publish, upkeep, withdrawing
from storage import lease
from storage.blobs.folder import LocalBlobs
from storage.dataset import releases
from storage.dataset.parts import PartDamaged
from storage.dataset.release_numbers import NumberTaken
from storage.iceberg.table_errors import CommitFailed
from storage.lease import LockLost
from validation import table_checks

pytestmark = pytest.mark.slow


@pytest.fixture
def s(tmp_path, monkeypatch):
    """The lock is a lease that anybody may take at once, as if its holder were always paused for too long."""
    passed = table_checks.Report(success=True, results=(), docs_index=None)
    monkeypatch.setattr(table_checks, "check_tables", lambda *arguments, **named: passed)
    monkeypatch.setattr(locks, "alone", lambda uri, blobs, name, wait=True: lease.leased(blobs, name, wait=wait))
    monkeypatch.setattr(lease, "TTL_S", 0.0)
    with connect(Settings(home=tmp_path / "home")) as services:
        yield services


class Pause:
    """Before the n-th file that a process creates, another process does something."""

    def __init__(self, monkeypatch):
        self.left, self.meanwhile = -1, lambda: None
        real = LocalBlobs.create

        def create(blobs, key, data):
            self.left -= 1
            if self.left == -1:
                self.meanwhile()
            return real(blobs, key, data)

        monkeypatch.setattr(LocalBlobs, "create", create)

    def before(self, n, meanwhile):
        self.left, self.meanwhile = n, meanwhile

    @property
    def was_reached(self) -> bool:
        return self.left < 0


@pytest.fixture
def pause(monkeypatch):
    return Pause(monkeypatch)


def try_until_done(act):
    """What the pipeline and people do with these errors: they run it again."""
    try:
        return act(), False
    except (LockLost, NumberTaken, CommitFailed, PartDamaged):  # the last two: a part was erased meanwhile
        return act(), True


def published(s) -> tuple[Counter, Counter]:
    """How often each masklet is in the newest release, and in the table."""
    newest = releases.load(s.blobs, releases.names(s.blobs)[-1])
    assert newest.verify() == []
    released = Counter(row.masklet_id for row in newest.iter_masklets())
    assert newest.counts["masklets"] == sum(released.values())
    return released, Counter(row.masklet_id for row in s.tables.masklets())


def of_videos(*video_ids) -> Counter:
    return Counter(m.masklet_id for video_id in video_ids for m in scale.masklets_of(video_id, "b", "train"))


def test_two_batches_that_are_published_at_once_are_both_in_the_newest_release(s, pause):
    publish.publish_batch(s, scale.collect(s, 0, 1)[0])
    n, everything, again = 0, scale.ids_of(0, 1), 0
    while True:
        mine, other = (scale.collect(s, number, 1)[0] for number in (2 * n + 1, 2 * n + 2))
        pause.before(n, lambda other=other: publish.publish_batch(s, other))
        again += try_until_done(lambda mine=mine: publish.publish_batch(s, mine))[1]
        if not pause.was_reached:
            break
        everything += scale.ids_of(2 * n + 1, 1) + scale.ids_of(2 * n + 2, 1)
        assert published(s) == (of_videos(*everything),) * 2, n
        n += 1
    assert n > 5 and again > 3, "every write of a publish, and some of them find that they came too late"
    numbers = [releases.place(name)[0] for name in releases.names(s.blobs)]
    assert len(numbers) == len(set(numbers))


def test_a_batch_that_two_processes_publish_is_published_once(s, pause):
    n, everything = 0, []
    while True:
        mine = scale.collect(s, n, 1)[0]
        pause.before(n, lambda mine=mine: publish.publish_batch(s, mine))
        try_until_done(lambda mine=mine: publish.publish_batch(s, mine))
        everything += scale.ids_of(n, 1)
        assert published(s) == (of_videos(*everything),) * 2, n
        if not pause.was_reached:
            break
        n += 1
    assert n > 5


@pytest.mark.parametrize("erase", [False, True])
def test_a_video_that_is_withdrawn_while_its_publish_is_paused_does_not_come_back(s, pause, erase):
    publish.publish_batch(s, scale.collect(s, 0, 1)[0])
    n, kept = 0, scale.ids_of(0, 1)
    while True:
        mine, (gone, stays) = scale.collect(s, n + 1, 2)
        pause.before(n, lambda gone=gone: withdrawing.withdraw(s, gone, by="ann", why="asked", erase=erase))
        try_until_done(lambda mine=mine: publish.publish_batch(s, mine))
        if not pause.was_reached:
            break
        kept.append(stays)
        assert published(s) == (of_videos(*kept),) * 2, n
        n += 1
    assert n > 5


def test_a_video_that_is_published_while_its_withdrawal_is_paused_does_not_stay(s, pause):
    publish.publish_batch(s, scale.collect(s, 0, 1)[0])
    n, kept = 0, scale.ids_of(0, 1)
    while True:
        mine, (gone, stays) = scale.collect(s, n + 1, 2)
        pause.before(n, lambda mine=mine: publish.publish_batch(s, mine))
        try_until_done(lambda gone=gone: withdrawing.withdraw(s, gone, by="ann", why="asked"))
        if not pause.was_reached:
            break
        kept.append(stays)
        assert published(s) == (of_videos(*kept),) * 2, n
        n += 1
    assert n > 2


def test_a_batch_that_is_published_while_a_compaction_is_paused_is_not_lost(s, pause):
    publish.publish_batch(s, scale.collect(s, 0, 1)[0])
    n, everything, again = 0, scale.ids_of(0, 1), 0
    while True:
        other = scale.collect(s, n + 1, 1)[0]
        pause.before(n, lambda other=other: publish.publish_batch(s, other))
        again += try_until_done(lambda: upkeep.compact(s, least=1))[1]
        if not pause.was_reached:
            break
        everything += scale.ids_of(n + 1, 1)
        assert published(s) == (of_videos(*everything),) * 2, n
        n += 1
    assert n > 5 and again > 0
