"""The steps of a round: which checkpoint may be promoted, what a killed step leaves, and two trainers at once."""

import json
import logging
import re
import threading

import pytest

from engine.files import alone
from engine.registry import Checkpoint
from engine.rounds import record, retraining, starting
from engine.services import connect
from tests.engine.true_releases import measured


def test_a_round_is_refused_under_torchrun_whose_processes_would_wait_for_each_other(s, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun, and set rounds.launcher"):
        retraining.train(s, "round-001-abc")


def test_a_checkpoint_takes_only_the_place_of_the_one_it_was_measured_against(s, true_release):
    a, b = (measured(s, starting.start(s, true_release.name, starting.Budget(seed=seed))) for seed in (1, 2))
    assert retraining.decide(s, a).promoted
    second = retraining.decide(s, b)
    assert not second.promoted and a in second.reasons[0]
    assert s.checkpoint().name == a

    s.blobs.delete(f"rounds/{a}/decision.json")  # as if it was killed after the promotion
    again = retraining.decide(s, a)
    assert again.promoted and s.checkpoint().name == a

    c = measured(s, starting.start(s, true_release.name))
    assert record.start_of(s, c).parent == a and retraining.decide(s, c).promoted
    assert retraining.decide(s, a) == again and retraining.decide(s, b) == second
    assert s.checkpoint() == Checkpoint(c, 2, f"checkpoints/{c}") == record.checkpoint_of(s, c)


def test_a_round_has_threads_of_its_own(settings):
    import torch

    chosen = settings.rounds.model_copy(update={"threads": 2})
    with connect(settings.model_copy(update={"rounds": chosen})) as other:
        try:
            retraining._load(other, other.checkpoint())
            assert torch.get_num_threads() == 2
        finally:
            torch.set_num_threads(1)


def test_what_rounds_forget_adds_up_to_one_limit(s, true_release, settings):
    first = measured(s, starting.start(s, true_release.name), general=(0.8, 0.74))
    done = retraining.decide(s, first)
    assert done.promoted and done.general_rounds == 1
    elsewhere = settings.model_copy(update={"rounds": settings.rounds.model_copy(update={"general": "/davis"})})
    with connect(elsewhere) as other:
        between = measured(other, starting.start(other, true_release.name), general=(0.9, 0.81))
        assert retraining.decide(other, between).promoted, "another general set is another limit"
    second = retraining.decide(s, measured(s, starting.start(s, true_release.name), general=(0.74, 0.68)))
    assert not second.promoted and s.checkpoint().name == between
    (reason,) = second.reasons
    assert reason.startswith("forgot too much of the general set: -12.0 points")
    assert reason.endswith("over 3 rounds, at most -10.0")
    assert (second.general_first, second.general_before, second.general_rounds) == pytest.approx((0.8, 0.74, 3))


@pytest.fixture
def asking(settings):
    """Services whose settings ask a person before a promotion."""
    chosen = settings.rounds.model_copy(update={"approval": "person"})
    with connect(settings.model_copy(update={"rounds": chosen})) as services:
        yield services


def test_a_round_that_passed_waits_for_a_person_and_is_promoted_on_approval(asking, true_release, caplog):
    caplog.set_level(logging.INFO)
    round_id = measured(asking, starting.start(asking, true_release.name))
    waiting = retraining.decide(asking, round_id)
    assert (waiting.waits, waiting.promoted) == (True, False) and waiting.reasons[0].startswith("better: held-out J&F")
    assert record.state_of(asking, record.start_of(asking, round_id)) is record.RoundState.WAITS
    assert retraining.decide(asking, round_id) == waiting and record.result_of(asking, round_id) is None
    base = asking.settings.model.checkpoint
    assert asking.checkpoint().name == base and starting.due(asking) is None
    done = retraining.answer(asking, round_id, approved=True, by="lea", why="the masks look right")
    assert done.promoted and not done.waits
    assert done.reasons == ("approved by lea: the masks look right", *waiting.reasons)
    assert asking.checkpoint().name == round_id
    assert retraining.answer(asking, round_id, approved=False, by="max") == done  # an answer stays
    assert "waits for approval" in caplog.messages and "promoted" in caplog.messages
    assert not re.search(r"\blea\b", caplog.text)  # no line names a person


def test_a_rejected_round_keeps_the_serving_checkpoint_and_counts_as_decided(asking, true_release):
    round_id = measured(asking, starting.start(asking, true_release.name))
    retraining.decide(asking, round_id)
    done = retraining.answer(asking, round_id, approved=False, by="lea")
    assert not done.promoted and done.reasons[0] == "rejected by lea"
    assert asking.checkpoint().name == asking.settings.model.checkpoint
    assert [begun.round_id for begun in record.decided(asking)] == [round_id]


def test_nobody_is_asked_about_a_round_that_the_gate_refused(asking, true_release):
    round_id = measured(asking, starting.start(asking, true_release.name), gain=-0.1)
    assert not retraining.decide(asking, round_id).waits
    assert record.state_of(asking, record.start_of(asking, round_id)) is record.RoundState.DECIDED


def test_an_approval_that_was_killed_before_its_promotion_is_finished_by_the_next_call(asking, true_release):
    round_id = measured(asking, starting.start(asking, true_release.name))
    with pytest.raises(ValueError, match="does not wait for approval"):
        retraining.answer(asking, round_id, approved=True, by="lea")
    retraining.decide(asking, round_id)
    said = {"approved": True, "by": "lea", "why": "", "at": 1}
    asking.blobs.create(f"rounds/{round_id}/approval.json", json.dumps(said).encode())
    assert starting.due(asking) == true_release.name  # the round is found again
    assert retraining.answer(asking, round_id, approved=False, by="max").promoted


def test_a_round_keeps_the_size_and_the_gate_that_it_began_with(s, settings, true_release):
    chosen = settings.rounds.model_copy(update={"image_size": 64, "min_gain": 5.0, "steps": 1})
    with connect(settings.model_copy(update={"rounds": chosen})) as other:
        round_id = starting.start(other, true_release.name)
    s.blobs.create(f"checkpoints/{round_id}/model.safetensors", b"the weights of another trainer")
    retraining.train(s, round_id)
    assert json.loads(s.blobs.read(f"checkpoints/{round_id}/config.json"))["image_size"] == 64
    assert s.blobs.read(f"checkpoints/{round_id}/model.safetensors") == b"the weights of another trainer"
    samples = s.registry._client.list_artifacts(s.registry.track(round_id).run_id, "samples")
    assert [item.path for item in samples] == ["samples/0000001.jpg"]
    outcome = retraining.decide(s, measured(s, round_id, gain=0.01))
    assert not outcome.promoted and "gained less than 5.0 points" in outcome.reasons[0]


def test_a_second_trainer_waits_for_the_first_and_finds_its_checkpoint(s, true_release, monkeypatch):
    round_id = starting.start(s, true_release.name)
    trained = []
    monkeypatch.setattr(retraining, "train_round", lambda *a: trained.append(a))
    lock = s.home / "rounds" / round_id / "lock"
    with alone(lock):
        second = threading.Thread(target=retraining.train, args=(s, round_id))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    second.join(60)
    assert not second.is_alive() and trained == []
