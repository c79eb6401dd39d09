"""The clips that are drawn from a dataset: frames, objects, the most edited masklets, damaged videos."""

import logging
import pickle
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine.datasets import clip_sampler, labelled, layouts
from engine.datasets.clip_sampler import ClipSampler, NothingToTrainOn
from engine.datasets.layouts import open_dataset
from engine.ingest import ingest
from engine.rounds import recipes, record
from model.training.samples import Samples
from storage import rle
from storage.formats import sav_frames
from storage.formats.picture_folder import PictureReader
from storage.pixels import Rgb
from storage.records import STRIDE
from tests.engine.labelled_folders import sampler_of, write_sav_frames
from tests.engine.true_releases import only_on, release_of


def test_a_clip_has_the_frames_of_its_masks_and_no_other_frame_is_decoded(davis_root, monkeypatch):
    sampler = sampler_of(open_dataset(davis_root), 4)
    decoded = []
    read = PictureReader.read

    def counted(self: PictureReader, i: int) -> Rgb:
        decoded.append(i)
        return read(self, i)

    monkeypatch.setattr(PictureReader, "read", counted)
    ways = set()
    (video,) = open_dataset(davis_root).videos()
    for seed in range(12):
        decoded.clear()
        clip = sampler(seed)
        assert np.array_equal(pickle.loads(pickle.dumps(sampler))(seed).masks, clip.masks)
        tops = [int(np.argmax(mask[0].any(1))) - 20 for mask in clip.masks]
        assert sorted(set(decoded)) == sorted(tops) and len(tops) == 4
        with video.open() as reader:
            assert all(np.array_equal(reader.read(i), frame) for i, frame in zip(tops, clip.frames, strict=True))
        ways.add(tops[1] - tops[0])
    assert ways == {1, -1}


def test_a_clip_of_many_objects_keeps_eight_with_one_that_is_large_enough(tmp_path):
    """Forty objects: twenty too small ones, ten that enter later, and ten that a clip may start with."""
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
    sampler = sampler_of(open_dataset(root), 4)
    seen = set()
    for seed in range(30):
        masks = sampler(seed).masks
        assert masks.shape[1] == 8 and sampler(seed).masks.tobytes() == masks.tobytes()
        large = masks.sum((2, 3)) > 1
        assert large[0].any() and (masks[0].any((1, 2)) | masks[-1].any((1, 2))).all()
        seen |= {int(mask.any(0).argmax()) for mask in masks[0][large[0]]}
    assert seen >= set(range(30, 40))


def test_the_hardest_share_holds_the_most_edited_masklets(sav_folder):
    data = open_dataset(sav_folder, split="train")
    first, second = data.videos()
    edits = sorted([*first.edits.values(), *second.edits.values()], reverse=True)
    assert edits[0] >= 3 and sampler_of(data, 4).places[0][1] is None
    half = sampler_of(data, 4, 0.5)
    drawn = {(of.number, name) for of, _, names in half.places for name in names}
    kept = sorted((data.load(number).edits[name] for number, name in drawn), reverse=True)
    assert kept == [e for e in edits[: round(len(edits) / 2)] if e]
    (only,) = sampler_of(data, 4, 0.01).places
    clip = sampler_of(data, 4, 0.01)(3)
    assert clip.masks.shape[1] == 1 and clip.masks[0].any() and data.load(only[0].number).edits[only[2][0]] == edits[0]


def test_masklets_without_edits_are_never_hard(davis_root):
    with pytest.raises(NothingToTrainOn, match="edited by a person"):
        sampler_of(open_dataset(davis_root), 4, 0.5)
    with pytest.raises(NothingToTrainOn, match="no train video with 4 annotated frames"):
        sampler_of(open_dataset(davis_root, split="train"), 4)


def test_a_bad_video_is_skipped_with_a_warning_and_drawing_continues(sav_folder, caplog):
    first, second, _ = sorted((sav_folder / "sav_000").glob("*.mp4"))
    data = open_dataset(sav_folder)
    good = sampler_of(data, 4)
    first.write_bytes(first.read_bytes()[:3000])  # it was intact while the dataset was indexed
    with caplog.at_level(logging.WARNING):
        clips = [good(seed) for seed in range(12)]
    assert len(clips) == 12 and [first.stem in r.getMessage() for r in caplog.records] == [True]
    first.write_bytes(b"")
    assert {of.number for of, *_ in sampler_of(data, 4).places} == {1, 2} and len(caplog.records) == 2
    next(sav_folder.rglob(f"{second.stem}_manual.json")).write_text("{")
    assert {of.number for of, *_ in sampler_of(data, 4).places} == {2}
    assert all("\n" not in record.getMessage() for record in caplog.records)
    with pytest.raises(labelled.BAD_VIDEO):  # an evaluation skips no video
        list(data.videos())


def source_of(release, frames):
    training = layouts.of_release(release).only("train")
    return ClipSampler(training, list(clip_sampler.index(training)), frames)


def samples(clips, image_size, frames):
    """What the trainer draws from a source."""
    recipe = recipes.of_round(record.Round("r", 1, "r", "p", None, 0, 40, 1e-4, 1, None, 0.0, 1), image_size)
    return Samples(clips, replace(recipe.stages[-1], steps=40, frames=frames), recipe, 0, 0)


@pytest.mark.parametrize("image_size", [128, 256, 512, 1024])
def test_an_object_that_a_clip_may_begin_with_is_one_that_the_trainer_takes(image_size):
    assert clip_sampler.SMALLEST * image_size**2 > samples(None, image_size, 1).config.min_area_px


@pytest.mark.parametrize("shown", [0, 2, 5])
def test_every_clip_begins_with_an_object_though_it_shows_on_a_single_frame(s, shown):
    ingest.admit(s)
    clips = source_of(release_of(s, "rare", only_on(shown)), 4)
    drawn = samples(clips, 128, 4)
    assert len(drawn) == 80
    for i in range(len(drawn)):
        assert clips(i).masks[0].any() and not clips(i).masks[1:].any()
        _, masks, _ = drawn[i]
        assert masks[0].any()


def test_a_clip_is_of_the_frames_that_its_masks_are_of(s, true_release):
    clips = source_of(true_release, 3)
    stored = []
    for video in (v for v in true_release.videos() if v.split == "train"):
        with s.frames(video) as reader:
            frames = [reader.read(i) for i in range(0, video.frame_count, STRIDE)]
            stored.append((frames, true_release.masklets([video.video_id])))
    ways = set()
    for seed in range(20):
        clip = clips(seed)
        ((at, rows),) = [
            ([next(i for i, frame in enumerate(frames) if np.array_equal(frame, f)) for f in clip.frames], rows)
            for frames, rows in stored
            if any(np.array_equal(frame, clip.frames[0]) for frame in frames)
        ]
        ways.add(at[1] - at[0])
        assert at[2] - at[1] == at[1] - at[0]
        for row, masks in zip(rows, clip.masks.swapaxes(0, 1), strict=True):
            assert [rle.encode(mask) for mask in masks] == [row.rle[i] for i in at]
    assert ways == {1, -1}


def test_a_clip_has_the_places_that_people_rejected_without_what_is_near_an_object(s, true_release):
    video = next(v for v in true_release.videos() if v.split == "train")
    row = true_release.masklets([video.video_id])[0]
    frame = np.ones((video.height, video.width), bool)
    everywhere = dict.fromkeys(row.frame_idx, rle.encode(frame))
    speck = dict.fromkeys(row.frame_idx, rle.encode(np.arange(frame.size).reshape(frame.shape) == 5))
    later = {row.frame_idx[-1]: rle.encode(frame)}
    loaded = layouts.of_release(true_release, [video]).entries[0].load()
    places = {"a": everywhere, "b": everywhere, "speck": speck, "later": later}

    def drawn(rejected, **found):
        of = replace(loaded, rejected=found or places)
        data = labelled.Dataset("made", "release", (labelled.Entry(of.video_id, "train", lambda: of),), "train")
        return ClipSampler(data, list(clip_sampler.index(data)), 1, rejected=rejected)(3)

    plain, with_places = drawn(0), drawn(3)
    assert plain.objects.all()
    objects = plain.masks.shape[1]
    assert with_places.objects.tolist() == [True] * objects + [False] * 2, "no speck, and nothing of a later frame"
    place, union = with_places.masks[0, objects], with_places.masks[0, :objects].any(0)
    far = max(3, round(clip_sampler.MARGIN * min(frame.shape)))
    grown = np.pad(union, far)
    touched = np.any([np.roll(grown, (y, x), (0, 1)) for y in (-far, 0, far) for x in (-far, 0, far)], axis=0)
    assert place.any() and not (place & touched[far:-far, far:-far]).any()
    assert drawn(1).objects.tolist() == [True] * objects + [False]
    assert drawn(3, speck=speck).objects.all()
