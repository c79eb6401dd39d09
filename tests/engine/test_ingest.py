import os
import shutil

import numpy as np
import pytest

from engine import batches, ingest
from engine.batches import Stage
from storage import video


def colours(count, height=64, width=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 255, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_a_second_run_over_the_same_source_does_nothing_and_says_so(s, clips):
    first = ingest.run(s)
    assert (first.admitted, first.quarantined, first.unchanged) == (3, 0, 0)
    again = ingest.run(s)
    assert (again.batch_id, again.admitted, again.quarantined, again.unchanged) == (None, 0, 0, 3)
    assert batches.facts(s.blobs, first.batch_id, Stage.INGESTED)["videos"] == sorted(
        v.video_id for v in s.tables.videos()
    )


def test_every_kind_of_bad_input_gets_its_record_and_the_good_ones_go_on(s, source):
    video.write(source / "good.mp4", colours(36))
    video.write(source / "short.mp4", colours(6, seed=1))
    shutil.copy(source / "good.mp4", source / "same bytes under another name.mov")
    (source / "empty.mp4").touch()
    (source / "text.mp4").write_text("this is no video\n" * 50)
    data = (source / "good.mp4").read_bytes()
    (source / "cut.mp4").write_bytes(data[: len(data) // 2])
    (source / "notes.txt").write_text("beside the videos")
    report = ingest.run(s, str(source))
    reasons = {os.path.basename(q.subject): q.reason for q in s.tables.quarantine()}
    assert report.admitted == 1 and report.quarantined == 5 and report.ignored == 1
    assert reasons["short.mp4"] == "too_short"
    assert reasons["empty.mp4"] == "unreadable"
    assert reasons["text.mp4"] == "unreadable"
    assert reasons["cut.mp4"] in ("truncated", "unreadable")
    duplicate = {"good.mp4", "same bytes under another name.mov"} & set(reasons)
    assert [reasons[name] for name in duplicate] == ["duplicate"]
    assert all("\n" not in q.detail for q in s.tables.quarantine())


def test_a_file_that_was_still_being_copied_is_admitted_when_it_is_whole(s, source):
    video.write(source / "a.mp4", colours(36))
    whole = (source / "a.mp4").read_bytes()
    (source / "a.mp4").write_bytes(whole[: len(whole) // 3])
    assert ingest.run(s, str(source)).admitted == 0
    (source / "a.mp4").write_bytes(whole)
    assert ingest.run(s, str(source)).admitted == 1


def test_a_malformed_truth_is_refused_in_one_line_and_its_video_with_it(s, source):
    video.write(source / "a.mp4", colours(36))
    (source / "a.truth.json").write_text('{"masklet": 7}')
    report = ingest.run(s, str(source))
    assert (report.admitted, report.quarantined) == (0, 1)
    assert "masklet" in s.tables.quarantine()[0].detail


def test_a_run_that_died_between_the_table_and_its_mark_is_repaired(s, clips):
    first = ingest.run(s)
    s.blobs.delete(f"batches/{first.batch_id}/{Stage.INGESTED}.json")
    again = ingest.run(s)
    assert again.batch_id is None
    assert batches.pending(s.blobs, Stage.PROPOSED) == [first.batch_id]
    assert len(s.tables.videos()) == 3


def test_a_run_that_died_before_the_table_goes_on_with_what_it_had(s, clips, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ingest.masklets, "commit_batch", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest.run(s)
    report = ingest.run(s)
    assert (report.admitted, report.unchanged) == (3, 3)
    assert len(s.tables.videos()) == 3


def test_the_held_out_share_holds_over_all_runs_and_no_video_changes_sides(s, source):
    sides = {}
    for number in range(1, 7):
        video.write(source / f"{number}.mp4", colours(30, seed=number))
        ingest.run(s, str(source))
        now = {v.video_id: v.split for v in s.tables.videos()}
        assert sides.items() <= now.items()
        sides = now
    assert list(sides.values()).count("val") == round(0.34 * 6)


@pytest.mark.parametrize("where", [None, "/no/such/folder"])
def test_a_source_that_is_not_there_is_said_in_one_line(settings, where):
    from engine.services import connect

    empty = settings.model_copy(update={"ingest": settings.ingest.model_copy(update={"source": None})})
    with connect(empty) as services, pytest.raises(ingest.NoSource, match="no s"):
        ingest.run(services, where)
