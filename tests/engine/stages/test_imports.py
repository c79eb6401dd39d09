"""Importing an SA-V folder: what is taken, what is refused, and what a kill leaves."""

import errno
import json
import shutil
from pathlib import Path

import pytest

from engine import batches, trouble
from engine.batches import BatchStage
from engine.ingest import admitted, ingest
from engine.services import connect
from engine.settings import IngestSettings, Settings
from engine.stages import imports, propose, publish, review
from storage.dataset import parts, releases
from storage.iceberg.tables import Tables
from tests.engine import labelled_folders
from tests.storage import made_videos


@pytest.fixture
def folder(tmp_path, clips):
    """In SA-V's layout: one annotated video in a sub-folder, and a video without annotation beside it."""
    first, second, _ = sorted(clips.glob("*.mp4"))
    place = tmp_path / "sa-v"
    (place / "sav_000").mkdir(parents=True)
    shutil.copy(first, place / "sav_000" / "one.mp4")
    shutil.copy(first.with_suffix(".truth.json"), place / "sav_000" / "one_manual.json")
    shutil.copy(second, place / "plain.mp4")
    return place


def sources(s):
    return sorted(v.source_uri.rsplit("/", 1)[-1] for v in s.tables.videos())


def test_an_import_takes_only_annotated_videos_and_leaves_the_others_to_the_model(
    s, folder, clips, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(sorted(clips.glob("*.mp4"))[2], other / "raw.mp4")
    with monkeypatch.context() as patch:  # an ingest of another source dies before its batch is committed
        patch.setattr(parts, "commit_batch", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.admit(s, str(other))
    annotation = json.loads((folder / "sav_000" / "one_manual.json").read_text())
    report = imports.import_folder(s, folder)
    assert (report.videos, report.masklets, report.skipped) == (1, len(annotation["masklet"][0]), 0)
    assert len(s.tables.masklets()) == report.masklets > 0 and report.release
    assert sources(s) == ["one.mp4", "raw.mp4"]
    (waiting,) = batches.pending(s.blobs, BatchStage.PROPOSED)
    videos = {v.video_id: v.source_uri for v in s.tables.videos()}
    assert [videos[v] for v in batches.video_ids(s.blobs, waiting)] == [str(other / "raw.mp4")]
    again = imports.import_folder(s, folder)
    assert (again.videos, again.masklets, again.skipped) == (0, 0, 0)
    assert ingest.admit(s, str(folder)).admitted == 1
    assert sources(s) == ["one.mp4", "plain.mp4", "raw.mp4"]


def test_figures_that_differ_from_the_masks_are_reported_and_the_masklets_are_imported(s, folder):
    note = folder / "sav_000" / "one_manual.json"
    annotation = json.loads(note.read_text())
    annotation["masklet_size_abs"][0] += 1
    note.write_text(json.dumps(annotation))
    report = imports.import_folder(s, folder)
    assert (report.masklets, report.differing) == (len(annotation["masklet"][0]), 1) and report.release
    assert report.differences[0].startswith("sav_000/one_manual.json: masklet 0: masklet_size_abs is ")


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_damaged_part_stops_its_own_batch_and_is_named(tmp_path, folder, clips, monkeypatch, damage):
    third = sorted(clips.glob("*.mp4"))[2]
    shutil.copy(third, folder / "two.mp4")
    shutil.copy(third.with_suffix(".truth.json"), folder / "two_manual.json")
    real = publish.pending
    keys = []

    def pending(s):
        found = real(s)
        keys.append(parts.markers(s.blobs, "masklets", found[0])[0].key)
        s.blobs.write(keys[0], s.blobs.read(keys[0])[:-9]) if damage == "cut" else s.blobs.delete(keys[0])
        return found

    monkeypatch.setattr(publish, "pending", pending)
    with connect(Settings(home=tmp_path / "home", ingest=IngestSettings(batch_videos=1))) as s:
        report = imports.import_folder(s, folder)
        assert report.release and len({m.video_id for m in s.tables.masklets()}) == 1
        (line,) = report.stuck
        assert keys[0] in line and trouble.stuck(s.blobs)[0].stage == "publish"


def test_a_second_import_reads_the_rows_of_no_video(s, folder, monkeypatch):
    assert imports.import_folder(s, folder).videos == 1
    read, videos = [], Tables.videos

    def noted(self, **how):
        read.append(how)
        return videos(self, **how)

    monkeypatch.setattr(Tables, "videos", noted)
    assert imports.import_folder(s, folder).videos == 0
    assert read == []


def test_a_second_import_completes_a_mark_that_was_killed_before_its_copy(s, folder):
    imports.import_folder(s, folder, review=True)
    (batch_id,) = batches.pending(s.blobs, BatchStage.IN_REVIEW)
    s.blobs.delete(f"open/{batch_id}/{BatchStage.PROPOSED}")
    imports.import_folder(s, folder, review=True)
    assert batches.pending(s.blobs, BatchStage.IN_REVIEW) == [batch_id]


def test_a_folder_without_annotations_is_a_mistake(s, clips):
    with pytest.raises(imports.NothingAnnotated, match="no NAME.mp4"):
        imports.import_folder(s, clips)


@pytest.mark.parametrize("cut", ["record", "commit", "mark", "part", "collected", "proposed"])
def test_no_model_proposes_for_an_import_wherever_it_is_killed(s, folder, monkeypatch, cut):
    class Killed(BaseException):
        pass

    def cutting(real, hit):
        def call(*arguments, **named):
            if hit(arguments, named):
                raise Killed
            return real(*arguments, **named)

        return call

    def at_stage(stage):
        return lambda arguments, named: stage in arguments

    where, name, hit = {
        "record": (admitted, "commit", lambda a, n: "only" in n),  # after the videos are judged
        "commit": (parts, "commit_batch", lambda a, n: "videos" in a),
        "mark": (batches, "mark", at_stage(BatchStage.INGESTED)),
        "part": (parts, "write_part", lambda a, n: n["kind"] == "masklets"),
        "collected": (batches, "mark", at_stage(BatchStage.IN_REVIEW)),
        "proposed": (batches, "mark", at_stage(BatchStage.PROPOSED)),
    }[cut]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, cutting(getattr(where, name), hit))
        with pytest.raises(Killed):
            imports.import_folder(s, folder)
    assert ingest.admit(s, str(folder)).admitted > 0  # the clock's ingest of the same folder comes between
    for _ in range(2):
        (waiting,) = propose.pending(s)
        videos = batches.video_ids(s.blobs, waiting)
        assert [s.video(v).source_uri.rsplit("/", 1)[-1] for v in videos] == ["plain.mp4"]
        assert review.to_open(s) == []
        imports.import_folder(s, folder)
    (release,) = releases.names(s.blobs)
    assert {s.video(m.video_id).source_uri.rsplit("/", 1)[-1] for m in s.tables.masklets()} == {"one.mp4"} and release


def test_a_batch_with_other_videos_is_not_closed_by_an_import(s, folder):
    batch_id = ingest.admit(s, str(folder)).batch_id
    report = imports.import_folder(s, folder)
    assert (report.videos, report.masklets, report.skipped, report.release) == (0, 0, 1, "")
    assert batches.reached(s.blobs) == {batch_id: {BatchStage.INGESTED}}


def test_a_batch_that_another_ingest_has_not_marked_yet_is_skipped(s, folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(batches, "mark", killed)  # committed, and not marked
        with pytest.raises(Killed):
            ingest.admit(s, str(folder))
    report = ingest.IngestReport(unchanged=1)
    monkeypatch.setattr(ingest, "admit", lambda *arguments, **named: report)  # an own run would mark it
    assert len(s.tables.videos()) == 2 and batches.reached(s.blobs) == {}
    assert imports.import_folder(s, folder).skipped == 1


def test_a_bad_annotation_does_not_block_the_good_ones_and_is_imported_once_it_is_repaired(s, folder, clips):
    third = sorted(clips.glob("*.mp4"))[2]
    shutil.copy(third, folder / "two.mp4")
    shutil.copy(third.with_suffix(".truth.json"), folder / "two_manual.json")
    note = folder / "sav_000" / "one_manual.json"
    good = note.read_text()
    note.write_text("[]")
    report = imports.import_folder(s, folder)
    assert (report.videos, report.quarantined) == (1, 1) and report.release
    (record,) = s.tables.quarantine()
    assert record.subject.endswith("one.mp4")
    assert record.detail == "sav_000/one_manual.json: an annotation is a JSON object, not list"
    note.write_text(good)
    report = imports.import_folder(s, folder)
    assert (report.videos, report.quarantined) == (1, 0)
    assert {s.video(m.video_id).source_uri.rsplit("/", 1)[-1] for m in s.tables.masklets()} == {"one.mp4", "two.mp4"}


@pytest.mark.parametrize("change", ["removed", "malformed"])
def test_an_annotation_that_is_lost_after_admission_does_not_block_its_batch(s, folder, clips, monkeypatch, change):
    third = sorted(clips.glob("*.mp4"))[2]
    shutil.copy(third, folder / "two.mp4")
    shutil.copy(third.with_suffix(".truth.json"), folder / "two_manual.json")
    real, note = ingest.admit, folder / "sav_000" / "one_manual.json"

    def admit(*arguments, **named):
        report = real(*arguments, **named)
        note.unlink() if change == "removed" else note.write_text("[]")
        return report

    monkeypatch.setattr(ingest, "admit", admit)
    report = imports.import_folder(s, folder)
    assert (report.videos, report.quarantined) == (1, 1) and report.release
    (record,) = s.tables.quarantine()
    assert (record.stage, record.subject.rsplit("/", 1)[-1]) == ("import", "one.mp4")
    assert {s.video(m.video_id).source_uri.rsplit("/", 1)[-1] for m in s.tables.masklets()} == {"two.mp4"}


@pytest.mark.parametrize("trouble_is", ["not readable", "not mounted"])
def test_an_annotation_that_cannot_be_read_for_a_while_is_imported_by_the_next_run(s, folder, monkeypatch, trouble_is):
    real, read, away = ingest.admit, Path.read_bytes, folder.with_name("away")

    def unreadable(path):
        if path.name == "one_manual.json":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    def admit(*arguments, **named):
        report = real(*arguments, **named)
        if trouble_is == "not readable":
            monkeypatch.setattr(Path, "read_bytes", unreadable)
        else:
            folder.rename(away)
        return report

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "admit", admit)
        with pytest.raises(OSError, match=r"one_manual\.json|is it mounted"):
            imports.import_folder(s, folder)
    monkeypatch.setattr(Path, "read_bytes", read)
    if away.exists():
        away.rename(folder)
    report = imports.import_folder(s, folder)
    assert (report.videos, report.quarantined) == (1, 0) and report.masklets == len(s.tables.masklets()) > 0


def test_an_import_that_is_killed_after_a_bad_annotation_decides_the_same_when_it_runs_again(s, folder, monkeypatch):
    real, mark, note = ingest.admit, batches.mark, folder / "sav_000" / "one_manual.json"
    good = note.read_text()

    class Killed(BaseException):
        pass

    def admit(*arguments, **named):
        report = real(*arguments, **named)
        note.write_text("[]")
        return report

    def killed(blobs, batch_id, name, facts):
        if name is BatchStage.COLLECTED:
            raise Killed
        return mark(blobs, batch_id, name, facts)

    with monkeypatch.context() as patch:
        patch.setattr(ingest, "admit", admit)
        patch.setattr(batches, "mark", killed)
        with pytest.raises(Killed):
            imports.import_folder(s, folder)
    note.write_text(good)
    report = imports.import_folder(s, folder)
    assert (report.videos, report.masklets, report.quarantined) == (0, 0, 1) and len(s.tables.masklets()) == 0
    assert [row.stage for row in s.tables.quarantine()] == ["import"]


def test_masks_that_are_not_on_every_fourth_frame_at_24_fps_are_refused_with_their_rate(s, tmp_path):
    place = tmp_path / "odd rate"
    place.mkdir()
    made_videos.make(place / "pal.mp4", [made_videos.numbered(i) for i in range(100)], fps=25)
    labelled_folders.write_sav_note(place / "pal_manual.json", range(0, 100, 4), 100, 4.0)
    report = imports.import_folder(s, place)
    assert (report.videos, report.quarantined) == (0, 1)
    assert "25 annotated frames of 100 in 4 s" in s.tables.quarantine()[0].detail


@pytest.mark.parametrize(("stated", "imported"), [(96, 1), (95, 0), (80, 0)])
def test_a_video_that_lost_a_frame_is_imported_if_its_masks_were_numbered_before(s, tmp_path, stated, imported):
    place = tmp_path / "lost"
    place.mkdir()
    kept = [k for k in range(96) if k != 22]
    frames = [made_videos.numbered(k) for k in kept]
    made_videos.make(place / "v.mp4", frames, times_ms=[round(k * 1000 / 24) for k in kept])
    labelled_folders.write_sav_note(place / "v_manual.json", range(0, stated, 4), stated, stated / 24)
    report = imports.import_folder(s, place)
    assert (report.videos, report.quarantined) == (imported, 1 - imported)
    for row in s.tables.masklets():
        assert list(row.area_px) == [k % made_videos.W + 1 for k in row.frame_idx]


@pytest.mark.parametrize(("fps", "step", "imported"), [(24, 4, 1), (30, 5, 1), (25, 4, 0)])
def test_an_annotation_without_figures_is_imported_only_if_it_fits_its_video(s, tmp_path, fps, step, imported):
    place = tmp_path / "no figures"
    place.mkdir()
    made_videos.make(place / "v.mp4", [made_videos.numbered(i) for i in range(3 * fps)], fps=fps)
    labelled_folders.write_sav_note(place / "v_manual.json", range(0, 3 * fps, step), 3 * fps, 3.0)
    labelled_folders.forget_figures(place / "v_manual.json")
    report = imports.import_folder(s, place)
    assert (report.videos, report.quarantined) == (imported, 1 - imported)
    assert imported or "not on every 4th frame at 24 fps" in s.tables.quarantine()[0].detail


def test_a_video_of_an_earlier_version_without_the_times_of_its_frames_is_imported(s, folder, monkeypatch):
    monkeypatch.setattr(admitted, "source_times", lambda blobs, video_id: [])
    assert imports.import_folder(s, folder).videos == 1
