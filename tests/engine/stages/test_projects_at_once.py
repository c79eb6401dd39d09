"""Workers and publishes of several projects at once: each project gets all of its videos, and nothing of others."""

import json
from collections import Counter
from itertools import count
from typing import Any

import pytest

from benchmarks import scale
from engine import batches
from engine.ingest import ingest
from engine.services import connect
from engine.settings import IngestSettings, Settings
from engine.stages import new_release, publish
from storage.dataset import release_numbers, releases
from tests.engine.stages.test_paused_holders import of_videos, pause, s, try_until_done
from tests.storage.killed_writes import Killed
from tests.storage.made_videos import make, numbered

__all__ = ["pause", "s"]  # fixtures
pytestmark = pytest.mark.slow

PROJECTS = ("street", "pets")


@pytest.fixture
def settings(tmp_path):
    """A source with three videos, of which two make a batch, and one with two videos, of which one does."""
    for n, (project, videos) in enumerate((("street", 3), ("pets", 2))):
        (tmp_path / project).mkdir()
        for k in range(videos):
            make(tmp_path / project / f"{k}.mp4", [numbered(i + 30 * (5 * n + k)) for i in range(24)])
    given: dict[str, Any] = {name: {"ingest": {"source": str(tmp_path / name)}} for name in PROJECTS}
    given["street"]["ingest"] |= {"batch_videos": 2, "held_out_share": 0.9}
    ours = IngestSettings(batch_videos=1, workers=1, held_out_share=0.0, near_duplicates=False)
    return Settings(home=tmp_path / "home", ingest=ours, projects=given)


def test_pieces_of_two_projects_become_batches_of_both(settings, tmp_path):
    with connect(settings) as s:
        pieces = ingest.plan(s)
        owners = [json.loads(s.blobs.read(f"pieces/{piece}.json"))["project"] for piece in pieces]
        assert owners == ["street", "pets", "street", "pets"], "no project waits for another"
        made = [batch_id for piece in reversed(pieces) for batch_id in ingest.admit_piece(s, piece)]
        found = Counter((batches.project_of(s.blobs, b), len(batches.video_ids(s.blobs, b))) for b in made)
        assert found == {("street", 2): 1, ("street", 1): 1, ("pets", 1): 2}
        for batch_id in made:
            videos = batches.videos(s, batch_id)
            project = batches.project_of(s.blobs, batch_id)
            assert {v.source_uri.split("/")[-2] for v in videos} == {project}
            assert {v.split for v in videos} == ({"val"} if project == "street" else {"train"}), "of its own settings"
        assert ingest.plan(s) == []
        make(tmp_path / "pets" / "new.mp4", [numbered(i + 900) for i in range(24)])
        (one,) = ingest.plan(s, project="pets")
        assert ingest.plan(s, project="street") == [] and ingest.admit_piece(s, one) == [], "planned anew by nobody"
        (one,) = ingest.plan(s, str(tmp_path / "pets"), "street")
        assert [batches.project_of(s.blobs, b) for b in ingest.admit_piece(s, one)] == ["street"]


class Published:
    """Collected batches of the projects, one video each, and a comparison with the releases."""

    def __init__(self, s):
        self.s, self.numbers, self.videos = s, count(), {name: [] for name in PROJECTS}

    def collect(self, project):
        batch_id, videos = scale.collect(self.s, next(self.numbers), 1)
        batches.mark(self.s.blobs, batch_id, batches.PROJECT, {"project": project})
        self.videos[project] += videos
        return batch_id

    def check(self, n):
        for project, videos in self.videos.items():
            newest = releases.load(self.s.blobs, releases.names(self.s.blobs, project)[-1])
            assert newest.verify() == [], n
            assert Counter(m.masklet_id for m in newest.iter_masklets()) == of_videos(*videos), (n, project)
            assert newest.counts["masklets"] == len(list(newest.iter_masklets()))
            numbers = [releases.place(name)[0] for name in releases.names(self.s.blobs, project)]
            assert len(numbers) == len(set(numbers))


def publish_killed(s, batch_id):
    """A publish that is killed between its commit and its release."""

    def killed(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as early, pytest.raises(Killed):
        early.setattr(new_release, "of_commit", killed)
        publish.publish_batch(s, batch_id)


@pytest.mark.parametrize("others", ["both", "killed"])
def test_two_projects_that_publish_at_once_have_all_their_batches_in_their_newest_releases(s, pause, others):
    """The lock is lost at any write, and another process publishes for both projects, or is killed while it does."""
    published, n, reached = Published(s), 0, True
    while reached:
        before, mine, other, more = (published.collect(of) for of in ("pets", "street", "pets", "street"))
        publish_killed(s, before)  # so the next publish makes a release of both projects

        def meanwhile(other=other, more=more):
            (publish_killed if others == "killed" else publish.publish_batch)(s, other)
            if others == "both":
                publish.publish_batch(s, more)

        pause.before(n, meanwhile)
        try_until_done(lambda mine=mine: publish.publish_batch(s, mine))
        reached = pause.was_reached
        for batch_id in (before, other, more):
            publish.publish_batch(s, batch_id)
        published.check(n)
        n += 1
    assert n > 5
    taken = {key.split("/")[1].split(".")[0] for key in s.blobs.keys("release-numbers/")}
    assert taken == set(PROJECTS), "each project has numbers of its own"


def test_a_release_that_came_before_the_number_was_chosen_is_in_the_next_one(s, monkeypatch):
    published = Published(s)
    publish.publish_batch(s, published.collect("pets"))
    mine, other = published.collect("street"), published.collect("street")
    real = release_numbers.new_name

    def late(*arguments):
        monkeypatch.setattr(release_numbers, "new_name", real)
        publish.publish_batch(s, other)
        return real(*arguments)

    monkeypatch.setattr(release_numbers, "new_name", late)
    try_until_done(lambda: publish.publish_batch(s, mine))
    published.check(0)
    assert len(releases.names(s.blobs, "street")) == 2


def test_publishes_that_are_killed_at_any_write_lose_no_batch_of_another_project(s, pause, monkeypatch):
    """The snapshots of before are expired at once, so what a release does not find is lost for ever."""
    monkeypatch.setattr("storage.iceberg.table_upkeep.KEPT", 0)
    monkeypatch.setattr(publish, "EXPIRED_TOGETHER", 1)
    published, n, reached = Published(s), 0, True

    def killed(*_):
        raise Killed

    while reached:
        first, second, third, last = (published.collect(of) for of in ("street", "pets", "pets", "street"))
        publish_killed(s, first)
        pause.before(n, killed)
        try:
            publish.publish_batch(s, second)
        except Killed:
            pass
        reached = pause.was_reached
        pause.before(-1, killed)  # the following are not killed
        for batch_id in (third, second, first, last):
            publish.publish_batch(s, batch_id)
        published.check(n)
        n += 1
    assert n > 8
