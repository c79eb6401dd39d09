"""Labels and attributes of masklets in the formats of other tools: written where a format has them, and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import pytest

from storage.dataset.releases import Release
from storage.formats import coco, cvat, labels, mose, sav, yolo, youtube_vis
from storage.formats.timeline import Timeline
from storage.records import content_id
from tests.storage.formats.test_exports import FIRST, SECOND, TwoVideos
from tests.storage.formats.test_tracks import FORMATS, masklets

SAID = {"brand": "a & b", "occluded": True}
DOG = replace(FIRST, label="dog", attributes=json.dumps(SAID), source_metadata=json.dumps({"masklet_label": "cat"}))


@pytest.fixture
def release(tmp_path):
    """A release with a labelled masklet, whose label stands above the one that it was imported with, and another."""
    found = TwoVideos(tmp_path)
    found.rows["v1"] = [DOG, SECOND]
    return cast(Release, found)


@pytest.mark.parametrize("form", FORMATS)
def test_label_and_attributes_are_written_and_read_again(release, tmp_path, form):
    export, read, name = FORMATS[form]
    export(release, tmp_path / form, line=Timeline.STORED)
    first, second = masklets(read((tmp_path / form / name).read_bytes(), name))
    assert (first.label, json.loads(first.attributes or "{}")) == ("dog", SAID)
    assert (second.label, second.attributes) == (None, None)


def test_sa_v_has_the_keys_of_a_label_only_if_there_is_one(release, tmp_path):
    sav.export(release, tmp_path / "with")
    note = json.loads((tmp_path / "with" / "v1_auto.json").read_text())
    assert note["masklet_label"] == ["dog"] and note["masklet_attributes"] == [SAID]
    other = json.loads((tmp_path / "with" / "v1_manual.json").read_text())
    assert not {"masklet_label", "masklet_attributes"} & other.keys()
    (back,) = sav.from_sav(note, video=release.videos()[0])
    assert (back.label, json.loads(back.attributes or "{}")) == ("dog", SAID)


def test_formats_without_attributes_have_the_class(release, tmp_path):
    yolo.export(release, tmp_path / "yolo")
    assert '"dog"' in (tmp_path / "yolo" / "data.yaml").read_text()
    mose.export(release, tmp_path / "mose", youtube_vos=True)
    assert '"dog"' in next((tmp_path / "mose").rglob("meta.json")).read_text()


def test_cvat_is_told_the_attributes_of_a_class(release, tmp_path):
    cvat.export(release, tmp_path / "out")
    text = (tmp_path / "out" / "v1.xml").read_text()
    assert "<name>occluded</name><mutable>False</mutable><input_type>checkbox</input_type>" in text
    assert "<name>brand</name><mutable>False</mutable><input_type>select</input_type>" in text


def test_what_changes_from_frame_to_frame_is_no_attribute_of_the_object(release, tmp_path):
    coco.export(release, tmp_path / "out")
    path = tmp_path / "out" / "annotations" / "instances_train.json"
    note = json.loads(path.read_text())
    for n, each in enumerate(each for each in note["annotations"] if each["track_id"] == 1):
        each["attributes"] |= {"blur": n, "track_id": 7}
    (video,) = coco.read(json.dumps(note).encode(), "instances_train.json").videos
    assert dict(video.tracks[0].attributes) == SAID


def test_attributes_that_cannot_be_kept_are_left_out():
    found = {"list": [1], "nothing": None, "long": "x" * 201, "size": 2.5, "far": False}
    assert labels.attributes_text(found) == '{"far": false, "size": 2.5}'
    assert labels.attributes_text({"list": []}) is None and labels.attributes_text("x") is None


def test_an_import_of_a_file_without_attributes_has_the_digest_of_before_there_were_any(release, tmp_path):
    youtube_vis.export(release, tmp_path / "out")
    data = (tmp_path / "out" / "train" / "instances.json").read_bytes()
    (video,) = youtube_vis.read(data, "instances.json").videos
    plain = replace(video, tracks=tuple(replace(track, attributes={}) for track in video.tracks))
    rows = [(t.where, t.label, t.kind, sorted(t.masks.items()), t.gaps) for t in video.tracks]
    before = content_id(repr(replace(video, tracks=(), numbers=tuple(video.numbers))), *map(repr, rows))
    assert plain.digest() == before != video.digest()
