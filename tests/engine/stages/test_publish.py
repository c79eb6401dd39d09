"""Publishing: an id that comes twice costs its second row, never the batch; nothing else of the batch is lost."""

import json
from dataclasses import replace

import pytest

from engine import batches
from engine.batches import BatchStage
from engine.services import connect
from engine.serving import why
from engine.settings import Settings
from engine.stages import imports, publish
from storage import rle
from storage.dataset import parts, releases
from tests.engine import labelled_folders
from tests.storage import made_videos
from validation import masklet_checks

OTHER = "f" * 16


@pytest.fixture
def s(tmp_path):
    with connect(Settings(home=tmp_path / "home")) as services:
        yield services


@pytest.fixture
def folder(tmp_path):
    """Two annotated videos, of one object each."""
    place = tmp_path / "sa-v"
    place.mkdir()
    for n in range(2):
        frames = [made_videos.numbered(i + 30 * n) for i in range(24)]
        made_videos.make(place / f"v{n}.mp4", frames)
        labelled_folders.write_sav_note(place / f"v{n}_manual.json", range(0, 24, 4), 24, 1.0)
    return place


def collected(s, batch_id, videos, rows):
    """A collected batch of these videos and masklets, as any program may have made it."""
    for video in videos:
        mine = [replace(row, batch_id=batch_id) for row in rows if row.video_id == video.video_id]
        video = replace(video, batch_id=batch_id)
        parts.write_part(s.blobs, kind="videos", batch_id=batch_id, video_id=video.video_id, rows=[video])
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video.video_id, rows=mine)
    parts.commit_batch(s.blobs, s.tables, "videos", batch_id)
    batches.mark(s.blobs, batch_id, BatchStage.INGESTED, {"videos": [video.video_id for video in videos]})
    batches.mark(s.blobs, batch_id, BatchStage.COLLECTED, {})


def quarantined(s, batch_id):
    rows = s.tables.quarantine(where=f"batch_id == '{batch_id}'")
    return [(row.stage, row.subject, row.reason, row.detail) for row in rows]


def test_a_masklet_that_comes_twice_in_an_import_is_quarantined_and_the_rest_is_published(s, folder):
    note = json.loads((folder / "v0_manual.json").read_text())
    for kind in ("manual", "auto"):  # the same object in both files
        (folder / f"v0_{kind}.json").write_text(json.dumps(note | {"masklet_type": ["auto"]}))
    report = imports.import_folder(s, folder)
    rows = s.tables.masklets()
    assert report.release and len(rows) == len({row.masklet_id for row in rows}) == 2
    twice = next(row for row in rows if row.kind == "auto")
    assert quarantined(s, twice.batch_id) == [
        ("publish", twice.masklet_id, "repeated", "an earlier row of the batch has this id")
    ]
    facts = batches.facts(s.blobs, twice.batch_id, BatchStage.PUBLISHED) or {}
    assert (facts["masklets"], facts["quarantined"]) == (2, 1)


@pytest.mark.parametrize("good", [True, False])
def test_an_import_publishes_its_good_annotations_whatever_share_of_its_masklets_is_bad(s, folder, good):
    place = folder / "v1_manual.json"
    note = json.loads(place.read_text())
    hw = made_videos.H, made_videos.W
    absent = {"size": list(hw), "counts": rle.empty(*hw).decode()}
    nobody = [[absent] * 5 for _ in note["masklet"]]
    size = {"video_height": hw[0], "video_width": hw[1]}
    place.write_text(json.dumps(note | size | {"masklet": nobody, "masklet_id": list(range(5)), "masklet_num": 5}))
    if not good:
        (folder / "v0_manual.json").unlink()
    report = imports.import_folder(s, folder)
    assert len(s.tables.masklets()) == good and bool(report.release) == good and report.failed == 5
    refused = quarantined(s, s.tables.videos()[0].batch_id)
    assert len({subject for _, subject, _, _ in refused}) == 5
    assert publish.pending(s) == []


def test_a_batch_that_is_no_import_is_stopped_if_most_of_its_masklets_are_bad(s, folder):
    imports.import_folder(s, folder)
    (row, other), videos = s.tables.masklets(), s.tables.videos()
    broken = [replace(row, masklet_id=f"broken-{n}", area_px=(1,) * len(row.area_px)) for n in range(2)]
    collected(s, OTHER, videos, [*broken, replace(other, masklet_id="right")])
    with pytest.raises(publish.PublishStopped, match="2 of 3 rows quarantined, at most 50%"):
        publish.publish_batch(s, OTHER)


@pytest.mark.parametrize("then", [["m1"], []])
def test_what_a_stopped_publish_refused_is_judged_again_when_its_cause_is_mended(s, folder, monkeypatch, then):
    imports.import_folder(s, folder)
    (row, _), videos = s.tables.masklets(), s.tables.videos()
    collected(s, OTHER, videos, [replace(row, masklet_id=f"m{n}") for n in range(3)])

    def refusing(*ids):
        problem = masklet_checks.Problem(check="area", detail="wrong")
        monkeypatch.setattr(masklet_checks, "problems", lambda row, _: [problem] if row.masklet_id in ids else [])

    for bad in (("m0", "m1"), ("m0", "m2")):
        refusing(*bad)
        with pytest.raises(publish.PublishStopped):
            publish.publish_batch(s, OTHER)
        (shown,) = why.of_batch(s, OTHER, None).refused
        assert shown.examples == bad and quarantined(s, OTHER) == []
    refusing(*then)
    publish.publish_batch(s, OTHER)
    assert [subject for _, subject, _, _ in quarantined(s, OTHER)] == then
    assert sorted(m.masklet_id for m in s.tables.masklets() if m.batch_id == OTHER) == sorted(
        {"m0", "m1", "m2"} - {*then}
    )


def test_of_two_rows_with_one_id_the_valid_one_is_published(s, folder):
    imports.import_folder(s, folder)
    (row, other), videos = s.tables.masklets(), s.tables.videos()
    broken = replace(row, masklet_id="new", area_px=(1,) * len(row.area_px))
    right = replace(row, masklet_id="new")
    collected(s, OTHER, videos, [broken, right, replace(right, round=1), replace(other, masklet_id="another")])
    publish.publish_batch(s, OTHER)
    published = [m for m in s.tables.masklets() if m.batch_id == OTHER]
    assert sorted((m.masklet_id, m.round) for m in published) == [("another", 0), ("new", 0)]
    assert {m.area_px for m in published if m.masklet_id == "new"} == {row.area_px}
    assert [found[1:3] for found in quarantined(s, OTHER)] == [("new", "area"), ("new", "repeated")]


@pytest.mark.parametrize("fresh", [0, 1])
def test_masklets_that_an_earlier_batch_published_are_quarantined_and_the_rest_is_published(s, folder, fresh):
    first = imports.import_folder(s, folder).release
    rows, videos = s.tables.masklets(), s.tables.videos()
    fresh_rows = [replace(row, masklet_id=f"fresh-{row.masklet_id}") for row in rows[:fresh]]
    collected(s, OTHER, videos, rows + fresh_rows)
    second = publish.publish_batch(s, OTHER)
    assert sorted(m.masklet_id for m in s.tables.masklets()) == sorted(m.masklet_id for m in rows + fresh_rows)
    detail = f"batch {rows[0].batch_id} has published a masklet with this id"
    assert quarantined(s, OTHER) == [("publish", row.masklet_id, "repeated", detail) for row in rows_by_id(rows)]
    counts = [releases.load(s.blobs, name).counts["masklets"] for name in (first, second)]
    assert counts == [2, 2 + fresh] and publish.pending(s) == []


def rows_by_id(rows):
    return sorted(rows, key=lambda row: row.masklet_id)


@pytest.mark.parametrize("cut", ["masklets", "mark"])
def test_a_batch_that_is_published_again_after_a_kill_repeats_nothing(s, folder, monkeypatch, cut):
    class Killed(BaseException):
        pass

    real, mark = parts.commit_batch, batches.mark

    def commit(blobs, tables, kind, batch_id, keep=None, **named):
        report = real(blobs, tables, kind, batch_id, keep, **named)
        if kind == cut:
            raise Killed
        return report

    def marked(blobs, batch_id, name, facts):
        if name is BatchStage.PUBLISHED and cut == "mark":
            raise Killed
        return mark(blobs, batch_id, name, facts)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "commit_batch", commit)
        patch.setattr(batches, "mark", marked)
        with pytest.raises(Killed):
            imports.import_folder(s, folder)
    (batch_id,) = publish.pending(s)
    publish.publish_batch(s, batch_id)
    assert len(s.tables.masklets()) == 2 and quarantined(s, batch_id) == []
