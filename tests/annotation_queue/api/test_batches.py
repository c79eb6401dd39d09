"""Batches, as the pipeline opens and reads them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotation_queue import client
from annotation_queue.errors import NotAllowed
from annotation_queue.records import Kind, NewTicket
from tests.annotation_queue.api.running import open_batch
from tests.annotation_queue.synthetic_queue import candidate


def test_a_large_batch_is_opened_in_parts(pipeline, request):
    assert open_batch(pipeline, request, 230).total == 230
    assert len(pipeline.tickets(batch_id=pipeline.batches()[0].batch_id, limit=500)) == 230


def test_only_overseers_see_the_progress_of_batches(queue, pipeline, vera, request):
    batch = open_batch(pipeline, request, 1)  # else a ticket of a drained batch is known to be gold
    for path in ("/api/batches", f"/api/batches/{batch.batch_id}"):
        assert [client._http.get(path).status_code for client in (vera, pipeline)] == [403, 200]


def test_the_queue_says_which_of_some_batches_are_drained(pipeline, monkeypatch):
    monkeypatch.setattr(client, "NAMED", 2)
    for name in ("c", "a", "b", "other"):
        pipeline.open_batch(name, [])  # nothing is left to do in it
    ticket = NewTicket(ticket_id="t", kind=Kind.VERIFY, video_id="video-0", masklet=candidate("m"))
    pipeline.open_batch("open", [ticket])
    assert pipeline.drained_batches(["c", "open", "unknown", "b", "a"]) == ["a", "b", "c"]
    assert pipeline.drained_batches([]) == []


def test_an_invalid_masklet_is_refused(pipeline):
    bad = replace(candidate("m"), rle=(b"~~",) * 12)
    with pytest.raises(ValueError, match="masklet m"):
        pipeline.open_batch("bad", [NewTicket(ticket_id="bad", kind=Kind.VERIFY, video_id="video-0", masklet=bad)])


def test_the_pipeline_withdraws_a_video(pipeline, vera, request):
    batch_id = open_batch(pipeline, request, 2).batch_id
    assert vera.claim(batch_id=batch_id).video_id == "video-0"
    assert (pipeline.withdraw(batch_id, "video-0", "why"), pipeline.withdraw(batch_id, "video-0", "why")) == (1, 0)
    assert pipeline.batch(batch_id).remaining == 1
    with pytest.raises(NotAllowed):
        vera.withdraw(batch_id, "video-1", "why")
