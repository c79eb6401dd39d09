"""Batches: their marks, their order, and damaged marks."""

import pytest

from engine.stages import batches
from engine.stages.batches import BatchStage
from storage.blobs.base import BlobDamaged
from storage.blobs.folder import LocalBlobs

BATCH = "0123456789abcdef"


def test_a_batch_is_pending_for_the_stage_after_the_one_that_marked_it(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.pending(blobs, BatchStage.PROPOSED) == []
    batches.mark(blobs, BATCH, BatchStage.INGESTED, {"videos": ["v"]})
    assert batches.pending(blobs, BatchStage.PROPOSED) == [BATCH]
    assert batches.pending(blobs, BatchStage.IN_REVIEW) == []
    batches.mark(blobs, BATCH, BatchStage.PROPOSED, {})
    assert batches.pending(blobs, BatchStage.PROPOSED) == []
    assert batches.pending(blobs, BatchStage.IN_REVIEW) == [BATCH]


def test_the_first_mark_of_a_stage_stays(tmp_path):
    blobs = LocalBlobs(tmp_path)
    assert batches.mark(blobs, BATCH, BatchStage.INGESTED, {"n": 1})
    assert not batches.mark(blobs, BATCH, BatchStage.INGESTED, {"n": 2})
    assert batches.facts(blobs, BATCH, BatchStage.INGESTED) == {"n": 1}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0123", "0123456789ABCDEF"])
def test_an_invalid_batch_id_never_becomes_a_path(tmp_path, name):
    with pytest.raises(ValueError, match="not a batch id"):
        batches.mark(LocalBlobs(tmp_path), name, BatchStage.INGESTED, {})


@pytest.mark.parametrize("written", [b"", b"[]", b"{", b"\xff\xfe"])
def test_a_damaged_marker_is_an_error_in_one_line_that_names_it(tmp_path, written):
    blobs = LocalBlobs(tmp_path)
    blobs.write(f"batches/{BATCH}/{BatchStage.INGESTED}.json", written)
    with pytest.raises(BlobDamaged, match=f"^batches/{BATCH}/1-ingested.json: not "):
        batches.video_ids(blobs, BATCH)


def test_a_marker_without_its_videos_is_damaged(tmp_path):
    blobs = LocalBlobs(tmp_path)
    batches.mark(blobs, BATCH, BatchStage.INGESTED, {})
    with pytest.raises(BlobDamaged, match="the list of videos is missing"):
        batches.video_ids(blobs, BATCH)
