"""Which release is due for a round, and which release cannot start one."""

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks import scale
from engine import loop
from engine.datasets.clip_sampler import NothingToTrainOn
from engine.ingest import ingest
from engine.protocols.truth import NothingHeldOut
from engine.rounds import campaign, recipes, record, retraining, starting
from engine.services import connect
from engine.settings import CampaignPhase, CampaignSettings
from engine.stages import withdrawing
from engine.verifier import keeping
from storage.blobs.base import BlobDamaged, BlobMissing, BlobUnreachable
from storage.blobs.folder import LocalBlobs
from storage.dataset import batch_manifests, parts, releases
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.parts import PartDamaged
from storage.dataset.releases import NoSuchRelease
from storage.videos.reader import FrameUnreadable
from tests.engine.true_releases import measured, only_on, publish, release_of


def test_a_round_that_was_cut_off_is_due_until_it_is_decided(s, true_release):
    due = starting.due(s)
    assert due is not None and due == true_release.name
    assert loop.find_waiting(s).pending["release"] == [true_release.name]
    by_hand = starting.start(s, true_release.name, starting.Budget(seed=9))
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


def test_withdrawn_masklets_need_not_be_made_up_for_before_the_next_round(s, settings, true_release, caplog):
    caplog.set_level("INFO")
    of_video = {v.video_id: len(true_release.masklets([v.video_id])) for v in s.tables.videos() if v.split == "train"}
    one, *_, other = sorted(of_video, key=of_video.__getitem__)
    retraining.decide(s, measured(s, starting.start(s, true_release.name), gain=-0.1))
    withdrawn = withdrawing.withdraw(s, other, by="ann", why="asked").release
    assert starting.due(s) is None and "1 masklet to train on missing" in caplog.text
    larger = release_of(s, "release-0003-a", lambda row: row if row.video_id == one else replace(row, split="val"))
    train = {
        name: releases.load(s.blobs, name).counts["by_split"]["train"]["masklets"] for name in (withdrawn, larger.name)
    }
    assert train[withdrawn] < train[larger.name] <= train[withdrawn] + of_video[other], "fewer new ones than withdrawn"
    assert starting.due(s) == larger.name
    plan = CampaignSettings(phases=(CampaignPhase(phase="2", masklets=20, retrainings=2),))
    with connect(settings.model_copy(update={"campaign": plan})) as planned:
        publish(s, 1, true_release.name, phase="2")
        publish(s, 2, larger.name, phase="2")
        assert campaign.summary(planned) == "campaign: phase 2 is current: 20 of 20 masklets, 1 of 2 retrainings"
        assert starting.due(planned) == larger.name, "a phase without more videos ends"
    cut_off = starting.start(s, larger.name)
    release_of(s, "release-0004-b")
    assert starting.due(s) == larger.name, "the round that was cut off goes on"
    retraining.decide(s, measured(s, cut_off, gain=-0.1))
    assert starting.due(s) == "release-0004-b"


@pytest.mark.parametrize("erase", [False, True])
def test_only_what_a_round_had_learned_from_is_less_after_a_withdrawal(s, erase):
    rounds = []
    for number in (1, 2):
        parts.commit_batch(s.blobs, s.tables, "masklets", scale.collect(s, number, 2)[0])
        made = releases.make(s.blobs, s.tables, f"release-000{number}-a")
        rounds.append(starting._round(s, made))
    video_id = next(v.video_id for v in made.iter_videos() if v.split == "train" and v.video_id in scale.ids_of(2, 2))
    of_it = len(made.masklets([video_id]))
    withdrawing.withdraw(s, video_id, by="ann", why="asked", erase=erase)
    names = releases.names(s.blobs)
    left = [starting._left(s, begun, names) for begun in rounds]
    assert of_it > 0 and left == [rounds[0].masklets, rounds[1].masklets - of_it]


def test_a_round_that_start_would_not_find_again_is_not_waited_for(s, settings, true_release):
    old = starting.start(s, true_release.name)
    changed = settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"steps": 3})})
    with connect(changed) as other:
        due = starting.due(other)
        assert due is not None
        new = starting.start(other, due)
        assert new != old
        retraining.decide(other, measured(other, new, gain=-0.1))
        assert starting.due(other) is None


def test_a_round_that_fails_for_good_holds_up_neither_the_next_release_nor_other_projects(s, true_release, monkeypatch):
    def diverges(*_):
        raise ValueError("the loss is not a number")

    monkeypatch.setattr(retraining, "train_round", diverges)
    due = starting.due(s)
    assert due is not None and due == true_release.name
    for tries in range(record.MOST_FAILURES):
        assert starting.due(s) == due, tries
        round_id = starting.start(s, due)
        with pytest.raises(ValueError, match="not a number"):
            retraining.train(s, round_id)
    assert record.state_of(s, record.start_of(s, round_id)) is record.RoundState.FAILED
    assert starting.due(s) is None, "the next project is asked"
    larger = release_of(s, "release-0002")
    assert starting.due(s) == larger.name


@pytest.mark.parametrize(
    ("error", "for_good"),
    [
        (FloatingPointError("the model gave no numbers"), True),
        (FrameUnreadable("a held-out video is damaged"), True),
        (PartDamaged("the sha256 differs"), True),
        (ReleaseError("its manifest is damaged"), True),
        (BlobMissing("no such file"), True),
        (BlobDamaged("not JSON"), True),
        (BlobUnreachable("the store does not answer"), False),
        (RuntimeError("out of memory"), False),
    ],
)
def test_an_error_that_a_retry_cannot_fix_counts_as_a_failure(s, monkeypatch, error, for_good):
    monkeypatch.setattr(retraining, "_evaluate", lambda *_: (_ for _ in ()).throw(error))
    for _ in range(record.MOST_FAILURES):
        with pytest.raises(type(error)):
            retraining.evaluate(s, "round-001-abc")
    assert record.has_failed(s, "round-001-abc") is for_good


def test_a_damaged_part_costs_a_round_its_new_verifier_only(s, true_release, monkeypatch):
    monkeypatch.setattr(keeping, "refit", lambda *_: (_ for _ in ()).throw(PartDamaged("the sha256 differs")))
    begun = record.start_of(s, starting.start(s, true_release.name))
    retraining._refit_verifier(s, begun)
    assert record.read(s, begun.round_id, "verifier") == {"problem": "the sha256 differs"}


def test_the_steps_of_a_round_are_the_callers_or_the_settings_or_follow_from_the_masklets(settings, true_release):
    by_default = settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"steps": None})})
    with connect(by_default) as s:
        begun = record.start_of(s, starting.start(s, true_release.name))
        assert begun.steps == recipes.steps_for(begun.masklets) > 100
        asked = starting.start(s, true_release.name, starting.Budget(steps=7))
        assert record.start_of(s, asked).steps == 7
    with connect(settings) as s:
        assert record.start_of(s, starting.start(s, true_release.name)).steps == settings.rounds.steps == 2


@pytest.mark.parametrize(("checkpoint", "rate"), [("micro", 3e-4), ("facebook/sam2.1-hiera-tiny", 5e-6)])
def test_the_learning_rate_follows_from_the_checkpoint_that_the_rounds_began_with(
    settings, true_release, checkpoint, rate
):
    began = settings.model.model_copy(update={"checkpoint": checkpoint})
    rounds = settings.rounds.model_copy(update={"lr": None})
    with connect(settings.model_copy(update={"model": began, "rounds": rounds})) as s:
        assert record.start_of(s, starting.start(s, true_release.name)).lr == rate
        asked = starting.start(s, true_release.name, starting.Budget(lr=2e-5))
        assert record.start_of(s, asked).lr == 2e-5
    with connect(settings) as s:
        assert record.start_of(s, starting.start(s, true_release.name)).lr == settings.rounds.lr == 1e-5


def test_more_masklets_get_more_steps_within_bounds():
    wanted = {n: recipes.steps_for(n) for n in (1, 50, 200, 2_000, 643_000)}
    assert list(wanted.values()) == sorted(wanted.values())
    assert wanted[1] == wanted[50] == recipes.LEAST_STEPS < wanted[200] < wanted[2_000] < wanted[643_000]
    assert wanted[643_000] == recipes.MOST_STEPS


def test_a_round_that_serves_counts_though_its_decision_was_not_written(s, true_release):
    round_id = measured(s, starting.start(s, true_release.name))
    retraining.decide(s, round_id)
    s.blobs.delete(f"rounds/{round_id}/decision.json")
    assert starting.due(s) is None


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


def test_an_object_that_one_frame_in_the_middle_shows_can_be_measured(s):
    ingest.admit(s)
    release_of(s, "middle", lambda row: row if row.split == "train" else only_on(2)(row))
    assert starting.start(s, "middle") in record.ids(s)


def test_a_release_is_checked_without_reading_all_of_its_videos(s, monkeypatch):
    read, real, reads = Counter(), LocalBlobs.read, []
    for number in range(8):
        batch_id, _ = scale.collect(s, number, 4)
        parts.commit_batch(s.blobs, s.tables, "masklets", batch_id)
    for name in ("few", "many"):
        release = releases.make(s.blobs, s.tables, name)
        batch_manifests.forget()
        with monkeypatch.context() as patch:
            patch.setattr(LocalBlobs, "read", lambda self, key, *more: (read.update([key]), real(self, key, *more))[1])
            starting._check_release(release)
        reads.append(len(read))
        read.clear()
        for number in range(8, 12):
            batch_id, _ = scale.collect(s, number, 4)
            parts.commit_batch(s.blobs, s.tables, "masklets", batch_id)
    assert 0 < reads[0] == reads[1] < 2 * 8 * 4


@pytest.mark.parametrize(("checkpoint", "general"), [("micro", "micro"), ("facebook/sam2.1-hiera-tiny", None)])
def test_only_micro_keeps_its_own_synthetic_clips_by_default(s, settings, true_release, checkpoint, general):
    model = settings.model.model_copy(update={"checkpoint": checkpoint})
    with connect(settings.model_copy(update={"model": model})) as other:
        begun = record.start_of(other, starting.start(other, true_release.name))
    assert begun.general == general
