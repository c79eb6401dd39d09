"""SA-V and back: names, splits, metadata, the order of objects and odd sides survive import and export."""

import json

import numpy as np
import pytest

from engine.ingest import splits
from engine.services import connect
from engine.settings import IngestSettings, Settings
from engine.stages import imports
from storage import rle
from storage.dataset import releases
from storage.formats import davis, sav
from tests.storage import made_videos

H, W, OBJECTS = 64, 96, 6


@pytest.fixture
def home(tmp_path):
    """Opens a home of this name; half of the videos would be held out if the source held out none."""

    def opened(name):
        return connect(Settings(home=tmp_path / name, ingest=IngestSettings(held_out_share=0.5)))

    return opened


def column(n, height=H, width=W):
    """The mask of object n: a column of its own width, so that its area tells which object it is."""
    mask = np.zeros((height, width), bool)
    mask[:, 15 * n : 15 * n + n + 1] = True
    return mask


def annotate(folder, name, *, objects=range(OBJECTS), height=H, width=W, shade=0, options=None, **facts):
    """One second of video, and its annotation with these objects in this order."""
    frames = [made_videos.numbered(i + shade, height, width) for i in range(24)]
    made_videos.make(folder / f"{name}.mp4", frames, **(options or {}))
    counts = [rle.encode(column(n, height, width)).decode() for n in objects]
    masks = [[{"size": [height, width], "counts": c} for c in counts] for _ in range(6)]
    note = {"video_id": name, "video_duration": 1.0, "video_frame_count": 24.0, "masklet": masks, **facts}
    (folder / f"{name}_manual.json").write_text(json.dumps(note))


def areas(note):
    return [size // H for size in note["masklet_size_abs"]]


def imported(s, folder):
    report = imports.import_folder(s, folder)
    assert report.quarantined == 0, s.tables.quarantine()
    return releases.load(s.blobs, report.release)


def notes_of(folder):
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("[!.]*.json"))}


def test_names_splits_metadata_and_the_order_of_objects_survive_a_round_trip(tmp_path, home):
    source = tmp_path / "source"
    source.mkdir()
    order = [3, 0, 5, 1, 4, 2]
    facts: dict[str, object] = {
        "video_environment": "Indoor",
        "author": "author-0123456789ab",
        "country": {"code": "DK"},
        "masklet_source": "club",
        "masklet_label": [f"shirt {n}" for n in order],
        "masklet_sharpness": [[n + t / 10 for n in order] for t in range(6)],
    }
    annotate(source, "sav_000001", objects=order, video_split="train", near_duplicate_of="sav_000007", **facts)
    annotate(source, "sav_000007", video_split="val", video_environment="Outdoor", author="Søren", shade=30)
    with home("first") as s:
        author = splits.pseudonym(s.blobs, "Søren")
        release = imported(s, source)
        sav.export(release, tmp_path / "sa-v", media=True)
        davis.export(release, tmp_path / "davis")
    first = notes_of(tmp_path / "sa-v")
    assert list(first) == ["sav_000001_manual.json", "sav_000007_manual.json"]
    note = first["sav_000001_manual.json"]
    assert set(note) == {*sav.KEYS, *facts}
    assert (note["video_id"], note["video_split"]) == ("sav_000001", "train")
    assert {key: note[key] for key in facts} == facts
    assert [size - 1 for size in areas(note)] == order
    other = first["sav_000007_manual.json"]
    assert (other["video_split"], other["video_environment"], other["author"]) == ("val", "Outdoor", author)
    with home("second") as s:
        sav.export(imported(s, tmp_path / "sa-v"), tmp_path / "again", media=True)
    assert notes_of(tmp_path / "again") == first
    assert davis.names(tmp_path / "davis") == {"sav_000001": "train", "sav_000007": "val"}
    masks = davis.open_video(tmp_path / "davis", "sav_000001", "train").masks()
    assert [rle.area(masks[n + 1][0], H, W) // H - 1 for n in range(OBJECTS)] == order


@pytest.mark.parametrize(("height", "width"), [(241, 321), (240, 321), (241, 320)])
def test_an_odd_sided_video_is_imported_and_exported(tmp_path, home, height, width):
    """Its sides become even; its name, its metadata and the order of its objects stay, also in a second round trip."""
    source, order = tmp_path / "source", [3, 0, 5, 1, 4, 2]
    source.mkdir()
    facts = {"video_environment": "Indoor", "masklet_label": [f"shirt {n}" for n in order]}
    options = {"pix_fmt": "yuv444p"}
    annotate(source, "sav_000003", objects=order, height=height, width=width, options=options, **facts)
    with home("first") as s:
        release = imported(s, source)
        sav.export(release, tmp_path / "sa-v", media=True)
        davis.export(release, tmp_path / "davis")
    (name, note), *others = notes_of(tmp_path / "sa-v").items()
    assert (name, note["video_id"], others) == ("sav_000003_manual.json", "sav_000003", [])
    assert (note["video_height"], note["video_width"]) == (240.0, 320.0)
    assert {tuple(mask["size"]) for frame in note["masklet"] for mask in frame} == {(240, 320)}
    assert [size // 240 - 1 for size in note["masklet_size_abs"]] == order
    assert {key: note[key] for key in facts} == facts
    masks = davis.open_video(tmp_path / "davis", "sav_000003", "train").masks()
    assert [rle.area(masks[n + 1][0], 240, 320) // 240 - 1 for n in range(OBJECTS)] == order
    with home("second") as s:
        sav.export(imported(s, tmp_path / "sa-v"), tmp_path / "again")
    assert notes_of(tmp_path / "again") == notes_of(tmp_path / "sa-v")


def test_the_share_decides_about_a_source_that_holds_out_nothing_and_test_videos_stay_test(tmp_path, home):
    source = tmp_path / "source"
    source.mkdir()
    for n, split in enumerate(("train", "train", "train", "test")):
        annotate(source, f"v{n}", video_split=split, shade=20 * n)
    with home("first") as s:
        imported(s, source)
        splits = {video.source_name: video.split for video in s.tables.videos()}
    assert splits.pop("v3") == "test"
    assert sorted(splits.values()) == ["train", "val", "val"]


def test_two_videos_of_one_name_are_exported_under_their_ids(tmp_path, home):
    for n in range(2):
        (tmp_path / "source" / str(n)).mkdir(parents=True)
        annotate(tmp_path / "source" / str(n), "clip", shade=20 * n)
    with home("first") as s:
        release = imported(s, tmp_path / "source")
        sav.export(release, tmp_path / "sa-v")
        ids = [video.video_id for video in release.videos()]
    notes = notes_of(tmp_path / "sa-v")
    assert list(notes) == [f"{video_id}_manual.json" for video_id in ids]
    assert [note["video_id"] for note in notes.values()] == ["clip", "clip"]


def test_an_annotation_without_an_id_gives_its_file_name(tmp_path, home):
    source = tmp_path / "source"
    source.mkdir()
    annotate(source, "harbour", video_id=None)
    with home("first") as s:
        imported(s, source)
        assert [video.source_name for video in s.tables.videos()] == ["harbour"]
