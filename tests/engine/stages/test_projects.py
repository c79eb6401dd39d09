"""Two projects in one installation, through the real stages: each has its videos, labels, people and releases."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest

from annotation_queue.client import QueueClient
from annotation_queue.errors import QueueError
from annotation_queue.records import Kind, Reason, Role
from engine import batches, trouble
from engine.batches import BatchStage
from engine.cli import doctor
from engine.cli.data import newest
from engine.ingest import admitted, ingest
from engine.processes import ports
from engine.rounds import campaign, chain, starting
from engine.services import connect
from engine.serving import notices as events
from engine.settings import NoSuchProject, QueueSettings, Settings
from engine.stages import new_release, publish, review, routing, upkeep, withdrawing
from engine.stages.gold import gold_tickets
from engine.synthetic import scene, video_files
from storage import ontology
from storage.dataset import parts, release_names, releases
from storage.records import Verdict

SCENE = scene.Scene(height=64, width=96, frames=24, objects=(1, 2), clutter=(0, 0), size=(0.3, 0.4), leave=0.0)
PROJECTS = """
[projects.street]
people = ["ann", "lea"]
ingest.source = "{place}/street"
review.ontology = "{place}/street.toml"
review.label_at = "verify"
campaign.phases = [{{ phase = "1", masklets = 1 }}, {{ phase = "2", retrainings = 1 }}]

[projects.pets]
people = ["vera"]
ingest.source = "{place}/pets"
review.ontology = "{place}/pets.toml"
review.label_at = "verify"
review.phase = "2"
"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A folder with the videos of two projects, two each, and their ontologies."""
    place = tmp_path_factory.mktemp("projects")
    for n, (name, word) in enumerate((("street", "car"), ("pets", "cat"))):
        video_files.write_videos(place / name, 2, SCENE, seed=7 + n)
        (place / f"{name}.toml").write_text(f'[[classes]]\nname = "{word}"\n')
    return place


@pytest.fixture
def settings(tmp_path, videos, monkeypatch):
    file = tmp_path / "masklets.toml"
    file.write_text(PROJECTS.format(place=videos))
    monkeypatch.setenv("MASKLETS_CONFIG", str(file))
    return Settings(home=tmp_path / "home", queue=QueueSettings(port=ports.free_port()))


def admit(s):
    """The batch of each project, after an ingest of all sources."""
    for piece_id in ingest.plan(s):
        ingest.admit_piece(s, piece_id)
    return {batches.project_of(s.blobs, batch_id): batch_id for batch_id in batches.unfinished(s.blobs)}


def propose_true(s, batch_id):
    """Marks the true masklets of a batch as its candidates."""
    for video in batches.videos(s, batch_id):
        new = {"batch_id": batch_id, "kind": "auto", "phase": "auto", "verdict": None, "split": video.split}
        rows = [replace(m, masklet_id=f"c{m.masklet_id}", **new) for m in admitted.truths(s.blobs, video)]
        parts.write_part(s.blobs, kind="candidates", batch_id=batch_id, video_id=video.video_id, rows=rows)
    batches.mark(s.blobs, batch_id, BatchStage.PROPOSED, {"imported": 0})


def accept_all(s, accounts, name, label):
    with QueueClient(s.settings.queue_url, token=accounts.issue_token(name)) as client:
        count = 0
        while held := client.claim([Kind.VERIFY]):
            client.label(held, label, {})
            client.finish(held, verdict=Verdict.ACCEPT)
            count += 1
    return count


@pytest.fixture
def opened(queue, monkeypatch):
    """A batch of each project whose tickets are open."""
    monkeypatch.setattr(routing, "of_batch", lambda s, batch_id, rows: {})
    found = admit(queue)
    for batch_id in found.values():
        propose_true(queue, batch_id)
        review.open_batch(queue, batch_id, campaign.phase_of_batch(queue, batch_id))
    _, accounts = queue.open_queue()
    for name in ("ann", "vera"):
        accounts.add(name, [Role.VERIFIER, Role.ANNOTATOR])
    accounts.add("lea", [Role.LEAD])
    return found


def test_the_whole_loop_with_two_projects(queue, opened):
    tickets, accounts = queue.open_queue()
    assert {name: tickets.batch(batch_id).project for name, batch_id in opened.items()} == {
        "street": "street",
        "pets": "pets",
    }
    phases = {each.project: each.phase for each in tickets.find(limit=100)}
    assert phases == {"street": "1", "pets": "2"}, "the plan of one, the setting of the other"
    with QueueClient(queue.settings.queue_url, token=accounts.issue_token("ann")) as client:
        held = client.claim([Kind.VERIFY])
        assert held is not None
        with pytest.raises((QueueError, ValueError)):
            client.label(held, "cat", {})
        client.release(held)
    counts = {"street": accept_all(queue, accounts, "ann", "car"), "pets": accept_all(queue, accounts, "vera", "cat")}
    made = {}
    for name, batch_id in opened.items():
        review.collect(queue, batch_id)
        made[name] = releases.load(queue.blobs, publish.publish_batch(queue, batch_id))
    for name, word in (("street", "car"), ("pets", "cat")):
        rows = list(made[name].iter_masklets())
        assert made[name].name == f"{name}.release-0001-{opened[name]}"
        assert len(rows) == counts[name] > 0 and {row.label for row in rows} == {word}
        assert {row.batch_id for row in rows} == {opened[name]}
        assert made[name].counts["masklets"] == counts[name] and made[name].extra["project"] == name
        assert releases.names(queue.blobs, name) == [made[name].name]
        assert made[name].verify() == []
    assert releases.names(queue.blobs, "") == []
    assert release_names.give_name(queue.blobs, queue.tables, made["pets"], "v1.0")[0].counts == made["pets"].counts
    assert releases.names(queue.blobs, "") == [], "a name that a person gave makes no release of the unnamed project"
    upkeep.compact(queue)
    with pytest.raises(ValueError, match="name a release") as caught:
        newest(queue)
    assert all(release.name in str(caught.value) for release in made.values())
    standing = {(of.project, of.phase): (of.state, of.masklets) for of in campaign.of_all(queue)}
    assert standing == {("street", "1"): ("done", counts["street"]), ("street", "2"): ("current", 0)}
    assert campaign.phase_of_new_tickets(queue, "street") == "2"
    gold = gold_tickets(queue, tickets.batch_result(opened["pets"]), "2")
    version = ontology.read(queue.settings.projects["pets"].review.ontology).version
    assert gold and all(version in each.ticket.payload for each in gold)


def test_the_next_release_of_a_project_goes_on_with_its_own_last_one(queue, opened, videos, tmp_path, monkeypatch):
    _, accounts = queue.open_queue()
    accept_all(queue, accounts, "ann", "car"), accept_all(queue, accounts, "vera", "cat")
    for name in ("street", "pets"):
        review.collect(queue, opened[name])
        publish.publish_batch(queue, opened[name])
    more = tmp_path / "more"
    video_files.write_videos(more, 1, SCENE, seed=99)
    (second,) = ingest.admit(queue, str(more), project="street").batch_ids
    propose_true(queue, second)
    review.open_batch(queue, second, "2")
    accept_all(queue, accounts, "ann", "car")
    review.collect(queue, second)
    release = releases.load(queue.blobs, publish.publish_batch(queue, second))
    assert release.name == f"street.release-0002-{second}"
    assert {ref.batch_id for ref in release.batches} == {opened["street"], second}
    upkeep.compact(queue, least=1)
    compacted = releases.load(queue.blobs, releases.names(queue.blobs, "street")[-1])
    assert compacted.name.startswith("street.release-0003-compacted-")
    assert {row.label for row in compacted.iter_masklets()} == {"car"}
    (video_id,) = batches.video_ids(queue.blobs, second)
    done = withdrawing.withdraw(queue, video_id, by="lea", why="asked")
    assert done.release.startswith("street.release-0004-without-")
    assert releases.load(queue.blobs, releases.names(queue.blobs, "pets")[-1]).verify() == []
    assert starting.due(queue) is None


def test_a_batch_whose_publish_was_killed_before_its_release_is_in_the_next_one(queue, opened, monkeypatch):
    """Another project publishes meanwhile, and the snapshots of before are expired."""
    _, accounts = queue.open_queue()
    accept_all(queue, accounts, "ann", "car"), accept_all(queue, accounts, "vera", "cat")
    for batch_id in opened.values():
        review.collect(queue, batch_id)
    with monkeypatch.context() as killed:
        killed.setattr(new_release, "of_commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish.publish_batch(queue, opened["street"])
    monkeypatch.setattr("storage.iceberg.table_upkeep.KEPT", 0)
    monkeypatch.setattr(publish, "EXPIRED_TOGETHER", 1)
    pets = releases.load(queue.blobs, publish.publish_batch(queue, opened["pets"]))
    assert {row.batch_id for row in pets.iter_masklets()} == {opened["pets"]}
    street = releases.load(queue.blobs, publish.publish_batch(queue, opened["street"]))
    assert {row.batch_id for row in street.iter_masklets()} == {opened["street"]}
    assert releases.names(queue.blobs, "street") == [street.name]


def test_a_project_in_which_all_was_rejected_has_no_release_yet(queue, opened):
    _, accounts = queue.open_queue()
    accept_all(queue, accounts, "ann", "car")
    with QueueClient(queue.settings.queue_url, token=accounts.issue_token("vera")) as client:
        while held := client.claim([Kind.VERIFY]):
            client.finish(held, verdict=Verdict.REJECT, reasons=[Reason.OTHER])
    for batch_id in opened.values():
        review.collect(queue, batch_id)
    assert publish.publish_batch(queue, opened["street"]).startswith("street.")
    assert publish.publish_batch(queue, opened["pets"]) == ""
    assert releases.names(queue.blobs, "pets") == [] and starting.due(queue) is None


def test_notices_name_the_project(queue, opened):
    tickets, accounts = queue.open_queue()
    old = events.waiting(queue, tickets.database, 1.0, time.time() + 100)
    assert {notice.project for notice in old} == {"street", "pets"}
    accept_all(queue, accounts, "vera", "cat")
    assert [notice.project for notice in events.drained(tickets.database)] == ["pets"]
    review.collect(queue, opened["pets"])
    publish.publish_batch(queue, opened["pets"])
    assert [notice.project for notice in events.published(queue, tickets.database, 0.0)] == ["pets"]


def test_a_killed_ingest_keeps_the_project_of_its_videos(settings, monkeypatch):
    """The next run, of another project, commits them as a batch of theirs."""
    with connect(settings) as s:

        def commit(*_, only=None):  # None: before the first video is judged
            if only is not None:
                raise KeyboardInterrupt
            return [], []

        with monkeypatch.context() as killed:
            killed.setattr(admitted, "commit", commit)
            with pytest.raises(KeyboardInterrupt):
                ingest.admit(s, project="street")
        pets = ingest.admit(s, project="pets").batch_id
        marks = {batches.project_of(s.blobs, batch_id): batch_id for batch_id in batches.reached(s.blobs)}
        assert marks.keys() == {"street", "pets"} and marks["pets"] == pets
        sources = {v.source_uri.split("/")[-2] for v in batches.videos(s, marks["street"])}
        assert sources == {"street"}


def test_the_project_is_marked_before_the_batch_is_seen(settings, monkeypatch):
    with connect(settings) as s:
        mark, seen = batches.mark, []

        def noting(blobs, batch_id, name, facts):
            seen.append((name, s.tables.row_count("videos")))
            return mark(blobs, batch_id, name, facts)

        monkeypatch.setattr(batches, "mark", noting)
        ingest.admit(s, project="pets")
        assert seen[0] == (batches.PROJECT, 0) and seen[-1] == (BatchStage.INGESTED, 2)


def test_without_projects_nothing_is_marked_and_a_release_has_its_plain_name(tmp_path, videos):
    with connect(Settings(home=tmp_path / "home")) as s:
        (batch_id,) = ingest.admit(s, str(videos / "pets")).batch_ids
        assert batches.project_of(s.blobs, batch_id) == ""
        assert not [key for key in s.blobs.keys("") if "project" in key]
        assert b'"project"' not in s.blobs.read(next(k for k in s.blobs.keys("videos/") if k.endswith("record.json")))
        assert s.open_queue()[1].projects.members == {}


def test_one_bad_source_does_not_keep_the_others_from_being_ingested(settings, videos, tmp_path):
    gone = tmp_path / "gone"
    broken = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"source": str(gone)})})
    with connect(broken) as s:
        assert admit(s).keys() == {"street", "pets"}
        with pytest.raises(Exception, match="no such folder"):
            ingest.plan(s)  # the others have nothing new
        assert [(found.stage, found.project) for found in trouble.stuck(s.blobs)] == [("ingest", "")]
        shutil.copytree(videos / "pets", gone)
        admit(s)
        assert trouble.stuck(s.blobs) == []


def test_doctor_names_the_source_and_the_ontology_of_each_project(settings):
    with connect(settings) as s:
        assert "street, which holds files" in doctor._source(s) and "pets, which holds files" in doctor._source(s)
        assert doctor._ontology(s).startswith("street: 1 class, version ") and "pets: 1 class" in doctor._ontology(s)


def test_doctor_counts_the_people_of_each_project_and_finds_names_without_an_account(settings):
    with connect(settings) as s:
        _, accounts = s.open_queue()
        accounts.add("ann", [Role.VERIFIER])
        accounts.add("vera", [Role.ANNOTATOR])
        check = doctor._try("people", doctor._people, s)
        assert not check.ok and check.detail == "project street: lea has no account: masklets users add"
        accounts.add("lea", [Role.LEAD])
        assert doctor._people(s) == "street: 2 may verify, 1 may correct; pets: 0 may verify, 1 may correct"
        strict = settings.model_copy(
            update={"queue": settings.queue.model_copy(update={"makers_share": 1.0, "makers": 2})}
        )
    with connect(strict) as s:
        check = doctor._try("people", doctor._people, s)
        assert check.detail == "project street: queue.makers asks for 2 people, 1 may correct"


def test_a_project_that_the_settings_do_not_have_is_named(settings):
    with connect(settings) as s:
        with pytest.raises(NoSuchProject, match="no project 'cars'; there are: street, pets"):
            ingest.admit(s, project="cars")


@pytest.mark.parametrize("name", ["street.release-0002-x", "release-0002-x", "a-1.release-0010-compacted-y"])
def test_names_of_releases_say_their_project_and_place(name):
    project, dot, plain = name.rpartition(".")
    assert releases.project_of(name) == project and releases.place(name)[0] == int(plain.split("-")[1])


def test_names_that_people_give_are_of_no_project():
    assert releases.project_of("v1.0") == releases.project_of("paper.release") == ""
    assert chain._is_in("a.release-0001-x", "a.release-0002-y")
    assert not chain._is_in("b.release-0001-x", "a.release-0002-y")
