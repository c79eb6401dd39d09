"""Timelines: on the source's, every exported mask is on the frame of the file that it was made on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import av
import cv2
import numpy as np
import pytest

from storage import arrow, rle
from storage.formats import (
    coco,
    cvat,
    davis,
    destination,
    hub,
    mose,
    polygons,
    sav,
    sav_frames,
    timeline,
    yolo,
    youtube_vis,
)
from storage.formats.picture_folder import read_png
from storage.formats.sav_times import Timing
from storage.formats.timeline import Timeline, TimelineUnknown
from storage.records import FPS
from storage.videos import frame_times
from tests.storage.counted_videos import ODD, CountedRelease, counter_of, shown_by_opencv
from tests.storage.made_videos import make, number_of, numbered
from tests.storage.polygon_labels import read_labels
from tests.storage.rows import make_masklet, make_video

Found = dict[int, int]  # frame number -> counter that its mask shows


def sav_counters(release: CountedRelease, folder: Path) -> Found:
    sav.export(release.as_release(), folder, line=Timeline.SOURCE)
    note = json.loads((folder / "v1_auto.json").read_text())
    masks = [rle.decode(frame[0]["counts"].encode(), *frame[0]["size"]) for frame in note["masklet"]]
    return {n: counter_of(mask) for n, mask in zip(note["video_frame_idx"], masks, strict=True)}


def davis_counters(release: CountedRelease, folder: Path) -> Found:
    done = davis.export(release.as_release(), folder, line=Timeline.SOURCE)
    return {int(path.stem): counter_of(read_png(path)[0] > 0) for path in done.files}


def tree_counters(release: CountedRelease, folder: Path) -> Found:
    mose.export(release.as_release(), folder, line=Timeline.SOURCE)
    root = folder / "train"
    found = {int(p.stem): counter_of(read_png(p)[0] > 0) for p in (root / "Annotations" / "v1").glob("*.png")}
    for number, counter in found.items():  # the picture shows the same frame
        picture = cv2.imread(str(root / "JPEGImages" / "v1" / f"{number:05d}.jpg"))
        assert picture is not None and number_of(picture) == counter
    return found


def coco_counters(release: CountedRelease, folder: Path) -> Found:
    coco.export(release.as_release(), folder, line=Timeline.SOURCE)
    note = json.loads((folder / "annotations" / "instances_train.json").read_text())
    numbers = {image["id"]: image["frame_id"] for image in note["images"]}
    return {numbers[of["image_id"]]: counter_of(mask_of(of["segmentation"])) for of in note["annotations"]}


def youtube_vis_counters(release: CountedRelease, folder: Path) -> Found:
    youtube_vis.export(release.as_release(), folder, line=Timeline.SOURCE)
    note = json.loads((folder / "train" / "instances.json").read_text())
    (video,), (found,) = note["videos"], note["annotations"]
    assert [Path(name).stem for name in video["file_names"]] == [f"{n:05d}" for n in video["frame_ids"]]
    masks = map(mask_of, found["segmentations"])
    return {n: counter_of(mask) for n, mask in zip(video["frame_ids"], masks, strict=True)}


def cvat_counters(release: CountedRelease, folder: Path) -> Found:
    cvat.export(release.as_release(), folder, line=Timeline.SOURCE)
    found, hw = {}, (release.video.height, release.video.width)
    for polygon in ElementTree.parse(folder / "v1.xml").iter("polygon"):
        points = [[float(side) for side in point.split(",")] for point in polygon.attrib["points"].split(";")]
        found[int(polygon.attrib["frame"])] = counter_of(rle.decode(polygons.drawn([points], *hw), *hw))
    return found


def yolo_counters(release: CountedRelease, folder: Path) -> Found:
    yolo.export(release.as_release(), folder, line=Timeline.SOURCE)
    found, hw = {}, (release.video.height, release.video.width)
    for path in (folder / "labels" / "train" / "v1").glob("*.txt"):
        ((_, counts),) = read_labels(path.read_text(), *hw)
        found[int(path.stem)] = counter_of(rle.decode(counts, *hw))
    return found


def hub_counters(release: CountedRelease, folder: Path) -> Found:
    hub.export(release.as_release(), folder, line=Timeline.SOURCE)
    (row,) = arrow.read_parquet((folder / "data" / "train" / "00000.parquet").read_bytes()).to_pylist()
    masks = [rle.decode(counts.encode(), row["height"], row["width"]) for counts in row["rle"]]
    return {n: counter_of(mask) for n, mask in zip(row["frame_idx"], masks, strict=True)}


def mask_of(segmentation: dict) -> np.ndarray:
    return rle.decode(segmentation["counts"].encode(), *segmentation["size"])


#: format -> exports on the timeline of the source and reads the result
COUNTERS: dict[str, Callable[[CountedRelease, Path], Found]] = {
    "sa-v": sav_counters,
    "davis": davis_counters,
    "mose": tree_counters,
    "coco": coco_counters,
    "youtube-vis": youtube_vis_counters,
    "cvat": cvat_counters,
    "yolo": yolo_counters,
    "hf": hub_counters,
}


@pytest.fixture(scope="module", params=ODD)
def odd(request, tmp_path_factory):
    """An odd video, and its release."""
    name, make_it = ODD[request.param]
    folder = tmp_path_factory.mktemp("odd")
    source = make_it(folder / name)
    return source, CountedRelease(folder / "root", source)


@pytest.mark.parametrize("form", COUNTERS)
def test_every_exported_mask_is_on_its_own_frame_of_the_source(tmp_path, odd, form):
    source, release = odd
    shown = shown_by_opencv(source)
    found = COUNTERS[form](release, tmp_path / "out")
    assert found == {n: shown[n] for n in found}
    assert set(found.values()) == set(release.counters.values())  # no frame is lost


def test_the_times_are_those_of_the_file(odd):
    source, release = odd
    times: dict[int, float] = {}
    with av.open(str(source)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            assert frame.time_base is not None
            no_times = source.suffix == ".avi"
            times[n] = n / FPS if no_times else float((frame.pts or 0) * frame.time_base)
    frames = timeline.of(release.video, release.blobs, Timeline.SOURCE)
    assert frames.frame_count == len(times)
    assert [f.time_s for f in frames.annotated] == pytest.approx([times[f.number] for f in frames.annotated], abs=1e-6)


def test_an_annotation_on_the_source_timeline_is_read_back_with_every_mask(tmp_path, odd):
    _, release = odd
    sav.export(release.as_release(), tmp_path, line=Timeline.SOURCE)
    times = frame_times.load(release.blobs, "frames.json").source_s
    (row,) = sav.read(tmp_path / "v1_auto.json", video=release.video, source_s=times)
    same = [a == b for a, b in zip(row.rle, release.masklet.rle, strict=True)]
    shown = list(release.counters.values())
    assert row.frame_idx == release.masklet.frame_idx and all(same), shown
    assert (
        sav.describe(sav.load((tmp_path / "v1_auto.json").read_bytes())).metadata == '{"video_environment": "Unknown"}'
    )


def test_of_two_frames_that_show_one_source_frame_the_nearer_in_time_is_exported(tmp_path):
    source = make(tmp_path / "v.mp4", [numbered(i) for i in range(10)], times_ms=list(range(0, 3000, 300)))
    release = CountedRelease(tmp_path / "root", source)
    frames = timeline.of(release.video, release.blobs, Timeline.SOURCE)
    nearest = {n: min((abs(k / FPS - n * 0.3), k) for k in release.counters)[1] for n in range(10)}
    assert {f.number: f.frame_idx for f in frames.annotated} == nearest
    assert frames.repeats == len(release.counters) - 10 > 0
    assert davis.export(release.as_release(), tmp_path / "out", line=Timeline.SOURCE).repeats == frames.repeats


def test_an_object_that_no_exported_frame_shows_does_not_stop_the_others(tmp_path):
    release = CountedRelease(tmp_path / "root", make(tmp_path / "v.mp4", [numbered(i) for i in range(10)], fps=5))
    shown = {f.frame_idx for f in timeline.of(release.video, release.blobs, Timeline.SOURCE).annotated}
    nothing, row = rle.empty(release.video.height, release.video.width), release.masklet
    hidden = replace(
        row,
        masklet_id="hidden",
        rle=tuple(nothing if k in shown else c for k, c in zip(row.frame_idx, row.rle, strict=True)),
        area_px=tuple(0 if k in shown else a for k, a in zip(row.frame_idx, row.area_px, strict=True)),
    )
    assert any(hidden.area_px)
    release.masklets = lambda _: [row, hidden]  # type: ignore[method-assign]
    sav.export(release.as_release(), tmp_path / "out", line=Timeline.SOURCE)
    assert json.loads((tmp_path / "out" / "v1_auto.json").read_text())["masklet_num"] == 1


def test_a_video_of_an_earlier_version_is_named_in_one_line(tmp_path):
    release = CountedRelease(tmp_path / "root", make(tmp_path / "v.mp4", [numbered(i) for i in range(30)]))
    (tmp_path / "root" / "frames.json").write_text('{"source_s": [0.0]}')
    with pytest.raises(TimelineUnknown, match="^video v1: an earlier version .* ingest it again$"):
        davis.export(release.as_release(), tmp_path / "out", line=Timeline.SOURCE)


def test_a_table_that_contradicts_itself_is_named_in_one_line(tmp_path):
    release = CountedRelease(tmp_path / "root", make(tmp_path / "v.mp4", [numbered(i) for i in range(30)]))
    (tmp_path / "root" / "frames.json").write_text('{"source_s": [0.5], "all_source_s": [0.0, 1.0]}')
    with pytest.raises(TimelineUnknown, match="^video v1: .* no source frame for stored frame 0$"):
        davis.export(release.as_release(), tmp_path / "out", line=Timeline.SOURCE)


def test_stored_videos_beside_numbers_of_the_source_are_refused(tmp_path):
    release = CountedRelease(tmp_path / "root", make(tmp_path / "v.mp4", [numbered(i) for i in range(30)]))
    for export in (sav.export, cvat.export):
        with pytest.raises(destination.CannotHold, match="at 24 fps"):
            export(release.as_release(), tmp_path / "out", media=True, line=Timeline.SOURCE)
    with pytest.raises(destination.CannotHold, match="at 24 frames a second"):
        sav_frames.export(release.as_release(), tmp_path / "out", line=Timeline.SOURCE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ([0, 4], "list of one frame number for each"),
        ([0, 8, 4], "not in order"),
        ([0, 5, 8], "frame 4 is not annotated"),
    ],
)
def test_numbers_that_do_not_fit_the_video_are_refused(numbers, says):
    video = make_video()
    annotation = sav.to_sav(video, [make_masklet()]) | {"video_frame_idx": numbers}
    with pytest.raises(sav.SavError, match=says):
        sav.from_sav(annotation, video=video, source_s=[k / FPS for k in range(12)])


def test_an_annotated_frame_takes_the_mask_of_the_source_frame_that_it_shows():
    timing = Timing.of((np.arange(10) / 5).tolist())  # 5 a second: frames 8 and 12 both show source frame 2
    assert timeline.positions(range(10), timing)[:6] == [0, 1, 2, 2, 3, 4]
    assert timeline.positions(list(range(0, 10)), timing)[-1] == 9
