"""Importing COCO, YouTube-VIS and CVAT: what is exported on the user's frames comes back, and bad rows are named."""

from __future__ import annotations

import json

import pytest

from engine.ingest import ingest, readers
from engine.services import connect
from engine.settings import IngestSettings, Settings
from engine.stages import imports, propose, publish, review, routing
from storage.dataset import parts, releases
from storage.formats import coco, cvat, sav, youtube_vis
from storage.formats.timeline import Timeline
from storage.masklet_rules import masklet_problems
from tests.engine import labelled_folders
from tests.storage import made_videos

FORMATS = {
    "coco": (coco.export, readers.coco_reader),
    "youtube-vis": (youtube_vis.export, readers.youtube_vis_reader),
    "cvat": (cvat.export, readers.cvat_reader),
}


@pytest.fixture
def home(tmp_path):
    """Opens a home of this name."""

    def opened(name):
        return connect(Settings(home=tmp_path / name, ingest=IngestSettings(held_out_share=0.5)))

    return opened


@pytest.fixture
def videos(tmp_path, home):
    """Two videos of 30 frames a second, and a release with a masklet of each: its masks show the numbers of frames."""
    place = tmp_path / "sa-v"
    place.mkdir()
    for n, name in enumerate(("beach", "street")):
        made_videos.make(place / f"{name}.mp4", [made_videos.numbered(i + 90 * n) for i in range(60)], fps=30)
        path = place / f"{name}_manual.json"
        labelled_folders.write_sav_note(path, range(0, 60, 5), 60, 2.0)
        note = json.loads(path.read_text()) | {"video_id": name, "masklet_label": ["hat"]}
        path.write_text(json.dumps(note))
    with home("first") as s:
        release = releases.load(s.blobs, imports.import_folder(s, place).release)
        yield place, release


def given(videos, tmp_path, form):
    """A folder with the videos and their annotation on the source's timeline; the reader of it."""
    place, release = videos
    export, reader = FORMATS[form]
    folder = tmp_path / "given"
    export(release, folder, line=Timeline.SOURCE)
    for path in place.glob("*.mp4"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder, reader


def masks_by_name(s):
    names = {video.video_id: video.source_name for video in s.tables.videos()}
    return {names[row.video_id]: row.rle for row in s.tables.masklets()}


@pytest.mark.parametrize("form", FORMATS)
def test_what_was_exported_on_the_users_frames_is_imported_with_the_same_masks(videos, tmp_path, home, form):
    folder, reader = given(videos, tmp_path, form)
    _, release = videos
    with home("second") as s:
        report = imports.import_folder(s, folder, reader_of=reader)
        assert (report.videos, report.masklets, report.quarantined, report.bad_files) == (2, 2, 0, 0), (
            s.tables.quarantine()
        )
        first = {v.source_name: release.masklets({v.video_id})[0].rle for v in release.videos()}
        assert masks_by_name(s).keys() == first.keys() == {"beach", "street"}
        assert form == "cvat" or masks_by_name(s) == first
        rows = s.tables.masklets()
        assert {row.label for row in rows} == {"hat"}
        assert {row.checkpoint for row in rows} == {form} and not ingest.admit(s, str(folder)).admitted
        sav.export(releases.load(s.blobs, report.release), tmp_path / "out")
    note = json.loads((tmp_path / "out" / "beach_manual.json").read_text())
    assert note["masklet_label"] == ["hat"]


def spoil(folder, change):
    (path,) = folder.glob("annotations/instances_*.json")
    good = path.read_text()
    note = json.loads(good)
    change(note)
    path.write_text(json.dumps(note))
    return path, good


def one_file(folder):
    """One COCO file of all splits: the videos have other splits than in their first home."""
    found = sorted(folder.glob("annotations/instances_*.json"))
    notes = [json.loads(path.read_text()) for path in found]
    for number, note in enumerate(notes):
        for key in ("videos", "images", "annotations", "categories"):
            for row in note[key]:
                row["id"] += 100 * number * (key != "categories")
        for row in note["images"]:
            row["video_id"] += 100 * number
        for row in note["annotations"]:
            row["image_id"] += 100 * number
    merged = notes[0] | {k: [r for note in notes for r in note[k]] for k in ("videos", "images", "annotations")}
    for path in found:
        path.unlink()
    (folder / "annotations" / "instances_all.json").write_text(json.dumps(merged))


def test_a_bad_row_costs_its_video_and_a_repaired_one_is_imported(videos, tmp_path, home):
    folder, reader = given(videos, tmp_path, "coco")
    one_file(folder)
    with home("second") as s:
        path, good = spoil(folder, lambda note: note["annotations"][3].update(segmentation=None))
        report = imports.import_folder(s, folder, reader_of=reader)
        assert (report.videos, report.masklets, report.quarantined) == (1, 1, 1)
        (record,) = s.tables.quarantine()
        (spoilt,) = {"beach.mp4", "street.mp4"} - {v.source_uri.rsplit("/", 1)[-1] for v in s.tables.videos()}
        assert record.subject.endswith(spoilt) and "\n" not in record.detail
        assert record.detail.startswith("annotations/instances_all.json: annotation ")
        assert "its segmentation is null" in record.detail
        judged = imports.import_folder(s, folder, reader_of=reader)
        assert (judged.videos, judged.quarantined) == (0, 0)  # judged before, with the same result
        path.write_text(good)
        report = imports.import_folder(s, folder, reader_of=reader)
        assert (report.videos, report.masklets, report.quarantined) == (1, 1, 0)
        assert masks_by_name(s).keys() == {"beach", "street"}


def test_bad_files_and_rows_of_no_video_are_recorded_and_the_rest_goes_on(videos, tmp_path, home):
    folder, reader = given(videos, tmp_path, "coco")
    one_file(folder)
    (folder / "broken.json").write_text('{"images": [')
    (folder / "settings.json").write_text('{"colour": "red"}')  # of another tool: ignored
    spoil(folder, lambda note: note["annotations"].append({"id": 9999, "image_id": 777}))
    with home("second") as s:
        for _ in range(2):
            report = imports.import_folder(s, folder, reader_of=reader)
            assert report.bad_files == 2
        found = {q.subject.rsplit("/", 1)[-1]: q.detail for q in s.tables.quarantine()}
        assert found["broken.json"].startswith("not JSON") and len(s.tables.quarantine()) == 2
        assert found["instances_all.json"] == "annotation 9999: there is no image 777"
        assert len(s.tables.masklets()) == 2


def test_two_videos_of_the_name_that_a_file_uses_are_refused(videos, tmp_path, home):
    folder, reader = given(videos, tmp_path, "coco")
    (folder / "copy").mkdir()
    made_videos.make(folder / "copy" / "beach.mp4", [made_videos.numbered(i + 7) for i in range(60)], fps=30)
    with home("second") as s:
        report = imports.import_folder(s, folder, reader_of=reader)
        assert (report.videos, report.quarantined) == (1, 2)
        assert all("2 videos are called beach" in q.detail for q in s.tables.quarantine())


def test_masks_that_are_not_on_the_frames_that_are_kept_are_refused(videos, tmp_path, home):
    folder, reader = given(videos, tmp_path, "coco")
    for path in folder.glob("*/instances_*.json"):
        note = json.loads(path.read_text())
        for row in note["images"]:
            row["frame_id"] = min(row["frame_id"] + 1, 59)
        path.write_text(json.dumps(note))
    with home("second") as s:
        report = imports.import_folder(s, folder, reader_of=reader)
        assert (report.videos, report.quarantined) == (0, 2)
        assert all("frame 0 is not annotated" in q.detail for q in s.tables.quarantine())


def test_a_folder_without_annotations_says_what_is_needed(tmp_path, home):
    place = tmp_path / "plain"
    place.mkdir()
    made_videos.make(place / "v.mp4", [made_videos.numbered(i) for i in range(30)])
    with home("second") as s:
        for form, (_, reader) in FORMATS.items():
            with pytest.raises(imports.NothingAnnotated, match="frame 12" if form != "cvat" else "NAME.xml"):
                imports.import_folder(s, place, reader_of=reader)


def test_masklets_to_be_reviewed_are_candidates_and_nothing_is_published(videos, tmp_path, home):
    folder, reader = given(videos, tmp_path, "coco")
    with home("second") as s:
        report = imports.import_folder(s, folder, reader_of=reader, review=True)
        assert (report.videos, report.masklets, report.release) == (2, 2, "")
        (batch_id,) = review.to_open(s)
        assert propose.pending(s) == publish.pending(s) == [] == s.tables.masklets()
        rows = list(parts.rows(s.blobs, "candidates", batch_id))
        assert [row.verdict for row in rows] == [None, None] and not masklet_problems(
            rows[0], s.video(rows[0].video_id)
        )
        again = imports.import_folder(s, folder, reader_of=reader, review=True)
        assert (again.videos, again.masklets, review.to_open(s)) == (0, 0, [batch_id])


def test_people_judge_imported_candidates_whatever_a_verifier_says(queue, tmp_path, monkeypatch):
    place = tmp_path / "sa-v"
    place.mkdir()
    made_videos.make(place / "v.mp4", [made_videos.numbered(i) for i in range(48)])
    labelled_folders.write_sav_note(place / "v_manual.json", range(0, 48, 4), 48, 2.0)
    imports.import_folder(queue, place, review=True)
    (batch_id,) = review.to_open(queue)
    monkeypatch.setattr(routing, "of_batch", lambda *_: pytest.fail("a verifier knows only a model's candidates"))
    assert review.open_batch(queue, batch_id, "3") == 1
    (ticket,) = queue.open_queue()[0].find(batch_id=batch_id)
    assert ticket.masklet_id == next(iter(parts.rows(queue.blobs, "candidates", batch_id))).masklet_id
