"""The folder of an export: one release in one format, and no path out of it, whoever made the release."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from storage import arrow
from storage.blobs.folder import LocalBlobs
from storage.dataset import releases
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.releases import Release
from storage.formats import by_frame, davis, destination, hub, sav
from storage.formats.destination import WrongFolder
from storage.formats.timeline import Timeline
from storage.records import Masklet, Video
from storage.videos import video
from tests.storage.rows import make_masklet, make_video


def release_named(name: str, digest: str = "a") -> Release:
    return cast(Release, SimpleNamespace(name=name, digest=digest))  # the rest is not looked at


def test_an_export_may_be_repeated_and_no_other_goes_into_its_folder(tmp_path):
    folder = tmp_path / "out"
    for _ in range(2):
        destination.open_folder(folder, "sa-v", release_named("release-0001"))
    others = [
        ("davis", release_named("release-0001")),
        ("sa-v", release_named("release-0002")),
        ("sa-v", release_named("release-0001", digest="b")),  # of another home
    ]
    for form, other in others:
        with pytest.raises(WrongFolder, match="holds release-0001 as sa-v: choose another folder"):
            destination.open_folder(folder, form, other)


def test_a_folder_of_something_else_and_a_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WrongFolder, match="is not empty, and no export made it"):
        destination.open_folder(tmp_path, "sa-v", release_named("release-0001"))
    with pytest.raises(WrongFolder, match="is a file"):
        destination.open_folder(tmp_path / "notes.txt", "sa-v", release_named("release-0001"))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/b", "/etc", "", ".hidden", "a\\b", "a\0", "x" * 201])
def test_a_name_that_could_be_another_path_is_refused(tmp_path, name):
    with pytest.raises(ReleaseError, match="not an id"):
        destination.place(tmp_path, name)


class TwoVideos:
    """What exporters use of a release of two videos without pictures."""

    name, digest, blobs = "release-0001", "a", None

    def __init__(self) -> None:
        self.read: list[str] = []

    def videos(self) -> list[Video]:
        return [make_video(video_id) for video_id in ("v1", "v2")]

    def masklets(self, video_ids: set[str]) -> list[Masklet]:
        self.read += video_ids
        return [make_masklet(video_id=video_id) for video_id in video_ids]


def test_an_export_that_was_killed_goes_on_with_the_next_video(tmp_path, monkeypatch):
    release, folder, real = TwoVideos(), tmp_path / "out", by_frame.write

    def killed(file, fields):
        if fields["video_id"] == "v2":
            file.write("{")
            raise KeyboardInterrupt
        real(file, fields)

    with monkeypatch.context() as patch:
        patch.setattr(by_frame, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            sav.export(cast(Release, release), folder)
    assert release.read == ["v1", "v2"]
    seen: list[tuple[int, int, str]] = []
    done = sav.export(cast(Release, release), folder, progress=lambda *about: seen.append(about))
    assert release.read == ["v1", "v2", "v2"] and seen == [(1, 2, "v1"), (2, 2, "v2")]
    assert [path.name for path in done.files] == ["v1_auto.json", "v2_auto.json"]
    (folder / "v1_auto.json").unlink()
    assert all(path.is_file() for path in sav.export(cast(Release, release), folder).files)
    assert release.read[3:] == ["v1"]


def test_a_note_of_another_version_is_not_believed(tmp_path):
    release, folder = TwoVideos(), tmp_path / "out"
    sav.export(cast(Release, release), folder)
    (note,) = folder.glob(f"{destination.DONE}/*/v1.json")
    note.write_text('{"files": [], "agreement": {}, "new": 1}')
    sav.export(cast(Release, release), folder)
    assert release.read == ["v1", "v2", "v1"]


def test_the_timeline_is_part_of_what_a_folder_holds(tmp_path):
    release = release_named("release-0001")
    destination.open_folder(tmp_path / "out", "sa-v", release, Timeline.SOURCE)
    with pytest.raises(WrongFolder, match="holds release-0001 as sa-v on the timeline source: choose"):
        destination.open_folder(tmp_path / "out", "sa-v", release)


def made_by_a_stranger(root: Path, video_id: str, split: str = "train", in_manifest: str | None = None) -> LocalBlobs:
    """A store with one release, whose only video has this id."""
    blobs = LocalBlobs(root)
    row = make_video(video_id=video_id, split=split, video_key="videos/v.mp4")
    blobs.create("videos.parquet", arrow.to_parquet(Video, [row]))
    blobs.create("masklets.parquet", arrow.to_parquet(Masklet, [make_masklet(video_id=video_id)]))
    (root / "videos").mkdir()
    video.write(root / row.video_key, np.zeros((row.frame_count, row.height, row.width, 3), np.uint8))

    def listed(key: str, of: str | None = None) -> dict[str, object]:
        return {"key": key, "sha256": "0" * 64, "size": (root / key).stat().st_size, "rows": 1} | (
            {"video_id": of} if of else {}
        )

    files = {
        "masklets": [listed("masklets.parquet", in_manifest)],
        "videos": [listed("videos.parquet")],
        "media": [listed(row.video_key, video_id)],
    }
    manifest = {"format": 1, "name": "release-0001", "files": files}
    manifest |= {key: {} for key in ("counts", "extra", "snapshots", "schemas")}
    blobs.create("releases/release-0001/manifest.json", json.dumps(manifest).encode())
    return blobs


@pytest.mark.parametrize("video_id", ["../../pwned", "/tmp/pwned", "..", "..\\pwned", "C:\\pwned"])
def test_a_release_with_an_id_that_is_a_path_is_refused_when_it_is_loaded(tmp_path, video_id):
    blobs = made_by_a_stranger(tmp_path / "store", video_id)
    with pytest.raises(ReleaseError, match="not an id"):
        releases.load(blobs, "release-0001")


def test_a_name_that_is_shared_or_could_be_a_path_gives_way_to_the_id():
    def named(video_id: str, source_name: str | None) -> Video:
        return make_video(video_id=video_id, source_name=source_name)

    videos = [named("v1", "beach"), named("v2", "Bear"), named("v3", "bear"), named("v4", "../x"), named("v5", None)]
    videos += [named("v6", "V5"), named("v7", "v7"), named("v8", "")]
    assert list(destination.names(videos).values()) == ["beach", "v2", "v3", "v4", "v5", "v6", "v7", "v8"]


@pytest.mark.parametrize("strange", ["../../pwned", "/{root}/pwned", "..\\..\\pwned", "..", "a/b"])
@pytest.mark.parametrize("export", [sav.export, davis.export, hub.export])
def test_no_export_leaves_its_folder(tmp_path, export, strange):
    """The manifest names an honest video; the row in the table has another id, or its split is a path."""
    strange = strange.replace("/{root}", str(tmp_path))
    for n, (video_id, split) in enumerate([(strange, "train"), ("v1", strange)]):
        store = tmp_path / f"{n}" / "deep"
        blobs = made_by_a_stranger(store, video_id, split)
        manifest = store / "releases" / "release-0001" / "manifest.json"
        manifest.write_text(manifest.read_text().replace(json.dumps(video_id), '"v1"'))
        before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
        release = releases.load(blobs, "release-0001")
        if split == "train" or export is not sav.export:
            with pytest.raises(ReleaseError, match="not an id"):
                export(release, store / "out")
        else:
            export(release, store / "out")
        after = [p for p in tmp_path.rglob("*") if p.is_file() and p not in before]
        assert all(p.is_relative_to(store / "out") for p in after)
