"""The records of rounds in the store."""

import pytest

from engine.registry import Checkpoint
from engine.rounds import record, starting


def test_a_checkpoint_is_a_round_that_was_trained_or_a_name(s, true_release):
    round_id = starting.start(s, true_release.name)
    assert record.checkpoint_of(s, "facebook/sam2.1-hiera-tiny") == Checkpoint("facebook/sam2.1-hiera-tiny", 0, None)
    with pytest.raises(record.NoSuchRound, match="has not been trained"):
        record.checkpoint_of(s, round_id)
    s.blobs.create(f"checkpoints/{round_id}/meta.json", b"{}")
    assert record.checkpoint_of(s, round_id) == Checkpoint(round_id, 1, f"checkpoints/{round_id}")
