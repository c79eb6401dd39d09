"""The services of some settings: the permissions of the files in the home, and the policy of the queue."""

from __future__ import annotations

import os
import sys

import pytest

from annotation_queue.records import QueuePolicy, Role
from engine.services import connect
from engine.settings import Settings
from storage.dataset import parts
from tests.engine.ingest.test_admitted import counted
from tests.storage import rows


@pytest.fixture
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder):
    """The permissions of the files and folders in a folder, by name."""
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.server
def test_no_other_user_can_read_what_a_home_holds(tmp_path, usual_umask):
    home = tmp_path / "new" / "home"
    with connect(Settings(home=home)) as s:
        tickets, accounts = s.open_queue()
        tickets.stats()
        accounts.add("vera", [Role.VERIFIER], "correct horse")
        assert s.tables.videos() == []
        assert s.registry.promoted() is None
        assert home.stat().st_mode & 0o777 == 0o700
        found = modes(home)
        secret = {"pipeline.token", "queue.db", "queue.db-wal", "queue.db-shm", "catalog.db", "mlflow.db"}
        assert secret <= set(found)
        assert {found[name] for name in secret} == {0o600}


def test_the_checkpoint_of_a_new_home_is_known_without_mlflow(tmp_path, monkeypatch):
    """Importing MLflow and creating its tables takes seconds: most commands need neither."""
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import fails
    with connect(Settings(home=tmp_path)) as s:
        assert (s.checkpoint().name, s.checkpoint().round) == (s.settings.model.checkpoint, 0)


def test_a_store_outside_the_home_keeps_the_permissions_of_the_umask(tmp_path, usual_umask):
    settings = Settings(home=tmp_path / "home")
    shared = settings.storage.model_copy(update={"root": str(tmp_path / "store")})
    with connect(settings.model_copy(update={"storage": shared})) as s:
        s.blobs.write("videos/one", b"x")
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "store" / "videos" / "one").stat().st_mode & 0o077


def test_the_queue_follows_the_policy_of_the_settings(tmp_path):
    for changes in ({}, {"makers": 3, "makers_share": 0.5, "other_verifier": False}):
        with connect(Settings(home=tmp_path, queue=changes)) as s:
            assert s.open_queue()[0].policy == QueuePolicy(**changes)


@pytest.mark.slow
def test_a_video_is_found_without_the_table_and_one_that_only_the_table_knows_is_found_there(tmp_path, monkeypatch):
    with connect(Settings(home=tmp_path / "home")) as s:
        written = rows.make_video("a1", batch_id="b1")
        older = rows.make_video("a2", batch_id="b1")
        for video in (written, older):
            parts.write_part(s.blobs, kind="videos", batch_id="b1", video_id=video.video_id, rows=[video])
        parts.commit_batch(s.blobs, s.tables, "videos", "b1")
        s.blobs.create("videos/a1/committed", b"b1")
        with monkeypatch.context() as patch:
            counts = counted(patch)
            assert s.video("a1") == written
        assert counts == {"read": 3}, "its batch, its marker and its part, whatever else is there"
        assert s.video("a2") == older
        for name in ("a3", "../a1", "a1' or true"):
            with pytest.raises(ValueError, match="no admitted video"):
                s.video(name)
