"""Labelled datasets of every format: they open, or give an error of one line."""

import json
import logging
import pickle
import shutil

import cv2
import numpy as np
import pytest

from engine.datasets import clip_sampler, labelled
from engine.datasets.clip_sampler import NothingToTrainOn
from engine.datasets.labelled import DatasetError
from engine.datasets.layouts import open_dataset
from storage import rle
from storage.dataset.releases import NoSuchRelease
from storage.formats import davis, sav_frames
from storage.formats.sav import SavError
from storage.pixels import PictureError
from storage.records import STRIDE
from storage.videos.source_reader import SourceReader
from tests.engine import labelled_folders
from tests.engine.labelled_folders import sampler_of, write_sav_frames
from tests.shared import SHARED
from tests.storage import made_videos
from tests.storage.made_videos import H, W, corners, make


def test_every_kind_of_dataset_opens_with_the_same_interface(s, release, tmp_path, caplog):
    sav_folder = tmp_path / "sa-v"
    shutil.rmtree(sav_folder / "notes")
    by_name = open_dataset(release.name, blobs=s.blobs)
    by_folder = open_dataset(tmp_path / "home" / "store" / "releases" / release.name)
    davis.export(release, tmp_path / "out")
    found = {
        "release": by_name,
        "SA-V": open_dataset(sav_folder),
        "DAVIS": open_dataset(tmp_path / "out"),
    }
    assert [v for v in by_folder.videos()] == [v for v in by_name.videos()]
    for kind, data in found.items():
        assert data.kind == kind and len(data) == 3
        assert {v.split for v in data.videos()} == {"train", "val"}
        assert {v.video_id for v in data.only("val").videos()} == {
            v.video_id for v in data.videos() if v.split == "val"
        }
        for video in pickle.loads(pickle.dumps(data)).videos():
            assert video.objects and video.frame_idx[0] == 0 and (video.height, video.width) == (96, 128)
            with video.open() as reader:
                assert reader.read(video.frame_idx[-1]).shape == (96, 128, 3)
            for name in video.objects:
                areas = video.area_px(name)
                assert [int(video.mask(name, i).sum()) for i in video.frame_idx] == list(areas.values())
            assert (video.edits == {}) == (kind == "DAVIS")
    names = {v.video_id: v.source_name for v in release.videos()}  # an export names a video as its source did
    stored = {(names[v.video_id], i): v for v in by_name.videos() for i in v.frame_idx}
    for video in found["DAVIS"].videos():  # the export holds only the annotated frames of the release
        with video.open() as reader, stored[video.video_id, 0].open() as truth:
            for t in video.frame_idx:
                assert np.abs(reader.read(t).astype(int) - truth.read(STRIDE * t)).mean() < 3
                all_of = [stored[video.video_id, 0].mask(n, STRIDE * t) for n in stored[video.video_id, 0].objects]
                ours = [video.mask(n, t) for n in video.objects]
                assert np.array_equal(np.any(ours, axis=0), np.any(all_of, axis=0))
    assert caplog.records == []


def test_an_sav_dataset_keeps_edit_counts_and_names_objects_by_kind(sav_folder):
    first = sorted((sav_folder / "sav_000").glob("*_manual.json"))[0]
    note = json.loads(first.read_text())
    count = len(note["masklet_id"])
    note["masklet_type"] = ["auto"] * count
    note["masklet_edited_frame_count"] = [0] * count
    first.with_name(first.name.replace("_manual", "_auto")).write_text(json.dumps(note))
    video = next(open_dataset(sav_folder).videos())
    assert video.edits == {f"auto-{k}": 0 for k in range(count)} | {f"manual-{k}": k for k in range(count)}
    assert video.objects["auto-0"] == video.objects["manual-0"]


def test_a_davis_root_has_every_frame(davis_root):
    (video,) = open_dataset(davis_root, split="val").videos()
    assert video.frame_idx == tuple(range(9)) and list(video.objects) == ["3"]
    assert [int(np.argmax(video.mask("3", i).any(1))) for i in range(9)] == list(range(20, 29))
    assert list(open_dataset(davis_root, split="train").videos()) == []


def test_the_sav_validation_layout_has_a_mask_of_each_object_on_every_fourth_picture(sav_val):
    data = open_dataset(sav_val, split="val")
    (video,) = pickle.loads(pickle.dumps(data)).videos()
    assert (data.kind, video.video_id, video.split) == ("SA-V", "sav_000002", "val")
    assert (video.height, video.width, video.frame_count, video.frame_idx) == (96, 128, 10, (0, 4, 8))
    assert video.area_px("000") == {0: 1600, 4: 1600, 8: 1600} and video.area_px("001") == {0: 200, 4: 0, 8: 200}
    both = video.mask("000", 8) & video.mask("001", 8)
    assert both.sum() == 100 and int(np.argmax(video.mask("000", 8).any(1))) == 28 and video.edits == {}
    with video.open() as reader:
        for i in (9, 0, 5):
            assert int(np.argmax(reader.read(i)[:, 40].mean(1) > 120)) == 20 + i
    clip = sampler_of(open_dataset(sav_val), 3)(0)
    assert clip.frames.shape == (3, 96, 128, 3) and clip.masks.shape == (3, 2, 96, 128)
    with pytest.raises(NothingToTrainOn, match="no train video"):  # training must ask for it
        sampler_of(open_dataset(sav_val, split="train"), 3)


def test_the_list_files_of_sav_name_the_videos_and_their_split(sav_val, tmp_path):
    write_sav_frames(sav_val, "sav_000001", listed="sav_test.txt")
    write_sav_frames(sav_val, "unlisted", listed="")
    assert {v.video_id: v.split for v in open_dataset(sav_val).videos()} == {"sav_000002": "val", "sav_000001": "test"}
    for split in ("val", "test"):
        (sav_val / f"sav_{split}.txt").unlink()
    assert {v.split for v in open_dataset(sav_val).videos()} == {"val"} and len(open_dataset(sav_val)) == 3
    sav_val.rename(tmp_path / "sav_test")
    assert {v.split for v in open_dataset(tmp_path / "sav_test").videos()} == {"test"}
    (tmp_path / "sav_test" / "sav_test.txt").write_text("\n")
    with pytest.raises(PictureError, match="sav_test.txt names no video"):
        open_dataset(tmp_path / "sav_test")


@pytest.mark.parametrize(("frame_count", "annotated"), [(1, (0,)), (4, (0,)), (5, (0, 4)), (9, (0, 4, 8))])
def test_every_fourth_frame_is_annotated_for_any_video_length(tmp_path, frame_count, annotated):
    (video,) = open_dataset(write_sav_frames(tmp_path / "sav_val", "v", frame_count)).videos()
    assert video.frame_idx == annotated


def picture_of(root, i):
    return root / sav_frames.PICTURES / "sav_000002" / f"{i:05d}.jpg"


def mask_of(root, i, name="001"):
    return root / sav_frames.MASKS / "sav_000002" / name / f"{i:05d}.png"


DAMAGED = {
    "the picture 00003.jpg before it is missing": lambda root: picture_of(root, 3).unlink(),
    "no pictures of the sequence sav_000002": lambda root: shutil.rmtree(picture_of(root, 0).parent),
    "no masks of the video sav_000002": lambda root: shutil.rmtree(mask_of(root, 0).parents[1]),
    "001/00004.png is missing": lambda root: mask_of(root, 4).unlink(),
    "001/00008.png is missing": lambda root: mask_of(root, 8).unlink(),
    "001/00000.png is missing": lambda root: [path.unlink() for path in mask_of(root, 0).parent.glob("*")],
    "00005.png: not a mask of every fourth": lambda root: shutil.copy(mask_of(root, 8), mask_of(root, 5)),
    "00012.png: not a mask of every fourth": lambda root: shutil.copy(mask_of(root, 8), mask_of(root, 12)),
    "00004.jpg: 48 x 64, the sequence began with 96 x 128": lambda root: cv2.imwrite(
        str(picture_of(root, 4)), np.zeros((48, 64, 3), np.uint8)
    ),
    "00004.png: 48 x 64, its pictures are 96 x 128": lambda root: cv2.imwrite(
        str(mask_of(root, 4)), np.zeros((48, 64), np.uint8)
    ),
    "00004.png: 3 values, the mask of one object has 2": lambda root: cv2.imwrite(
        str(mask_of(root, 4)), np.arange(96 * 128, dtype=np.uint8).reshape(96, 128) % 3
    ),
    "neither a palette image nor grey of 8 bits, but RGB": lambda root: cv2.imwrite(
        str(mask_of(root, 4)), np.zeros((96, 128, 3), np.uint8)
    ),
    "no object in 3 masks": lambda root: [
        cv2.imwrite(str(mask_of(root, i)), np.zeros((96, 128), np.uint8)) for i in (0, 4, 8)
    ],
    "00000.png: not a picture": lambda root: mask_of(root, 0).write_bytes(mask_of(root, 0).read_bytes()[:60]),
    "00009.jpg: not a picture": lambda root: picture_of(root, 9).write_bytes(b"nothing"),
}


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_sav_video_is_skipped_with_a_one_line_warning(sav_val, line, caplog):
    write_sav_frames(sav_val, "whole")
    DAMAGED[line](sav_val)
    data = open_dataset(sav_val)
    with pytest.raises(labelled.BAD_VIDEO) as error:  # an evaluation skips no video
        list(data.videos())
    assert line in str(error.value) and "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert {data.entries[of.number].video_id for of in clip_sampler.index(data)} == {"whole"}
    assert len(caplog.records) == 1 and line in caplog.records[0].getMessage()


def test_an_sav_video_that_its_metadata_turn_is_read_as_a_player_shows_it(tmp_path):
    make(tmp_path / "v.mp4", [corners()] * 24, rotation=180)
    white = np.zeros((H, W), bool)
    white[: H // 2, : W // 2] = True  # bottom right in the file, top left for a player
    masks = [[{"size": [H, W], "counts": rle.encode(white).decode()}]] * 6
    (tmp_path / "v_manual.json").write_text(json.dumps({"video_id": "v", "masklet": masks}))
    (video,) = open_dataset(tmp_path).videos()
    with video.open() as reader:
        assert (reader.read(8)[video.mask("manual-0", 8)] > 180).all()


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are missing")
def test_a_real_annotation_beside_a_video_of_another_size_raises_one_line(tmp_path):
    shutil.copy(SHARED / "sav_000001_manual.json", tmp_path / "sav_000001_manual.json")
    shutil.copy(SHARED / "05_default_juggle.mp4", tmp_path / "sav_000001.mp4")
    with pytest.raises(SavError, match="masks of 848 x 480, the video is 720 x 1280"):
        list(open_dataset(tmp_path).videos())


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are missing")
def test_a_seek_in_a_real_video_with_sparse_keyframes_gives_the_right_frame(tmp_path):
    """Its keyframes are seconds apart; in our own files they are 12 frames apart."""
    import av

    path = SHARED / "05_default_juggle.mp4"
    with av.open(str(path)) as container:
        shown = [f.to_ndarray(format="gray") for _, f in zip(range(70), container.decode(video=0), strict=False)]
    everything = {"size": [720, 1280], "counts": rle.encode(np.ones((720, 1280), bool)).decode()}
    with SourceReader(path) as reader:
        frames = -(-reader.frame_count // STRIDE)
    note = {"video_id": "juggle", "masklet": [[everything]] * frames}
    shutil.copy(path, tmp_path / "juggle.mp4")
    (tmp_path / "juggle_manual.json").write_text(json.dumps(note))
    (video,) = open_dataset(tmp_path).videos()
    with video.open() as reader:
        for i in (64, 8, 0, 33):
            grey = cv2.cvtColor(reader.read(i), cv2.COLOR_RGB2GRAY)
            near = [float(np.abs(grey.astype(int) - other).mean()) for other in shown]
            assert int(np.argmin(near)) == i


def test_a_folder_of_datasets_is_reported_with_their_names(davis_root):
    davis_root.rename(davis_root.with_name("valid"))
    with pytest.raises(DatasetError, match=r"neither .* Datasets inside it: valid$"):
        open_dataset(davis_root.parent)


def test_hidden_files_are_no_annotations_and_no_videos(sav_folder):
    for name in ("._clip_000.mp4", "._clip_000_manual.json"):
        (sav_folder / "sav_000" / name).write_bytes(b"Mac OS X")
    assert len(open_dataset(sav_folder)) == len(list(open_dataset(sav_folder).videos())) == 3


def test_an_unknown_dataset_is_reported_with_the_formats_that_were_tried(s, tmp_path):
    with pytest.raises(DatasetError, match="neither a release .*DAVIS, YouTube-VOS or MOSE .*SA-V"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no/such: no such folder"):
        open_dataset("no/such", blobs=s.blobs)
    with pytest.raises(DatasetError, match="nothing: no such folder"):
        open_dataset("nothing")
    with pytest.raises(NoSuchRelease, match="nothing"):
        open_dataset("nothing", blobs=s.blobs)


def test_a_missing_or_duplicate_video_file_raises_one_line(sav_folder):
    path = sorted((sav_folder / "sav_000").glob("*.mp4"))[1]  # its annotation is in another folder
    (sav_folder / "again").mkdir()
    shutil.copy(path, sav_folder / "again" / path.name)
    with pytest.raises(DatasetError, match="2 videos clip_002.mp4, one is needed"):
        list(open_dataset(sav_folder).videos())
    path.unlink()
    assert len(list(open_dataset(sav_folder).videos())) == 3
    (sav_folder / "again" / path.name).unlink()
    with pytest.raises(DatasetError, match="0 videos clip_002.mp4, one is needed .`masklets export --media` writes"):
        list(open_dataset(sav_folder).videos())


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("fps", [24, 25, 30])
def test_sav_masks_are_on_the_frames_that_they_were_made_of_at_any_rate(tmp_path, fps, step):
    count = 3 * fps
    made_videos.make(tmp_path / "v.mp4", [made_videos.numbered(i) for i in range(count)], fps=fps)
    labelled_folders.write_sav_note(tmp_path / "v_manual.json", range(0, count, step), count, 3.0)
    (video,) = open_dataset(tmp_path).videos()
    (masks,) = video.objects.values()
    assert len(masks) >= 0.7 * count / step and tuple(masks) == video.frame_idx
    with video.frames() as reader:
        for frame_idx, counts in masks.items():
            assert rle.area(counts, video.height, video.width) - 1 == made_videos.number_of(reader.read(frame_idx))


def masks_that_miss_their_frame(folder):
    """(masks, masks that are on a frame with another number) of the one video that `write_sav_note` annotated."""
    (video,) = open_dataset(folder).videos()
    (masks,) = video.objects.values()
    assert tuple(masks) == video.frame_idx
    with video.frames() as reader:
        drawn = {i: rle.area(counts, video.height, video.width) - 1 for i, counts in masks.items()}
        return len(masks), [n for i, n in drawn.items() if n != made_videos.number_of(reader.read(i)) % W]


UNEVEN_MS = [int(t) for t in np.cumsum([0, *np.random.default_rng(3).integers(10, 130, 59)])]
DROPPED_MS = [round(k * 1000 / 24) for k in range(60) if k != 21]
DOUBLED_MS = [round((k - (k > 21)) * 1000 / 30 + 4 * (k == 22)) for k in range(60)]


@pytest.mark.parametrize("step", [1, 4, 5])
@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("times_ms", [UNEVEN_MS, DROPPED_MS, DOUBLED_MS], ids=["uneven", "dropped", "doubled"])
def test_sav_masks_are_on_the_frames_that_they_were_made_of_at_a_variable_rate(tmp_path, times_ms, step, stated):
    count = len(times_ms)
    made_videos.make(tmp_path / "v.mp4", [made_videos.numbered(i) for i in range(count)], times_ms=times_ms)
    labelled_folders.write_sav_note(tmp_path / "v_manual.json", range(0, count, step), count, times_ms[-1] / 1000)
    if not stated:
        labelled_folders.forget_figures(tmp_path / "v_manual.json")
    number, wrong = masks_that_miss_their_frame(tmp_path)
    assert number >= 0.6 * count / step and wrong == []


@pytest.mark.parametrize("step", [4, 5])
@pytest.mark.parametrize("fps", [24, 25, 30])
def test_an_annotation_without_figures_is_placed_by_those_of_the_video(tmp_path, fps, step):
    made_videos.make(tmp_path / "v.mp4", [made_videos.numbered(i) for i in range(3 * fps)], fps=fps)
    labelled_folders.write_sav_note(tmp_path / "v_manual.json", range(0, 3 * fps, step), 3 * fps, 3.0)
    labelled_folders.forget_figures(tmp_path / "v_manual.json")
    number, wrong = masks_that_miss_their_frame(tmp_path)
    assert number >= 0.7 * 3 * fps / step and wrong == []


def test_an_annotation_that_fits_no_figure_of_its_video_is_refused_with_both(tmp_path):
    made_videos.make(tmp_path / "v.mp4", [made_videos.numbered(i) for i in range(100)], fps=25)
    labelled_folders.write_sav_note(tmp_path / "v_manual.json", range(0, 92, 4), 92, 3.68)
    labelled_folders.forget_figures(tmp_path / "v_manual.json")
    says = "23 annotated frames without 'video_frame_count', the video has 100 in 4 s, 96 at 24 fps: which frames"
    with pytest.raises(SavError, match=says):
        list(open_dataset(tmp_path).videos())


def test_a_video_of_variable_rate_whose_frames_were_numbered_otherwise_is_refused_with_both_figures(tmp_path):
    made_videos.make(tmp_path / "v.mp4", [made_videos.numbered(i) for i in range(60)], times_ms=UNEVEN_MS)
    stated = round(30 * UNEVEN_MS[-1] / 1000)
    labelled_folders.write_sav_note(tmp_path / "v_manual.json", range(0, stated, 5), stated, UNEVEN_MS[-1] / 1000)
    with pytest.raises(SavError, match=rf"{stated} frames in [\d.]+ s annotated, the video has 60 at a variable rate"):
        list(open_dataset(tmp_path).videos())
