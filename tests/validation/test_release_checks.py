"""A release is checked as a stranger's: repeated ids and ids that are paths are named, all of them."""

import hashlib
import json

import pytest

from storage import arrow
from storage.blobs.folder import LocalBlobs
from storage.dataset import releases
from storage.records import Masklet, Video
from tests.storage.rows import make_masklet, make_video
from validation import release_checks


@pytest.fixture
def checked(tmp_path):
    """Checks a release of these rows, whose manifest names the video v1."""

    def check(videos, masklets):
        blobs = LocalBlobs(tmp_path / "store")
        files = {
            "videos.parquet": arrow.to_parquet(Video, videos),
            "masklets.parquet": arrow.to_parquet(Masklet, masklets),
            "videos/v1.mp4": b"frames",
        }
        for key, content in files.items():
            blobs.create(key, content)

        def listed(key, **more):
            return {"key": key, "sha256": hashlib.sha256(files[key]).hexdigest(), "size": len(files[key]), **more}

        manifest = {
            "format": 1,
            "name": "release-0001",
            "files": {
                "masklets": [listed("masklets.parquet")],
                "videos": [listed("videos.parquet")],
                "media": [listed("videos/v1.mp4", video_id="v1")],
            },
        } | {key: {} for key in ("counts", "extra", "snapshots", "schemas")}
        blobs.create("releases/release-0001/manifest.json", json.dumps(manifest).encode())
        return release_checks.check(releases.load(blobs, "release-0001"))

    return check


def test_a_sound_release_has_no_problem(checked):
    rows = [make_masklet("m1"), make_masklet("m2")]
    videos = [make_video("v1"), make_video("v1", batch_id="b2"), make_video("v2")]  # v2 has no masklet
    assert checked(videos, rows) == release_checks.ReleaseReport(videos=1, masklets=2, problems=())


def test_a_masklet_id_that_is_there_twice_is_named(checked):
    found = checked([make_video("v1")], [make_masklet(n) for n in ("m1", "m2", "m1", "m1", "m3", "m3")])
    assert found.masklets == 6
    assert found.problems == ("m1: repeated: 3 rows with this id", "m3: repeated: 2 rows with this id")


PATHS = ["../../pwned", "/etc/pwned", "..\\pwned", "C:\\pwned", "..", ".hidden", "a/b"]


@pytest.mark.parametrize("video_id", PATHS)
def test_a_video_id_that_could_be_a_path_is_named_and_the_others_are_checked(checked, video_id):
    rows = [make_masklet("m1"), make_masklet("m2", video_id=video_id), make_masklet("m3", area_px=(1, 1, 0))]
    found = checked([make_video("v1"), make_video(video_id), make_video(video_id)], rows)
    strange, foreign, wrong = found.problems
    assert strange.startswith(f"videos: not an id: {video_id!r} (")
    assert foreign == f"m2: video: {video_id!r} is not a video of the release"
    assert wrong.startswith("m3: area: ")
    assert (found.videos, found.masklets) == (1, 3)


def test_all_ids_that_could_be_paths_are_named(checked):
    found = checked([make_video("v1"), *map(make_video, PATHS)], [make_masklet("m1")])
    assert [problem.split(" (")[0] for problem in found.problems] == [f"videos: not an id: {p!r}" for p in PATHS]


def test_a_file_that_was_changed_is_named_with_both_hashes(checked, tmp_path):
    checked([make_video("v1")], [make_masklet("m1")])
    (tmp_path / "store" / "videos" / "v1.mp4").write_bytes(b"others")
    (problem,) = release_checks.check(releases.load(LocalBlobs(tmp_path / "store"), "release-0001")).problems
    assert problem.startswith("videos/v1.mp4: sha256 ")


def break_file(place, key, how):
    """Damages a file below `place` and its line of the manifest, as a stranger may have written both."""
    file, manifest = place / key, place / "releases" / "release-0001" / "manifest.json"
    written = json.loads(manifest.read_text())
    (line,) = (line for of in written["files"].values() for line in of if line["key"] == key)
    if how == "missing":
        file.unlink()
    elif how == "a path":
        line["key"] = "../../pwned.parquet"
    else:
        content = arrow.to_parquet(Masklet, [])[:-20] if how == "cut" else b"no parquet"
        file.write_bytes(content)
        line |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    manifest.write_text(json.dumps(written))


@pytest.mark.parametrize("how", ["missing", "garbage", "cut", "a path"])
@pytest.mark.parametrize("key", ["masklets.parquet", "videos.parquet"])
def test_a_file_that_cannot_be_read_is_named_once_and_the_others_are_checked(checked, tmp_path, key, how):
    checked([make_video("v1")], [make_masklet("m1"), make_masklet("m1")])
    break_file(tmp_path / "store", key, how)
    found = release_checks.check(releases.load(LocalBlobs(tmp_path / "store"), "release-0001"))
    named = "../../pwned.parquet" if how == "a path" else key
    says = {"missing": "missing", "a path": "a key is a relative path"}.get(how, "cannot be read (")
    (line,) = (problem for problem in found.problems if problem.startswith(f"{named}: "))
    assert says in line and "\n" not in line
    if key == "videos.parquet":
        assert "m1: repeated: 2 rows with this id" in found.problems
    else:
        assert (found.videos, found.masklets) == (1, 0)
