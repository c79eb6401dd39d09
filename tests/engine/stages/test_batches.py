import pytest

from engine.stages import batches
from engine.stages.batches import Stage
from storage.blobs import LocalBlobs

BATCH = "0123456789abcdef"


def test_a_batch_is_pending_for_the_stage_after_the_one_that_marked_it(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.pending(blobs, Stage.PROPOSED) == []
    batches.mark(blobs, BATCH, Stage.INGESTED, {"videos": ["v"]})
    assert batches.pending(blobs, Stage.PROPOSED) == [BATCH]
    assert batches.pending(blobs, Stage.IN_REVIEW) == []
    batches.mark(blobs, BATCH, Stage.PROPOSED, {})
    assert batches.pending(blobs, Stage.PROPOSED) == []
    assert batches.pending(blobs, Stage.IN_REVIEW) == [BATCH]


def test_the_first_mark_of_a_stage_stays(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.mark(blobs, BATCH, Stage.INGESTED, {"n": 1})
    assert not batches.mark(blobs, BATCH, Stage.INGESTED, {"n": 2})
    assert batches.facts(blobs, BATCH, Stage.INGESTED) == {"n": 1}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0123", "0123456789ABCDEF"])
def test_what_is_no_batch_id_never_becomes_a_path(tmp_path, name):
    with pytest.raises(ValueError, match="not a batch id"):
        batches.mark(LocalBlobs(tmp_path), name, Stage.INGESTED, {})
