"""Reading COCO, YouTube-VIS and CVAT: what we write is read back, and a bad row costs its video and no other one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from storage import rle
from storage.dataset.releases import Release
from storage.formats import coco, cvat, tracks, youtube_vis
from storage.formats.imported import MAX_METADATA, AnnotationError
from storage.formats.timeline import Timeline
from storage.formats.tracks import Content
from storage.records import FPS, Masklet
from storage.videos import frame_times
from tests.storage.counted_videos import CountedRelease, lost_frames, turned
from tests.storage.formats.test_exports import FIRST, SECOND, H, TwoVideos, W
from tests.storage.rows import make_video
from tests.storage.videos.test_source_reader import variable

VIDEO = make_video("v1", height=H, width=W, frame_count=12)
SOURCE_S = [k / FPS for k in range(12)]
LINES = [Timeline.STORED, Timeline.SOURCE]


def cvat_masks(release: Release, folder: Path, *, line: Timeline) -> object:
    return cvat.export(release, folder, masks=True, line=line)


FORMATS: dict[str, tuple[Callable, Callable[[bytes, str], Content], str]] = {
    "coco": (coco.export, coco.read, "annotations/instances_train.json"),
    "youtube-vis": (youtube_vis.export, youtube_vis.read, "train/instances.json"),
    "cvat": (cvat.export, cvat.read, "v1.xml"),
    "cvat-masks": (cvat_masks, cvat.read, "v1.xml"),
}


@pytest.fixture(scope="module", params=[variable, turned, lost_frames])
def odd(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    return CountedRelease(folder / "root", request.param(folder / "v.mp4"))


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("form", FORMATS)
def test_what_we_write_is_read_back_with_every_mask_on_its_frame(odd, tmp_path, form, line):
    export, read, name = FORMATS[form]
    export(odd.as_release(), tmp_path, line=line)
    (found,) = read((tmp_path / name).read_bytes(), name).videos
    times = frame_times.load(odd.blobs, "frames.json").source_s
    (row,) = tracks.to_masklets(found, form, video=odd.video, source_s=times, batch_id="b")
    assert (row.frame_idx, row.rle) == (odd.masklet.frame_idx, odd.masklet.rle)
    assert (row.video_id, row.batch_id, row.checkpoint, row.verdict) == ("v1", "b", form, "accept")


@pytest.fixture
def written(tmp_path):
    """The release of two videos in a format: its text, and how it is read."""

    def of(form: str) -> tuple[str, Callable[[bytes, str], Content], str]:
        export, read, name = FORMATS[form]
        export(cast(Release, TwoVideos(tmp_path)), tmp_path / form, line=Timeline.STORED)
        return (tmp_path / form / name).read_text(), read, name

    return of


def masklets(content: Content) -> list[Masklet]:
    return tracks.to_masklets(content.videos[0], "coco", video=VIDEO, source_s=SOURCE_S, batch_id="b")


@pytest.mark.parametrize("form", FORMATS)
def test_labels_and_the_order_of_objects_are_kept(written, form):
    text, read, name = written(form)
    first, second = masklets(read(text.encode(), name))
    assert (first.label, second.label) == ('ring & "co"', None)
    assert (first.source_metadata, second.source_metadata) == (None, None)
    assert (first.source_position, second.source_position) == (0, 1) and first.masklet_id != second.masklet_id
    assert second.area_px[1] == 0 and second.object_score[1] < 0
    if form != "cvat":
        assert (first.rle, second.rle) == (FIRST.rle, SECOND.rle)


SAID = {
    "author": "author-0123456789ab",
    "place": "Oslo",
    "video_environment": "Indoor",
    "country": "NO",
    "license": "CC BY 4.0",
    "faces_blurred": {"faces": 2},
}


@pytest.mark.parametrize("form", ["coco", "youtube-vis"])
def test_what_the_source_says_about_a_video_comes_back_and_its_licence_is_in_the_list_of_licences(
    tmp_path, monkeypatch, form
):
    export, read, name = FORMATS[form]
    said = [
        replace(row, split="train", source_metadata=json.dumps(SAID) if row.source_name else None)
        for row in TwoVideos(tmp_path).videos()
    ]
    monkeypatch.setattr(TwoVideos, "videos", lambda _: said)
    export(cast(Release, TwoVideos(tmp_path)), tmp_path / form, line=Timeline.STORED)
    text = (tmp_path / form / name).read_text()
    silent, told = (video.describe() for video in read(text.encode(), name).videos)
    assert silent.metadata is None and json.loads(told.metadata or "") == SAID
    note = json.loads(text)
    (licence,) = note["licenses"]
    assert licence["name"] == "CC BY 4.0"
    licensed = [row.get("license") for row in note.get("images", note["videos"])]
    assert licensed == [None] * (len(licensed) // 2) + [licence["id"]] * (len(licensed) // 2)
    first, second = (read(part.encode(), name).videos[1].digest() for part in (text, text.replace("Oslo", "Bergen")))
    assert first != second, "an import would not see that the file has changed"
    long = text.replace("Oslo", "o" * MAX_METADATA)
    with pytest.raises(AnnotationError, match="characters of name and metadata"):
        read(long.encode(), name).videos[1].describe()


def changed(text: str, change: Callable[[dict[str, Any]], object]) -> bytes:
    note = json.loads(text)
    change(note)
    return json.dumps(note).encode()


def annotation(n: int, **facts: object) -> Callable[[dict[str, Any]], object]:
    return lambda note: note["annotations"][n].update(facts)


def image(n: int, **facts: object) -> Callable[[dict[str, Any]], object]:
    return lambda note: note["images"][n].update(facts)


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda note: note["annotations"][0].pop(key)


RLE = {"size": [H, W], "counts": "0"}
COCO_SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "annotation 1: its segmentation is null": annotation(0, segmentation=None),
    "annotation 1: its RLE is malformed": annotation(0, segmentation=RLE),
    "annotation 1: its RLE has counts of type int": annotation(0, segmentation=RLE | {"counts": 7}),
    "annotation 1: its run lengths are not": annotation(0, segmentation=RLE | {"counts": [1, 2, H * W]}),
    "annotation 1: its mask has the size [1, 1]": annotation(0, segmentation={"size": [1, 1], "counts": "1"}),
    "annotation 1: its polygon cannot be read": annotation(0, segmentation=[[1, 2, 3]]),
    "annotation 1: its polygon cannot be read (no": annotation(0, segmentation=[]),
    "annotation 1: no 'track_id'": without("track_id"),
    "annotation number 0: its id is missing": without("id"),
    "annotation 1: no category 99": annotation(0, category_id=99),
    "annotation 1: no category [[1]]": annotation(0, category_id=[[1]]),
    "annotation 1: its id is missing or comes twice": annotation(1, id=1),
    "track 1 has two masks on frame 0": annotation(1, track_id=1, category_id=1),
    "track 1 is called 'object' elsewhere": annotation(0, category_id=2),
    "image 1: neither 'frame_id' nor its name": image(0, frame_id=None, file_name="v1/a.jpg"),
    "image 1: its height and width are [0, 64]": image(0, height=0),
    "image 1: its height and width are [99999, 64]": image(0, height=99999),
    "image 2: [96, 64], other images of its video are [48, 64]": image(1, height=96),
    "image 2: a second image of frame 0": image(1, frame_id=0),
    "image 1: its id is missing or comes twice": image(1, id=1),
}


@pytest.mark.parametrize("line", COCO_SPOILT)
def test_a_bad_row_of_coco_is_named_with_its_reason(written, line):
    text, read, name = written("coco")
    content = read(changed(text, COCO_SPOILT[line]), name)
    with pytest.raises(AnnotationError) as error:
        masklets(content)
    assert line in str(error.value) and "\n" not in str(error.value)


YOUTUBE_VIS_SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "annotation 1: 'segmentations' is not a list of 3": annotation(0, segmentations=[None]),
    "annotation 1: frame 0: its segmentation is str": annotation(0, segmentations=["x", None, None]),
    "annotation 1: no category 99": annotation(0, category_id=99),
    "annotation 1: no category [[1]]": annotation(0, category_id=[[1]]),
    "annotation 1: its id is missing or comes twice": annotation(1, id=1),
    "video 1: its frames are not in order": lambda note: note["videos"][0].update(frame_ids=[0, 8, 4]),
    "video 1: 'file_names' is not a list": lambda note: note["videos"][0].pop("file_names"),
    "video 1: the names of its pictures do not end": lambda note: note["videos"][0].update(frame_ids=[0]),
    "video 1: its height and width are [48, None]": lambda note: note["videos"][0].pop("width"),
}


@pytest.mark.parametrize("line", YOUTUBE_VIS_SPOILT)
def test_a_bad_row_of_youtube_vis_is_named_with_its_reason(written, line):
    text, read, name = written("youtube-vis")
    content = read(changed(text, YOUTUBE_VIS_SPOILT[line]), name)
    with pytest.raises(AnnotationError) as error:
        masklets(content)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["coco", "youtube-vis"])
@pytest.mark.parametrize("strange", [[[]], {"a": 1}, None, True, "1"])
def test_rows_of_nothing_are_named_whatever_their_id_is(written, form, strange):
    text, read, name = written(form)
    of = "image_id" if form == "coco" else "video_id"
    content = read(changed(text, annotation(0, **{of: strange})), name)
    assert content.strays == [f"annotation 1: there is no {of[:-3]} {strange!r}"]
    with pytest.raises(AnnotationError, match="id .* is missing or comes twice"):
        read(changed(text, lambda note: note["videos"][0].update(id=[[]])), name)


POINTS = ' points="1,1;9,1;9,9"'
CVAT_SPOILT = {
    "track 0: a box is not a mask": lambda text: text.replace("<polygon ", "<box ", 1).replace(
        "</polygon>", "</box>", 1
    ),
    "track 0: None is not a whole number": lambda text: text.replace('<polygon frame="0"', "<polygon", 1),
    "track 0: two shapes on frame 4": lambda text: text.replace('frame="0"', 'frame="4"', 1),
    "track 0: frame 0: its points are not numbers": lambda text: text.replace('points="', 'points="x', 1),
    "track 0: frame 0: its points are not pairs": lambda text: text.replace('points="', 'points="1;', 1),
    "track 0: no shape on frame 4, the last one is on 0": lambda text: text.replace(
        '<polygon frame="4"', '<polygon frame="5"', 1
    ),
}


@pytest.mark.parametrize("line", CVAT_SPOILT)
def test_a_bad_track_of_cvat_is_named_with_its_reason(written, line):
    text, read, name = written("cvat")
    content = read(CVAT_SPOILT[line](text).encode(), name)
    with pytest.raises(AnnotationError) as error:
        masklets(content)
    assert line in str(error.value) and "\n" not in str(error.value)


CVAT_MASKS_SPOILT = {
    "a mask without 'group_id'": lambda text: text.replace(' group_id="1"', "", 1),
    "frame 0: its mask does not lie in 64 x 48 px": lambda text: text.replace('left="', 'left="9', 1),
    "its run lengths are not whole numbers that fill": lambda text: text.replace('rle="', 'rle="1, ', 1),
    "group 1 has two masks on frame 0": lambda text: text.replace('group_id="2"', 'group_id="1"', 1),
}


@pytest.mark.parametrize("line", CVAT_MASKS_SPOILT)
def test_a_bad_mask_of_cvat_is_named_with_its_reason(written, line):
    text, read, name = written("cvat-masks")
    with pytest.raises(AnnotationError) as error:
        masklets(read(CVAT_MASKS_SPOILT[line](text).encode(), name))
    assert line in str(error.value) and "\n" not in str(error.value)


CVAT_OF = (
    "<annotations><meta><task><size>3</size><original_size><height>{0}</height><width>64</width></original_size>"
    "</task></meta></annotations>"
)


@pytest.mark.parametrize(
    ("form", "data", "says"),
    [
        ("coco", b"{", "not JSON"),
        ("coco", b"[]", "not a JSON object with 'images' and 'annotations'"),
        ("coco", b'{"images": []}', "lists 'images' and 'annotations'"),
        ("coco", b'{"images": [1], "annotations": []}', "'images' is not a list of objects"),
        ("coco", b'{"images": [], "annotations": [], "info": {"timeline": "x"}}', "the timeline 'x'"),
        ("coco", b'{"images": [], "annotations": [], "categories": [{"id": 1}, {"id": 1}]}', "the id 1 is missing or"),
        ("youtube-vis", b'{"videos": {}}', "lists 'videos' and 'annotations'"),
        ("youtube-vis", b'{"videos": [{}], "annotations": []}', "the id None of a video"),
        ("cvat", b"<a>", "not XML"),
        ("cvat", b"\xff\xfe", "not XML"),
        ("cvat", b"<annotations/>", "no meta/task"),
        ("cvat", b"<svg/>", "an XML file of svg"),
        ("cvat", b'<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "DOCTYPE"),
        ("cvat", b"<annotations><meta><task><size>3</size></task></meta></annotations>", "None is not a whole number"),
        ("cvat", CVAT_OF.format(99999).encode(), "no size of its frames"),
        ("cvat", CVAT_OF.format(0).encode(), "no size of its frames"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(form, data, says):
    with pytest.raises(AnnotationError) as error:
        FORMATS[form][1](data, "a.json")
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["coco", "youtube-vis"])
def test_a_row_of_no_video_is_set_aside(written, form):
    text, read, name = written(form)
    key = {"coco": "image_id", "youtube-vis": "video_id"}[form]
    content = read(changed(text, annotation(0, **{key: 77})), name)
    assert content.strays == [f"annotation 1: there is no {key[:5]} 77"] and len(masklets(content)) == 2 - (
        form != "coco"
    )


def test_masks_of_another_size_or_on_other_frames_are_refused(written):
    text, read, name = written("coco")
    (found,) = read(text.encode(), name).videos
    for change, says in (
        ({"height": 99}, "masks of 99 x 64, the video is 48 x 64"),
        ({"numbers": [0, 5, 8]}, "frame 4 is not annotated"),
        ({"numbers": [0, 4, 8, 12]}, "frame 12 is annotated, the video has 12 frames"),
        ({"timeline": None, "frame_count": 99}, "99 frames; the file of the video has 12, the stored video 12"),
    ):
        with pytest.raises(AnnotationError, match=says):
            tracks.to_masklets(replace(found, **change), "coco", video=VIDEO, source_s=SOURCE_S, batch_id="b")


def test_names_and_numbers_of_pictures_are_enough_for_files_of_other_tools(written):
    text, read, name = written("coco")

    def bare(note: dict[str, Any]) -> None:
        del note["videos"], note["info"]
        for row in note["images"]:
            del row["frame_id"], row["video_id"]
        for row in note["annotations"]:
            row["attributes"] = {"track_id": row.pop("track_id")}

    content = read(changed(text, bare), name)
    assert (
        content.videos[0].names == ("v1",)
        and content.videos[0].describe().name == "v1"
        and [row.rle for row in masklets(content)] == [FIRST.rle, SECOND.rle]
    )

    def flat(note: dict[str, Any]) -> None:
        bare(note)
        for row in note["images"]:
            row["file_name"] = f"frame_{row['file_name'][-9:-4]}.PNG"

    assert read(changed(text, flat), "some/holiday.json").videos[0].names == ("holiday",)


def test_uncompressed_run_lengths_and_polygons_are_read():
    mask = np.zeros((6, 5), bool)
    mask[1:4, 2] = True
    assert tracks.counts_of({"size": [6, 5], "counts": [13, 3, 14]}, 6, 5) == rle.encode(mask)
    assert tracks.counts_of([[2, 1, 3, 1, 3, 4, 2, 4]], 6, 5) == rle.encode(mask)


def test_a_mask_that_begins_at_the_corner_of_its_box_survives_cvat():
    full = np.ones((4, 3), bool)
    assert cvat.runs_of(full) == [0, 12] and tracks.filled([0, 12], 12).all()


def test_odd_sides_lose_their_last_row_and_column(written):
    text, read, name = written("coco")
    (found,) = read(text.encode(), name).videos
    smaller = replace(VIDEO, height=H - 2, width=W)
    wide = np.zeros((H - 1, W + 1), bool)
    wide[3, :] = True
    track = tracks.Track(where="t", label="a", masks={k: rle.encode(wide) for k in (0, 4, 8)})
    odd = replace(found, height=H - 1, width=W + 1, tracks=(track,))
    (row,) = tracks.to_masklets(odd, "coco", video=smaller, source_s=SOURCE_S, batch_id="b")
    assert row.area_px == (W, W, W)


@pytest.mark.parametrize(
    ("file", "split"),
    [("a/instances_val.json", "val"), ("valid/instances.json", "val"), ("test.json", "test"), ("trainer/x.json", None)],
)
def test_the_name_of_a_file_tells_the_split(file, split):
    assert tracks.split_of(file) == split


def test_the_digest_follows_what_is_read(written):
    text, read, name = written("coco")
    first, again = (read(text.encode(), name).videos[0].digest() for _ in range(2))
    other = read(changed(text, annotation(0, segmentation=None)), name).videos[0].digest()
    assert first == again != other


def test_a_task_of_cvat_with_every_fifth_frame_is_read_by_the_numbers_of_the_video():
    """As CVAT writes it: frames of the video, shapes with attributes, an end that is outside."""

    def shape(number: int, outside: int = 0) -> str:
        points = "1.00,1.00;5.00,1.00;5.00,4.00"
        facts = f'keyframe="{int(number % 2 == 0)}" outside="{outside}" occluded="1" points="{points}" z_order="0"'
        return f'<polygon frame="{number}" {facts}><attribute name="id">7</attribute></polygon>'

    text = (
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><id>3</id><name>t</name>'
        "<size>12</size><mode>interpolation</mode><start_frame>0</start_frame><stop_frame>59</stop_frame>"
        "<frame_filter>step=5</frame_filter><original_size><width>64</width><height>48</height></original_size>"
        "<source>film.MOV</source></task><dumped>2026-01-01</dumped></meta>"
        f'<track id="0" label="cup" source="semi-auto">{shape(10)}{shape(15)}{shape(20)}{shape(25, 1)}</track>'
        "</annotations>"
    )
    (found,) = cvat.read(text.encode(), "task/annotations.xml").videos
    assert found.names == ("film", "annotations", "t") and found.frame_count is None
    assert list(found.numbers) == list(range(0, 60, 5))
    film = replace(VIDEO, frame_count=48, duration_s=2.0, source_fps=30.0)
    times = [n / 30 for n in range(60)]
    (row,) = tracks.to_masklets(found, "cvat", video=film, source_s=times, batch_id="b")
    assert [bool(area) for area in row.area_px] == [5 * t in (10, 15, 20) for t in range(12)]
    assert (row.kind, row.frame_idx) == ("auto", tuple(range(0, 48, 4)))
    endless = text.replace(shape(25, 1), "").encode()
    with pytest.raises(AnnotationError, match="track 0: no shape on frame 25, the last one is on 20"):
        tracks.to_masklets(cvat.read(endless, "a.xml").videos[0], "cvat", video=film, source_s=times, batch_id="b")
