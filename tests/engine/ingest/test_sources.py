"""Which files of a source are listed, and where its links may lead. No file is opened."""

from pathlib import Path

import pytest

from engine.ingest.sources import list_files
from engine.services import connect
from engine.settings import Settings, StorageSettings
from storage.blobs.folder import LocalBlobs


@pytest.fixture
def s(tmp_path):
    with connect(
        Settings(
            home=tmp_path / "disk" / "home",
            storage=StorageSettings(root=str(tmp_path / "store"), catalog_uri=f"sqlite:///{tmp_path}/catalog.db"),
        )
    ) as services:
        yield services


def files(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_no_link_leads_to_the_store_or_the_home_also_not_through_a_folder_that_contains_it(s, tmp_path):
    source, disk = tmp_path / "source", s.home.parent
    files(source / "a.mp4", disk / "videos" / "b.mp4", s.home / "made.mp4")
    s.blobs.write("videos/v/video.mp4", b"of the engine")
    (disk / "again").symlink_to(s.home)
    targets = {"disk": disk, "home": s.home, "store": s.blobs.uri, "below": f"{s.blobs.uri}/videos", "up": tmp_path}
    for name, target in targets.items():
        (source / name).symlink_to(target)
    found = [file.key for file in list_files(s, LocalBlobs(source)).files]
    assert found == ["a.mp4", "disk/videos/b.mp4"]


def test_a_link_from_one_folder_of_the_home_to_another_is_followed(s):
    files(s.home / "source" / "a.mp4", s.home / "beside" / "b.mp4")
    (s.home / "source" / "link").symlink_to(s.home / "beside")
    found = [file.key for file in list_files(s, LocalBlobs(s.home / "source")).files]
    assert found == ["a.mp4", "link/b.mp4"]


def test_what_is_in_a_hidden_folder_is_skipped_unless_the_source_itself_is_in_one(s, tmp_path):
    source = tmp_path / ".mounted" / "source"
    hidden = ("in/.b.mp4", ".Trash-1000/files/c.mp4", "in/.snapshots/d.mp4", ".Trash-1000/metadata.csv")
    files(source / "a.mp4", *(source / key for key in hidden))
    listing = list_files(s, LocalBlobs(source))
    assert ([file.key for file in listing.files], listing.skipped) == (["a.mp4"], 4)
    assert listing.metadata.bad == [], "a table that somebody deleted says nothing"
