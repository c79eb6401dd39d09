"""A promotion that is taken back."""

import pytest

from engine.registry import Checkpoint, Registry
from engine.rounds import record, retraining, starting
from engine.rounds.rollback import NothingToRollBack, rollback
from tests.engine.true_releases import measured


@pytest.fixture
def chain(s, true_release):
    """Three rounds, each trained from the one before."""
    found = []
    for seed in (1, 2, 3):
        round_id = measured(s, starting.start(s, true_release.name, starting.Budget(seed=seed)))
        assert retraining.decide(s, round_id).promoted
        found.append(round_id)
    return found


def test_the_parent_serves_again_and_the_round_says_that_it_was_taken_back(s, chain):
    base = s.settings.model.checkpoint
    for serving, left in ((chain[1], chain[2]), (chain[0], chain[1]), (base, chain[0])):
        done = rollback(s)
        assert (done.serving, done.taken_back) == (serving, (left,))
        assert s.checkpoint().name == serving
        assert record.is_taken_back(s, left) and record.result_of(s, left).promoted
    assert s.checkpoint() == Checkpoint(base, 0, None)
    with pytest.raises(NothingToRollBack, match=f"no round was promoted: {base} serves"):
        rollback(s)
    again = retraining.decide(s, chain[0])
    assert not again.promoted and "taken back" in again.reasons[0] and s.checkpoint().name == base


def test_any_ancestor_can_serve_again(s, chain):
    done = rollback(s, chain[0])
    assert done.taken_back == (chain[2], chain[1]) and s.checkpoint().name == chain[0]
    assert not record.is_taken_back(s, chain[0])


def test_a_checkpoint_that_is_no_ancestor_is_refused(s, chain):
    with pytest.raises(ValueError, match=f"{chain[2]} was not trained from facebook/x: choose one of {chain[1]}, "):
        rollback(s, "facebook/x")
    assert s.checkpoint().name == chain[2] and not record.is_taken_back(s, chain[2])


def test_a_killed_rollback_is_finished_and_goes_no_further(s, chain, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(Registry, "restore", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rollback(s, chain[0])
    assert s.checkpoint().name == chain[2]
    assert rollback(s).serving == chain[0]
    assert s.checkpoint().name == chain[0]


def test_the_next_round_starts_from_the_checkpoint_that_serves(s, chain, true_release):
    rollback(s, chain[0])
    begun = record.start_of(s, starting.start(s, true_release.name, starting.Budget(seed=9)))
    assert (begun.parent, begun.number) == (chain[0], 2)
    assert retraining.decide(s, measured(s, begun.round_id)).promoted
    assert s.checkpoint().name == begun.round_id


def test_a_round_that_was_taken_back_before_its_decision_was_written_is_not_promoted_again(s, true_release):
    round_id = measured(s, starting.start(s, true_release.name))
    assert retraining.decide(s, round_id).promoted
    s.blobs.delete(f"rounds/{round_id}/decision.json")  # as if it was killed after the promotion
    base = rollback(s).serving
    assert starting.due(s) == true_release.name, "the round is found again"
    for _ in range(2):
        again = retraining.decide(s, round_id)
        assert not again.promoted and "taken back" in again.reasons[0] and s.checkpoint().name == base
    assert record.result_of(s, round_id) == again and starting.due(s) is None
