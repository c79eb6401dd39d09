"""The records of rounds in the store."""

import math

import pytest

from engine.files import alone
from engine.protocols import first_frame
from engine.registry import Checkpoint
from engine.rounds import record, retraining, starting
from engine.rounds.record import RoundState
from engine.verifier import keeping
from storage.blobs.base import BlobDamaged
from tests.engine.true_releases import measured, release_of
from tests.engine.verifier import reviewed
from validation import gate


def test_a_checkpoint_is_a_round_that_was_trained_or_a_name(s, true_release):
    round_id = starting.start(s, true_release.name)
    assert record.checkpoint_of(s, "facebook/sam2.1-hiera-tiny") == Checkpoint("facebook/sam2.1-hiera-tiny", 0, None)
    with pytest.raises(record.NoSuchRound, match="has not been trained"):
        record.checkpoint_of(s, round_id)
    s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    assert record.checkpoint_of(s, round_id) == Checkpoint(round_id, 1, f"checkpoints/{round_id}")


def test_a_round_without_a_decision_runs_while_a_process_holds_it_and_is_stopped_otherwise(s, true_release):
    begun = record.start_of(s, starting.start(s, true_release.name))
    lock = record.lock_of(s, begun.round_id)
    assert record.state_of(s, begun) is RoundState.STOPPED and not lock.exists()
    with alone(lock):
        assert record.state_of(s, begun) is RoundState.RUNNING
    assert record.state_of(s, begun) is RoundState.STOPPED
    retraining.decide(s, measured(s, begun.round_id))
    assert record.state_of(s, begun) is RoundState.DECIDED


@pytest.mark.parametrize("file, of", [("gate", record.waiting_of), ("decision", record.result_of)])
def test_a_damaged_result_of_a_round_is_an_error_that_names_its_file(s, true_release, file, of):
    round_id = starting.start(s, true_release.name)
    s.blobs.create(f"rounds/{round_id}/{file}.json", b'{"passed": "perhaps"}')
    with pytest.raises(BlobDamaged, match=rf"^rounds/{round_id}/{file}\.json: "):
        of(s, round_id)


@pytest.mark.parametrize(
    "numbers",
    [{"lr": -1.0}, {"lr": math.nan}, {"lr": math.inf}, {"lr": 0.0}, {"steps": 0}, {"steps": -3}, {"seed": -1}],
)
def test_a_round_with_an_invalid_number_is_refused_and_not_recorded(s, true_release, numbers):
    with pytest.raises(ValueError, match="lr|steps|seed") as refused:
        starting.start(s, true_release.name, starting.Budget(**numbers))
    assert "\n" not in str(refused.value) and record.ids(s) == []


def test_a_round_is_held_while_it_is_evaluated(s, true_release, monkeypatch):
    begun = record.start_of(s, starting.start(s, true_release.name))
    s.blobs.create(f"checkpoints/{begun.round_id}/meta.json", b"{}")
    states = []

    def measure(*arguments):
        states.append(record.state_of(s, begun))
        return gate.Metrics(jf=0.5, masklets=1)

    monkeypatch.setattr(first_frame, "measure", measure)
    monkeypatch.setattr(s, "model", lambda checkpoint, to_train=False: None)
    retraining.evaluate(s, begun.round_id)
    assert set(states) == {RoundState.RUNNING}


@pytest.mark.parametrize("count", [10, 100])
def test_a_round_refits_the_verifier_and_keeps_its_report(s, true_release, monkeypatch, count):
    batch_id = "a" * 16
    newest = release_of(s, "release-0002")
    reviewed.review(s.blobs, batch_id, reviewed.candidates(batch_id, count), 1)
    begun = record.start_of(s, starting.start(s, newest.name))
    s.blobs.create(f"checkpoints/{begun.round_id}/meta.json", b"{}")
    monkeypatch.setattr(first_frame, "measure", lambda *arguments: gate.Metrics(jf=0.5, masklets=1))
    monkeypatch.setattr(s, "model", lambda checkpoint, to_train=False: None)
    retraining.evaluate(s, begun.round_id)
    told = record.read(s, begun.round_id, "verifier") or {}
    if count == 10:
        assert told["problem"].startswith("a verifier needs 60 verdicts") and keeping.ids(s.blobs) == []
    else:
        assert [told["verifier_id"]] == keeping.ids(s.blobs)
        assert told["figures"]["candidates"] == 100 and told["figures"]["auroc"]["value"] == 1


@pytest.mark.parametrize("written", [b"", b"[]", b'{"round_id": "round-001-a"}'])
def test_a_damaged_record_of_a_round_is_an_error_that_names_its_file(s, written):
    s.blobs.write("rounds/round-001-a/start.json", written)
    with pytest.raises(BlobDamaged, match="^rounds/round-001-a/start.json: "):
        record.all_of(s)
