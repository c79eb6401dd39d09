"""Labelled videos of every kind are opened in one way, say in one line what is wrong, and give clips to train on."""

import json
import logging
import pickle
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.cli import main
from engine.datasets import clip_sampler, labelled
from engine.datasets.clip_sampler import ClipSampler, NothingToTrainOn
from engine.datasets.labelled import DatasetError
from engine.datasets.layouts import open_dataset
from engine.protocols import first_frame, interactive
from engine.protocols.truth import NothingHeldOut, Truth
from engine.rounds import training
from engine.stages import import_sav
from model import checkpoints
from storage import releases, rle
from storage.formats import davis, sav_frames
from storage.formats.picture_folder import PictureReader
from storage.pixels import PictureError
from storage.records import STRIDE
from storage.releases import NoSuchRelease
from storage.video import FrameReader

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def sav_folder(tmp_path, clips):
    """Three annotated videos as SA-V has them: in folders, the second with its annotation elsewhere."""
    root = tmp_path / "sa-v"
    (root / "sav_000").mkdir(parents=True)
    (root / "notes").mkdir()
    for n, path in enumerate(sorted(clips.glob("*.mp4"))):
        shutil.copy(path, root / "sav_000" / f"{path.stem}.mp4")
        note = json.loads(path.with_suffix(".truth.json").read_text())
        count = len(note["masklet_id"])
        note["masklet_edited_frame_count"] = [3 * (n % 2) + k for k in range(count)]
        note["video_split"] = "val" if n == 2 else "train"
        (root / ("notes" if n == 1 else "sav_000") / f"{path.stem}_manual.json").write_text(json.dumps(note))
    return root


@pytest.fixture
def davis_root(tmp_path, clips):
    """The first clip at 24 fps, an id a pixel on every frame."""
    root = tmp_path / "davis"
    path = sorted(clips.glob("*.mp4"))[0]
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / "one").mkdir(parents=True)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("one\n")
    with FrameReader(path) as reader:
        for i in range(9):
            cv2.imwrite(str(root / "JPEGImages" / "480p" / "one" / f"{i:05d}.jpg"), reader.read(i)[..., ::-1])
            ids = np.zeros((reader.height, reader.width), np.uint8)
            ids[20 + i : 60 + i, 20:60] = 3
            davis.write_ids(root / "Annotations" / "480p" / "one" / f"{i:05d}.png", ids)
    return root


def write_sav_frames(root, video, frame_count=10, listed="sav_val.txt"):
    """A video as SA-V's validation set has it: two objects that overlap, the second one away in the middle."""
    for i in range(frame_count):
        path = root / sav_frames.PICTURES / video / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = np.full((96, 128, 3), 40, np.uint8)
        shade[20 + i : 60 + i, 20:60] = 200
        cv2.imwrite(str(path), shade)
        for name in ("000", "001") if i % STRIDE == 0 else ():
            mask = np.zeros((96, 128), np.uint8)
            if name == "000":
                mask[20 + i : 60 + i, 20:60] = 255
            elif i != STRIDE:
                mask[30 + i : 40 + i, 50:70] = 255
            path = root / sav_frames.MASKS / video / name / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), mask)
    if listed:
        with (root / listed).open("a") as file:
            file.write(f"{video}\n")
    return root


@pytest.fixture
def sav_val(tmp_path):
    return write_sav_frames(tmp_path / "sav_val", "sav_000002")


@pytest.fixture
def release(s, sav_folder):
    for path in (sav_folder / "notes").iterdir():  # an import wants them beside their videos
        shutil.copy(path, sav_folder / "sav_000" / path.name)
    name = import_sav.import_folder(s, sav_folder / "sav_000").release
    return releases.load(s.blobs, name)


def source_of(data, frames, hardest=1.0):
    return ClipSampler(data, list(clip_sampler.index(data)), frames, hardest)


def test_every_kind_is_opened_in_one_way(s, release, tmp_path, caplog):
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
    stored = {(v.video_id, i): v for v in by_name.videos() for i in v.frame_idx}
    for video in found["DAVIS"].videos():  # its frames are the annotated ones of the release
        with video.open() as reader, stored[video.video_id, 0].open() as truth:
            for t in video.frame_idx:
                assert np.abs(reader.read(t).astype(int) - truth.read(STRIDE * t)).mean() < 3
                all_of = [stored[video.video_id, 0].mask(n, STRIDE * t) for n in stored[video.video_id, 0].objects]
                ours = [video.mask(n, t) for n in video.objects]
                assert np.array_equal(np.any(ours, axis=0), np.any(all_of, axis=0))
    assert caplog.records == []


def test_sav_keeps_its_edits_and_its_objects_are_named_by_kind(sav_folder):
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


def test_the_validation_set_of_sav_is_pictures_with_a_mask_an_object_on_every_fourth(sav_val):
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
    clip = source_of(open_dataset(sav_val), 3)(0)
    assert clip.frames.shape == (3, 96, 128, 3) and clip.masks.shape == (3, 2, 96, 128)
    with pytest.raises(NothingToTrainOn, match="no train video"):  # an exam is trained on only by whoever says so
        source_of(open_dataset(sav_val, split="train"), 3)


def test_the_lists_of_sav_say_which_videos_and_which_split(sav_val, tmp_path):
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
def test_every_length_of_video_has_its_annotated_frames(tmp_path, frame_count, annotated):
    (video,) = open_dataset(write_sav_frames(tmp_path / "sav_val", "v", frame_count)).videos()
    assert video.frame_idx == annotated


def picture_of(root, i):
    return root / sav_frames.PICTURES / "sav_000002" / f"{i:05d}.jpg"


def mask_of(root, i, name="001"):
    return root / sav_frames.MASKS / "sav_000002" / name / f"{i:05d}.png"


SPOILED = {
    "00003.jpg, which is missing": lambda root: picture_of(root, 3).unlink(),
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
    "all 3 masks of the object are empty": lambda root: [
        cv2.imwrite(str(mask_of(root, i)), np.zeros((96, 128), np.uint8)) for i in (0, 4, 8)
    ],
    "00000.png: not a picture": lambda root: mask_of(root, 0).write_bytes(mask_of(root, 0).read_bytes()[:60]),
    "00009.jpg: not a picture": lambda root: picture_of(root, 9).write_bytes(b"nothing"),
}


@pytest.mark.parametrize("line", SPOILED)
def test_a_spoiled_video_of_sav_is_one_line_and_leaves_the_others(sav_val, line, caplog):
    write_sav_frames(sav_val, "whole")
    SPOILED[line](sav_val)
    data = open_dataset(sav_val)
    with pytest.raises(labelled.BAD_VIDEO) as error:  # an exam leaves none out
        list(data.videos())
    assert line in str(error.value) and "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        assert {data.entries[of.number].video_id for of in clip_sampler.index(data)} == {"whole"}
    assert len(caplog.records) == 1 and line in caplog.records[0].getMessage()


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are not here")
def test_a_real_annotation_beside_a_real_video_of_another_size_is_one_line(tmp_path):
    shutil.copy(SHARED / "sav_000001_manual.json", tmp_path / "sav_000001_manual.json")
    shutil.copy(SHARED / "05_default_juggle.mp4", tmp_path / "sav_000001.mp4")
    with pytest.raises(DatasetError, match="masks of 848 x 480, the video is 720 x 1280"):
        list(open_dataset(tmp_path).videos())


@pytest.mark.skipif(not SHARED.exists(), reason="the real files are not here")
def test_frames_of_a_real_video_with_sparse_keyframes_are_those_that_decoding_from_the_start_gives(tmp_path):
    """Keyframes are seconds apart here, unlike in our own files."""
    import av

    path = SHARED / "05_default_juggle.mp4"
    with av.open(str(path)) as container:
        shown = [f.to_ndarray(format="gray") for _, f in zip(range(70), container.decode(video=0), strict=False)]
    note = {
        "video_id": "juggle",
        "masklet": [[{"size": [720, 1280], "counts": rle.encode(np.ones((720, 1280), bool)).decode()}]] * 60,
    }
    with FrameReader(path) as reader:
        note["masklet"] = note["masklet"][:1] * -(-reader.frame_count // STRIDE)
    shutil.copy(path, tmp_path / "juggle.mp4")
    (tmp_path / "juggle_manual.json").write_text(json.dumps(note))
    (video,) = open_dataset(tmp_path).videos()
    with video.open() as reader:
        for i in (64, 8, 0, 33):
            grey = cv2.cvtColor(reader.read(i), cv2.COLOR_RGB2GRAY)
            near = [float(np.abs(grey.astype(int) - other).mean()) for other in shown]
            assert int(np.argmin(near)) == i


def test_what_cannot_be_opened_says_what_was_looked_for(s, tmp_path):
    with pytest.raises(DatasetError, match="neither a release .*DAVIS root .*SA-V"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="no/such: no such folder"):
        open_dataset("no/such", blobs=s.blobs)
    with pytest.raises(DatasetError, match="nothing: no such folder"):
        open_dataset("nothing")
    with pytest.raises(NoSuchRelease, match="nothing"):
        open_dataset("nothing", blobs=s.blobs)


def test_a_clip_is_of_the_frames_that_its_masks_are_of_and_nothing_else_is_decoded(davis_root, monkeypatch):
    source = source_of(open_dataset(davis_root), 4)
    decoded = []
    read = PictureReader.read
    monkeypatch.setattr(PictureReader, "read", lambda self, i: decoded.append(i) or read(self, i))
    ways = set()
    (video,) = open_dataset(davis_root).videos()
    for seed in range(12):
        decoded.clear()
        clip = source(seed)
        assert np.array_equal(pickle.loads(pickle.dumps(source))(seed).masks, clip.masks)
        tops = [int(np.argmax(mask[0].any(1))) - 20 for mask in clip.masks]
        assert sorted(set(decoded)) == sorted(tops) and len(tops) == 4
        with video.open() as reader:
            assert all(np.array_equal(reader.read(i), frame) for i, frame in zip(tops, clip.frames, strict=True))
        ways.add(tops[1] - tops[0])
    assert ways == {1, -1}


def test_a_clip_of_a_crowd_is_of_a_few_that_may_be_chosen(tmp_path):
    """Forty objects: twenty small ones, ten that come later, and ten that a clip may begin with."""
    root = write_sav_frames(tmp_path / "sav_val", "sav_000002", frame_count=4 * STRIDE)
    crowd = root / sav_frames.MASKS / "sav_000002"
    shutil.rmtree(crowd)
    for name in range(40):
        side = 1 if name < 20 else 8
        for i in range(0, 4 * STRIDE, STRIDE):
            mask = np.zeros((96, 128), np.uint8)
            mask[:side, name : name + side] = 0 if i == 0 and 20 <= name < 30 else 255
            (crowd / f"{name:03d}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(crowd / f"{name:03d}" / f"{i:05d}.png"), mask)
    source = source_of(open_dataset(root), 4)
    seen = set()
    for seed in range(30):
        masks = source(seed).masks
        assert masks.shape[1] == 8 and source(seed).masks.tobytes() == masks.tobytes()
        large = masks.sum((2, 3)) > 1
        assert large[0].any() and (masks[0].any((1, 2)) | masks[-1].any((1, 2))).all()
        seen |= {int(mask.any(0).argmax()) for mask in masks[0][large[0]]}
    assert seen >= set(range(30, 40))


def test_the_hardest_share_is_that_of_the_most_edited_masklets(sav_folder):
    data = open_dataset(sav_folder, split="train")
    first, second = data.videos()
    edits = sorted([*first.edits.values(), *second.edits.values()], reverse=True)
    assert edits[0] >= 3 and source_of(data, 4).places[0][1] is None
    half = source_of(data, 4, 0.5)
    drawn = {(of.number, name) for of, _, names in half.places for name in names}
    kept = sorted((data.load(number).edits[name] for number, name in drawn), reverse=True)
    assert kept == [e for e in edits[: round(len(edits) / 2)] if e]
    (only,) = source_of(data, 4, 0.01).places
    clip = source_of(data, 4, 0.01)(3)
    assert clip.masks.shape[1] == 1 and clip.masks[0].any() and data.load(only[0].number).edits[only[2][0]] == edits[0]


def test_masklets_that_nobody_edited_are_not_hard(davis_root):
    with pytest.raises(NothingToTrainOn, match="edited by a person"):
        source_of(open_dataset(davis_root), 4, 0.5)
    with pytest.raises(NothingToTrainOn, match="no train video with 4 annotated frames"):
        source_of(open_dataset(davis_root, split="train"), 4)


def test_a_bad_video_is_left_out_with_a_warning_and_never_ends_the_run(sav_folder, caplog):
    first, second, _ = sorted((sav_folder / "sav_000").glob("*.mp4"))
    data = open_dataset(sav_folder)
    good = source_of(data, 4)
    first.write_bytes(first.read_bytes()[:3000])  # it was whole when it was looked through
    with caplog.at_level(logging.WARNING):
        clips = [good(seed) for seed in range(12)]
    assert len(clips) == 12 and [first.stem in r.getMessage() for r in caplog.records] == [True]
    first.write_bytes(b"")
    assert {of.number for of, *_ in source_of(data, 4).places} == {1, 2} and len(caplog.records) == 2
    next(sav_folder.rglob(f"{second.stem}_manual.json")).write_text("{")
    assert {of.number for of, *_ in source_of(data, 4).places} == {2}
    assert all("\n" not in record.getMessage() for record in caplog.records)
    with pytest.raises(labelled.BAD_VIDEO):  # an exam leaves none out
        list(data.videos())


def test_a_video_that_is_not_there_or_is_there_twice_is_one_line(sav_folder):
    path = sorted((sav_folder / "sav_000").glob("*.mp4"))[1]  # its annotation lies elsewhere
    (sav_folder / "again").mkdir()
    shutil.copy(path, sav_folder / "again" / path.name)
    with pytest.raises(DatasetError, match="2 videos clip_002.mp4, one is needed"):
        list(open_dataset(sav_folder).videos())
    path.unlink()
    assert len(list(open_dataset(sav_folder).videos())) == 3
    (sav_folder / "again" / path.name).unlink()
    with pytest.raises(DatasetError, match="0 videos clip_002.mp4, one is needed .`masklets export --media` writes"):
        list(open_dataset(sav_folder).videos())


def test_every_kind_is_measured_in_one_way(sav_folder, sav_val, davis_root, checkpoint):
    loaded = checkpoints.load(checkpoint)
    for folder in (sav_folder, sav_val, davis_root):
        held_out = open_dataset(folder, split="val")
        metrics = first_frame.measure(held_out, loaded, "mask")
        count = sum(len(video.objects) for video in held_out.videos())
        assert 0 <= metrics.jf <= 1 and 1 <= metrics.masklets <= count and metrics.slices
        images = interactive.measure_images(held_out, loaded, most_objects=1)
        assert images.objects == 1 and images.frames <= 9 and 0 <= images.miou_1 <= 100
    with pytest.raises(NothingHeldOut, match="split test"):
        first_frame.measure(held_out.only("test"), loaded, "mask")
    with pytest.raises(NothingHeldOut, match="split test"):
        interactive.measure_images(held_out.only("test"), loaded)


def test_an_object_of_the_last_annotated_frame_alone_is_nothing_to_follow(sav_folder, checkpoint, monkeypatch):
    first = Truth.all_of

    def late(video):
        nothing = np.zeros((video.height, video.width), bool)
        return {
            name: replace(truth, masks=(nothing,) * (len(truth.masks) - 1) + (~nothing,))
            for name, truth in first(video).items()
        }

    monkeypatch.setattr(Truth, "all_of", staticmethod(late))
    held_out = open_dataset(sav_folder, split="val")
    with pytest.raises(NothingHeldOut, match="no object for longer than a frame"):
        interactive.measure(held_out, checkpoints.load(checkpoint), most_objects=1)


def said_by(settings, monkeypatch, capsys):
    """Runs a command, which must succeed: what it printed."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["masklets", *words])
        with pytest.raises(SystemExit) as ended:
            main.main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    return command


def test_the_test_set_of_sav_is_measured_and_trained_on_by_command(settings, checkpoint, tmp_path, monkeypatch, capsys):
    command = said_by(settings, monkeypatch, capsys)
    in_process = partial(training.train_on, workers=0)  # starting a worker takes longer than the step
    monkeypatch.setattr(training, "train_on", in_process)
    folder = str(write_sav_frames(tmp_path / "sav_test", "one", 33, listed="sav_test.txt"))
    words = ("evaluate", str(checkpoint), "--data", folder, "--split", "test", "--protocol", "mask", "--json")
    assert json.loads(command(*words))["masklets"] == 2
    words = ("train", "--data", folder, "--split", "test", "--from", str(checkpoint), "--steps", "1", "--json")
    facts = json.loads(command(*words, "--out", str(tmp_path / "out")))
    assert facts["steps"] == 1 and facts["loss"] > 0


def test_evaluate_says_the_same_to_people_to_programs_and_in_a_picture(
    s, release, settings, checkpoint, tmp_path, monkeypatch, capsys
):
    command = said_by(settings, monkeypatch, capsys)
    command("export", str(tmp_path / "davis"), "--format", "davis")
    where = ["evaluate", str(checkpoint), "--data", str(tmp_path / "davis"), "--protocol", "mask", "--split", "all"]
    figures = json.loads(command(*where, "--json"))
    drawn = tmp_path / "bars.png"
    said = command(*where, "--picture", str(drawn))
    assert f"{100 * figures['jf']:.1f}" in said and "J&F" in said and str(figures["masklets"]) in said
    assert cv2.imread(str(drawn)).std() > 5
    image = command("evaluate", str(checkpoint), "--data", release.name, "--protocol", "image", "--objects", "1")
    assert "mIoU, 5 clicks" in image


def test_evaluate_plays_the_interactive_protocols_by_command(
    s, release, settings, checkpoint, tmp_path, monkeypatch, capsys
):
    command = said_by(settings, monkeypatch, capsys)
    where = ["evaluate", str(checkpoint), "--data", release.name, "--protocol", "interactive", "--objects", "1"]
    figures = json.loads(command(*where, "--json"))
    assert figures["objects"] == 1 and len(figures["offline_jf"]) == len(figures["online_jf"]) == interactive.FRAMES
    monkeypatch.setattr(interactive, "measure", lambda *_, **__: interactive.Exam(**figures))
    drawn = tmp_path / "curves.png"
    said = command(*where, "--picture", str(drawn))
    for number in (0, 7):
        assert f"J&F {figures['offline_jf'][number]:.1f} and {figures['online_jf'][number]:.1f}" in said
    assert f"J&F {figures['offline_mean_jf']:.1f} and {figures['online_mean_jf']:.1f}" in said
    assert cv2.imread(str(drawn)).std() > 5
