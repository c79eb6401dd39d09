"""COCO, YouTube-VIS, YouTube-VOS, CVAT, YOLO, SA-V's PNGs: what is written gives the masks again, or says how well."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from storage import iou, rle
from storage.dataset.releases import Release
from storage.formats import coco, cvat, davis, mose, polygons, sav_frames, yolo, youtube_vis
from storage.formats.destination import CannotHold
from storage.records import Masklet, Video
from storage.videos import video
from tests.storage.polygon_labels import read_labels
from tests.storage.rows import make_masklet, make_video

H, W, COUNT = 48, 64, 12


def discs(*centres: tuple[int, int] | None, radius: int = 9) -> list[np.ndarray]:
    """A disc a frame, at (y, x); empty for None."""
    y, x = np.mgrid[:H, :W]
    return [((y - c[0]) ** 2 + (x - c[1]) ** 2 <= radius**2) if c else np.zeros((H, W), bool) for c in centres]


def masklet(name: str, masks: list[np.ndarray], video_id: str, label: str | None = None, **changes) -> Masklet:
    return make_masklet(
        name,
        video_id,
        height=H,
        width=W,
        rle=tuple(map(rle.encode, masks)),
        area_px=tuple(int(mask.sum()) for mask in masks),
        source_metadata=None if label is None else json.dumps({"masklet_label": label}),
        **changes,
    )


RING = [mask & ~hole for mask, hole in zip(discs(*[(20, 30)] * 3), discs(*[(20, 30)] * 3, radius=3), strict=True)]
FIRST = masklet("a", RING, "v1", 'ring & "co"')
SECOND = masklet("b", discs((20, 34), None, (30, 40)), "v1", kind="manual", phase="3")
THIRD = masklet("c", discs(None, (9, 9), (12, 52)), "v2", "dog")


class TwoVideos:
    """What exporters use of a release: a video for training, and one that is held out."""

    name, digest = "release-0001", "0" * 64

    def __init__(self, folder: Path) -> None:
        self.blobs, self.path = self, folder / "stored.mp4"
        self.rows = {"v1": [FIRST, SECOND], "v2": [THIRD]}
        if not self.path.exists():
            video.write(self.path, [np.full((H, W, 3), 20 * i, np.uint8) for i in range(COUNT)])

    def videos(self) -> list[Video]:
        facts = {"height": H, "width": W, "frame_count": COUNT}
        return [make_video("v1", **facts), make_video("v2", split="val", source_name="clip", **facts)]

    def masklets(self, video_ids: set[str]) -> list[Masklet]:
        return [row for video_id in sorted(video_ids) for row in self.rows[video_id]]

    def iter_masklets(self):
        return iter([row for rows in self.rows.values() for row in rows])

    def masklet_counts(self) -> dict[str, int]:
        return {video_id: len(rows) for video_id, rows in self.rows.items()}

    def fetch(self, _: str) -> Path:
        return self.path


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return cast(Release, TwoVideos(tmp_path_factory.mktemp("two")))


def test_coco_is_read_by_its_own_library_with_equal_masks(release, tmp_path, capsys):
    done = coco.export(release, tmp_path, media=True)
    assert [path.name for path in done.files] == ["instances_train.json", "instances_val.json"]
    api = COCO(str(done.files[0]))
    assert [cat["name"] for cat in api.loadCats(api.getCatIds())] == ['ring & "co"', "object"]
    by_track: dict[int, dict[int, bytes]] = {}
    for found in api.loadAnns(api.getAnnIds()):
        (image,) = api.loadImgs(found["image_id"])
        counts = api.annToRLE(found)["counts"].encode()
        by_track.setdefault(found["track_id"], {})[image["frame_id"]] = counts
        ys, xs = np.nonzero(rle.decode(counts, H, W))
        assert found["bbox"] == [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        assert found["area"] == len(ys) and found["iscrowd"] == 0
        assert (tmp_path / "images" / "train" / image["file_name"]).is_file()
    for n, row in enumerate((FIRST, SECOND), 1):
        shown = {k: c for k, c, area in zip(row.frame_idx, row.rle, row.area_px, strict=True) if area}
        assert by_track[n] == shown
    assert [image["time_s"] for image in api.dataset["images"]] == pytest.approx([0, 4 / 24, 8 / 24], abs=1e-6)
    other = json.loads(done.files[1].read_text())
    assert other["videos"] == [{"id": 1, "name": "clip", "source": "v2.mp4", "width": W, "height": H}]
    assert len({found["id"] for found in api.dataset["annotations"]}) == 5
    capsys.readouterr()


@pytest.mark.parametrize("export", [coco.export, youtube_vis.export])
def test_ids_are_unique_in_a_file_of_several_videos(tmp_path, monkeypatch, export):
    facts = {"height": H, "width": W, "frame_count": COUNT}
    monkeypatch.setattr(TwoVideos, "videos", lambda self: [make_video("v1", **facts), make_video("v2", **facts)])
    (path,) = export(cast(Release, TwoVideos(tmp_path)), tmp_path / "out").files
    note = json.loads(path.read_text())
    assert [row["id"] for row in note["videos"]] == [1, 2]
    ids = [row["id"] for row in note["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    if "images" in note:
        images = {row["id"]: row["video_id"] for row in note["images"]}
        assert list(images) == [1, 2, 3, 4, 5, 6]
        tracks = {(row["track_id"], images[row["image_id"]]) for row in note["annotations"]}
        assert sorted(tracks) == [(1, 1), (2, 1), (3, 2)]


def test_youtube_vis_has_equal_masks_and_null_for_an_absent_object(release, tmp_path):
    done = youtube_vis.export(release, tmp_path, media=True)
    note = json.loads(done.files[0].read_text())
    (about,) = note["videos"]
    assert about["file_names"] == ["v1/00000.jpg", "v1/00004.jpg", "v1/00008.jpg"] and about["length"] == 3
    assert all((tmp_path / "train" / "JPEGImages" / name).is_file() for name in about["file_names"])
    first, second = note["annotations"]
    assert [m["counts"].encode() for m in first["segmentations"]] == list(FIRST.rle)
    assert (second["segmentations"][1], second["bboxes"][1], second["areas"][1]) == (None, None, None)
    assert [m["counts"].encode() for m in second["segmentations"] if m] == [SECOND.rle[0], SECOND.rle[2]]
    assert first["areas"] == list(FIRST.area_px)
    assert {first["category_id"], second["category_id"]} == {category["id"] for category in note["categories"]}


def test_youtube_vos_names_the_frames_that_show_each_object_and_is_read_as_davis_is(release, tmp_path):
    done = mose.export(release, tmp_path, youtube_vos=True)
    meta = json.loads((tmp_path / "train" / "meta.json").read_text())
    assert meta["videos"]["v1"]["objects"]["2"] == {"category": "object", "frames": ["00000", "00008"]}
    assert davis.names(tmp_path / "valid") == {"clip": "val"}
    masks = davis.open_video(tmp_path / "valid", "clip", "val").masks()
    assert [masks[1][t] for t in (1, 2)] == [THIRD.rle[1], THIRD.rle[2]] and done.lost_px > 0
    assert not (mose.export(release, tmp_path / "mose").files[0].parents[2] / "meta.json").exists()


def test_the_frames_of_sa_v_are_read_back_with_overlaps(release, tmp_path):
    done = sav_frames.export(release, tmp_path)
    assert done.lost_px == 0 and sav_frames.names(tmp_path) == {"v1": "train", "clip": "val"}
    opened = sav_frames.open_video(tmp_path, "v1")
    assert len(opened.pictures) == COUNT and opened.frame_idx == (0, 4, 8)
    masks = opened.masks()
    assert masks["000"] == dict(zip(FIRST.frame_idx, FIRST.rle, strict=True))
    assert masks["001"] == {k: SECOND.rle[t] for t, k in ((0, 0), (2, 8))}
    with Image.open(done.files[0]) as image:
        assert image.mode == "L" and set(np.unique(np.array(image))) == {0, 255}


def test_a_track_of_cvat_follows_the_object_and_its_polygons_are_measured(release, tmp_path):
    done = cvat.export(release, tmp_path, media=True)
    assert [path.name for path in done.files] == ["v1.xml", "v1.mp4", "clip.xml", "clip.mp4"]
    tree = ElementTree.parse(done.files[0])
    first, second = tree.iter("track")
    assert (first.attrib["label"], second.attrib["source"]) == ('ring & "co"', "manual")
    shapes = [shape.attrib for shape in second]
    assert [(s["frame"], s["outside"], s["keyframe"]) for s in shapes] == [
        ("0", "0", "1"),
        ("4", "1", "1"),
        ("8", "0", "1"),
    ]
    (late,) = ElementTree.parse(done.files[2]).iter("track")
    assert [shape.attrib["frame"] for shape in late] == ["4", "8"]  # nothing before it appears
    ious = []
    for track, row in ((first, FIRST), (second, SECOND), (late, THIRD)):
        at = dict(zip(row.frame_idx, row.rle, strict=True))
        for shape in track:
            if shape.attrib["outside"] == "0":
                points = [[float(v) for v in point.split(",")] for point in shape.attrib["points"].split(";")]
                drawn = polygons.drawn([points], H, W)
                ious.append(iou.rle_iou(drawn, at[int(shape.attrib["frame"])], H, W))
    assert done.agreement.masks == len(ious) == 7
    assert [done.agreement.sum, done.agreement.least] == pytest.approx([sum(ious), min(ious)])
    assert 0.95 <= done.agreement.least < 1
    assert [tree.findtext(f".//task/{name}") for name in ("size", "stop_frame", "source")] == ["12", "11", "v1.mp4"]


def test_masks_of_cvat_are_equal_and_keep_their_object(release, tmp_path):
    done = cvat.export(release, tmp_path, masks=True)
    found: dict[tuple[int, int], bytes] = {}
    for track in ElementTree.parse(done.files[0]).iter("track"):
        shape, end = track
        assert (end.attrib["frame"], end.attrib["outside"]) == (str(int(shape.attrib["frame"]) + 1), "1")
        left, top, width, height = (int(shape.attrib[name]) for name in ("left", "top", "width", "height"))
        runs = [int(run) for run in shape.attrib["rle"].split(",")]
        values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        mask = np.zeros((H, W), bool)
        mask[top : top + height, left : left + width] = values.reshape(height, width)
        found[int(track.attrib["group_id"]), int(shape.attrib["frame"])] = rle.encode(mask)
    rows = {1: FIRST, 2: SECOND}
    expected = {
        (n, k): c for n, row in rows.items() for k, c, a in zip(row.frame_idx, row.rle, row.area_px, strict=True) if a
    }
    assert found == expected and not done.agreement.masks


def test_a_label_that_xml_cannot_hold_is_refused_in_one_line(release, tmp_path):
    changed = TwoVideos(tmp_path)
    changed.rows["v1"] = [replace(FIRST, source_metadata=json.dumps({"masklet_label": "a\x00b"}))]
    with pytest.raises(CannotHold, match="no place for the character"):
        cvat.export(cast(Release, changed), tmp_path / "out")


def test_yolo_has_a_picture_and_a_polygon_for_each_object_of_a_frame(release, tmp_path):
    done = yolo.export(release, tmp_path)
    lines = (tmp_path / "data.yaml").read_text().splitlines()
    assert lines[:4] == ["path: .", "train: images/train", "val: images/val", "names:"]
    assert lines[4:] == ['  0: "dog"', '  1: "object"', '  2: "ring & \\"co\\""']
    label = tmp_path / "labels" / "train" / "v1" / "00000.txt"
    assert (tmp_path / "images" / "train" / "v1" / "00000.jpg").is_file()
    (ring, first), (other, second) = read_labels(label.read_text(), H, W)
    assert (ring, other) == (2, 1)
    assert min(iou.rle_iou(first, FIRST.rle[0], H, W), iou.rle_iou(second, SECOND.rle[0], H, W)) >= 0.95
    assert (tmp_path / "labels" / "val" / "clip" / "00000.txt").read_text() == ""
    assert done.agreement.masks == 7 and done.agreement.least >= 0.95


@pytest.mark.parametrize("export", [coco.export, youtube_vis.export, cvat.export, yolo.export, mose.export])
def test_a_stopped_export_ends_with_the_same_files(release, tmp_path, monkeypatch, export):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    export(release, whole)
    with monkeypatch.context() as patch:
        real = TwoVideos.masklets

        def killed(self, video_ids):
            if video_ids == {"v2"}:
                raise KeyboardInterrupt
            return real(self, video_ids)

        patch.setattr(TwoVideos, "masklets", killed)
        with pytest.raises(KeyboardInterrupt):
            export(release, stopped)
    export(release, stopped)
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    assert [p.relative_to(stopped) for p in sorted(stopped.rglob("*")) if p.is_file()] == files
    assert all((whole / p).read_bytes() == (stopped / p).read_bytes() for p in files)
