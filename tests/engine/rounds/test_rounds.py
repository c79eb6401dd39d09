"""Rounds on a release of the clips' own truth: what is due, what may be promoted, what is trained on, what stays."""

import json
import threading
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engine import loop, pictures
from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import ClipSampler, NothingToTrainOn
from engine.files import alone
from engine.protocols import effort, first_frame, interactive
from engine.protocols.truth import NothingHeldOut, Truth
from engine.registry import Checkpoint
from engine.rounds import record, retraining, starting
from engine.services import connect
from engine.stages import ingest
from storage import parts, releases, rle
from storage.formats import sav
from storage.records import STRIDE, content_id
from storage.releases import NoSuchRelease


def release_of(s, name, change=lambda row: row):
    """A release with the true masklets of every ingested clip, once more under ids of its own."""
    batch_id = content_id(name)
    for video in s.tables.videos():
        rows = [
            change(
                replace(
                    row,
                    masklet_id=content_id(name, video.video_id, row.masklet_id, length=20),
                    batch_id=batch_id,
                    split=video.split,
                    verdict="accept",
                )
            )
            for row in sav.from_sav(json.loads(s.blobs.read(video.truth_key)), video=video)
        ]
        parts.write_part(s.blobs, kind="masklets", batch_id=batch_id, video_id=video.video_id, rows=rows)
    parts.commit_batch(s.blobs, s.tables, "masklets", batch_id)
    return releases.make(s.blobs, s.tables, name)


def only_on(*shown):
    """The masklet, seen on these annotated frames (by their number) and nowhere else."""

    def change(row):
        keep = [i in shown for i in range(len(row.rle))]
        nothing = rle.empty(row.height, row.width)
        return replace(
            row,
            rle=tuple(c if k else nothing for c, k in zip(row.rle, keep, strict=True)),
            area_px=tuple(a if k else 0 for a, k in zip(row.area_px, keep, strict=True)),
        )

    return change


def measured(s, round_id, gain=0.1):
    """Leaves what `train` and `evaluate` leave, without weights: J&F 0.5 before and so much more after."""
    before = {"jf": 0.5, "masklets": 2, "slices": {}}
    figures = {"before": before, "after": before | {"jf": 0.5 + gain}}
    s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures).encode())
    return round_id


@pytest.fixture
def release(s):
    ingest.admit(s)
    return release_of(s, "release-0001")


def test_the_interactive_exam_asks_for_held_out_objects_only_and_draws_its_curve(s, release, tmp_path):
    asked = []
    exam = interactive.measure(
        layouts.of_release(release).only("val"),
        s.model(s.checkpoint()),
        most_objects=1,
        progress=lambda done, total, word: asked.append(word),
    )
    assert exam.objects == 1 and len(exam.offline_jf) == len(exam.online_jf) == interactive.FRAMES
    assert exam.online_mean_jf == pytest.approx(np.mean(exam.online_jf))
    (video,) = (v for v in release.videos() if v.video_id == asked[0])
    assert video.split == "val"
    assert all(0 <= points <= 100 for points in (*exam.offline_jf, *exam.online_jf, exam.image_miou_1))
    assert exam.offline_modelled_s >= effort.WATCH_S * video.frame_count
    drawn = cv2.imread(str(pictures.draw_curves(exam.offline_jf, exam.online_jf, "tiny", tmp_path / "curve.png")))
    assert drawn.shape[0] > 300 and drawn.std() > 5


def test_a_round_is_refused_under_torchrun_whose_processes_would_wait_for_each_other(s, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process: torchrun is for `masklets train --data`"):
        retraining.train(s, "round-001-abc")


def test_a_checkpoint_takes_only_the_place_of_the_one_it_was_measured_against(s, release):
    a, b = (measured(s, starting.start(s, release.name, seed=seed)) for seed in (1, 2))
    assert retraining.decide(s, a).promoted
    second = retraining.decide(s, b)
    assert not second.promoted and a in second.reasons[0]
    assert s.checkpoint().name == a

    s.blobs.delete(f"rounds/{a}/decision.json")  # as if it was killed after the promotion
    again = retraining.decide(s, a)
    assert again.promoted and s.checkpoint().name == a

    c = measured(s, starting.start(s, release.name))
    assert record.start_of(s, c).parent == a and retraining.decide(s, c).promoted
    assert retraining.decide(s, a) == again and retraining.decide(s, b) == second
    assert s.checkpoint() == Checkpoint(c, 2, f"checkpoints/{c}") == record.checkpoint_of(s, c)


def test_a_round_that_was_cut_off_is_due_until_it_is_decided(s, release):
    due = starting.due(s)
    assert due is not None and due == release.name
    assert loop.find_waiting(s).pending["release"] == [release.name]
    by_hand = starting.start(s, release.name, seed=9)
    round_id = starting.start(s, due)
    larger = release_of(s, "release-0002")
    assert starting.due(s) == due
    assert starting.start(s, due) == round_id

    retraining.decide(s, measured(s, round_id, gain=-0.1))
    assert record.start_of(s, round_id).masklets * 2 == larger.counts["by_split"]["train"]["masklets"]
    assert starting.due(s) == larger.name
    retraining.decide(s, measured(s, starting.start(s, larger.name), gain=-0.1))
    assert starting.due(s) is None and loop.find_waiting(s).pending["release"] == []
    assert record.result_of(s, by_hand) is None


def test_a_round_that_start_would_not_find_again_is_not_waited_for(s, settings, release):
    old = starting.start(s, release.name)
    changed = settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"steps": 3})})
    with connect(changed) as other:
        due = starting.due(other)
        assert due is not None
        new = starting.start(other, due)
        assert new != old
        retraining.decide(other, measured(other, new, gain=-0.1))
        assert starting.due(other) is None


def test_a_round_that_serves_counts_though_its_decision_was_not_written(s, release):
    round_id = measured(s, starting.start(s, release.name))
    retraining.decide(s, round_id)
    s.blobs.delete(f"rounds/{round_id}/decision.json")
    assert starting.due(s) is None


def source_of(release, frames):
    training = layouts.of_release(release).only("train")
    return ClipSampler(training, list(clip_sampler.index(training)), frames)


def samples(clips, image_size, frames):
    """What the trainer draws from a source."""
    from model import samples

    recipe = retraining.recipe_of(record.Round("r", 1, "r", "p", None, 0, 40, 1e-4, 1, None, 0.0, 1), image_size)
    (stage,) = recipe.stages
    return samples.Samples(clips, replace(stage, frames=frames), recipe, 0, 0)


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
        _, masks = drawn[i]
        assert masks[0].any()


def test_a_clip_is_of_the_frames_that_its_masks_are_of(s, release):
    clips = source_of(release, 3)
    stored = []
    for video in (v for v in release.videos() if v.split == "train"):
        with s.frames(video) as reader:
            frames = [reader.read(i) for i in range(0, video.frame_count, STRIDE)]
            stored.append((frames, release.masklets([video.video_id])))
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


def test_a_release_that_can_teach_or_measure_nothing_begins_no_round(s):
    ingest.admit(s)
    release_of(s, "dark", only_on())
    with pytest.raises(NothingToTrainOn, match="dark"):
        starting.start(s, "dark")
    release_of(s, "ends", lambda row: row if row.split == "train" else only_on(0, 5)(row))
    with pytest.raises(NothingHeldOut, match="ends"):
        starting.start(s, "ends")
    with pytest.raises(NoSuchRelease):
        starting.start(s, "nothing")
    assert record.ids(s) == []


def test_a_round_keeps_the_size_and_the_gate_that_it_began_with(s, settings, release):
    chosen = settings.rounds.model_copy(update={"image_size": 64, "min_gain": 5.0, "steps": 1})
    with connect(settings.model_copy(update={"rounds": chosen})) as other:
        round_id = starting.start(other, release.name)
    s.blobs.create(f"checkpoints/{round_id}/model.safetensors", b"the weights of another trainer")
    retraining.train(s, round_id)
    assert json.loads(s.blobs.read(f"checkpoints/{round_id}/config.json"))["image_size"] == 64
    assert s.blobs.read(f"checkpoints/{round_id}/model.safetensors") == b"the weights of another trainer"
    samples = s.registry._client.list_artifacts(s.registry.track(round_id).run_id, "samples")
    assert [item.path for item in samples] == ["samples/0000001.jpg"]
    outcome = retraining.decide(s, measured(s, round_id, gain=0.01))
    assert not outcome.promoted and "at least +0.05" in outcome.reasons[0]


def test_a_second_trainer_waits_for_the_first_and_finds_its_checkpoint(s, release, monkeypatch):
    round_id = starting.start(s, release.name)
    trained = []
    monkeypatch.setattr(retraining, "_fine_tune", lambda *a: trained.append(a))
    lock = s.home / "rounds" / round_id / "lock"
    with alone(lock):
        second = threading.Thread(target=retraining.train, args=(s, round_id))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    second.join(10)
    assert not second.is_alive() and trained == []


def test_a_checkpoint_is_a_round_that_was_trained_or_a_name(s, release):
    round_id = starting.start(s, release.name)
    assert record.checkpoint_of(s, "facebook/sam2.1-hiera-tiny") == Checkpoint("facebook/sam2.1-hiera-tiny", 0, None)
    with pytest.raises(record.NoSuchRound, match="has not been trained"):
        record.checkpoint_of(s, round_id)
    s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    assert record.checkpoint_of(s, round_id) == Checkpoint(round_id, 1, f"checkpoints/{round_id}")


def test_truths_stay_compressed_and_score_as_their_masks_do(s, release):
    (row,) = [m for m in release.iter_masklets() if m.split == "val"][:1]
    video = s.video(row.video_id)
    late = only_on(*range(2, len(row.rle)))(row)
    masks = tuple(rle.decode(counts, row.height, row.width) for counts in late.rle)
    scores = []
    for truth in (Truth.of(late), Truth(late.frame_idx, masks)):
        assert truth.first == 2
        with s.frames(video) as reader:
            hw = (video.height, video.width)
            found = first_frame.semi_supervised(
                s.model(s.checkpoint()), reader.read, hw, video.frame_count, {"a": truth, "b": Truth.of(row)}, "mask"
            )
        assert found["a"][0].count <= len(row.rle) - 2 - 2 and found["a"][1].frames == len(row.rle) - 2 - 1
        scores.append(found)
    assert scores[0] == scores[1]

    long = replace(row, height=1080, width=1920, frame_idx=tuple(range(100)), rle=(rle.empty(1080, 1920),) * 100)
    tracemalloc.start()
    assert Truth.of(long).first is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # all at once they are 207 MB
