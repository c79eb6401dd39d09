"""The model of live refinement over a real checkpoint and a real store."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import httpx
import numpy as np
import pytest

from annotation_queue.records import Kind, NewTicket, NoSuchVideo, Role
from annotation_queue.refine import draft_of, drawn, propagation
from engine import auto_masklets, batches, ingest, phases
from engine.refinement import LiveModel
from storage import masklets, rle
from storage.records import Prompt


@pytest.fixture
def candidate(s):
    """A candidate of a store that was ingested and searched for real."""
    ingest.run(s)
    (batch_id,) = batches.reached(s.blobs)
    for videos in auto_masklets.chunks(s, batch_id):
        auto_masklets.run(s, batch_id, videos)
    auto_masklets.finish(s, batch_id)
    return max(masklets.rows(s.blobs, "candidates", batch_id), key=lambda row: sum(row.area_px))


def masks_of(steps):
    """What comes of work that is done in steps."""
    return [made for made in steps if made is not None]


def draft(row):
    return draft_of((row.height, row.width), row.frame_idx, row, [], {})


def click(row, frame_idx, xy=(40.0, 40.0)):
    return Prompt(frame_idx=frame_idx, points_xy=(xy,), labels=(1,))


@pytest.fixture
def live(s):
    model = LiveModel(s)
    yield model
    model.close()


def test_clicks_and_tracks_are_masks_of_the_video_s_size(live, candidate):
    d = draft(candidate)
    made = live.click("t", candidate.video_id, d, click(candidate, 8), memory=True)
    assert made.frame_idx == 8 and made.area_px == rle.area(made.rle, candidate.height, candidate.width)
    d.masks[8] = made
    d.edited.add(8)
    frames = d.stretch(8, forward=True)
    found = masks_of(live.track("t", candidate.video_id, d, 8, frames))
    assert [m.frame_idx for m in found] == list(frames) == [12, 16, 20]
    back = masks_of(live.track("t", candidate.video_id, d, 8, d.stretch(8, forward=False)))
    assert [m.frame_idx for m in back] == [4, 0]


def test_a_click_reads_the_masks_around_it_only_with_memory(live, candidate):
    """The same click on the same frame, with other masks on the frames before it."""
    one = draft(candidate)
    other = draft(candidate)
    other.anchor = None
    moved = np.zeros((candidate.height, candidate.width), bool)
    moved[60:90, 80:120] = True
    for i in (0, 4):
        other.masks[i] = drawn(i, rle.encode(moved), moved.shape)
    answers = {
        (name, memory): live.click(f"{name}{memory}", candidate.video_id, d, click(candidate, 8), memory=memory)
        for name, d in (("one", one), ("other", other))
        for memory in (True, False)
    }
    assert answers["one", True] != answers["other", True]
    assert answers["one", False] == answers["other", False]


def test_a_new_server_answers_as_the_one_that_was_there(s, candidate):
    """A tracker is only a cache: without it, the draft alone gives the same masks."""
    d = draft(candidate)
    first = LiveModel(s)
    d.masks[8] = first.click("t", candidate.video_id, d, click(candidate, 8), memory=True)
    d.edited.add(8)
    settled = replace_known(d)
    one = masks_of(propagation(LiveModel(s), "t", candidate.video_id, settled, 8, "both"))
    two = masks_of(propagation(LiveModel(s), "t", candidate.video_id, settled, 8, "both"))
    assert one == two
    warm = LiveModel(s)
    masks_of(propagation(warm, "t", candidate.video_id, draft(candidate), 0, "forward"))  # has other things in mind
    assert masks_of(propagation(warm, "t", candidate.video_id, settled, 8, "both")) == one


def replace_known(d):
    """The draft as its versions give it: masks, not the clicks that led to them."""
    return replace(d, prompts={})


def test_a_propagation_from_a_drawn_mask_follows_it_and_locks_stop_it(live, candidate):
    d = draft(candidate)
    d.locked.add(12)
    found = masks_of(propagation(live, "t", candidate.video_id, d, 4, "both"))
    assert [m.frame_idx for m in found] == [8, 0]
    with pytest.raises(NoSuchVideo):
        next(live.warm("nothing", 0))


def test_a_video_stays_open_while_somebody_propagates_in_it(live, candidate, s, monkeypatch):
    monkeypatch.setattr("engine.refinement.OPEN_VIDEOS", 1)
    video = s.video(candidate.video_id)
    monkeypatch.setattr(s, "video", lambda video_id: video)
    d = draft(candidate)
    expected = masks_of(live.track("t", candidate.video_id, d, 0, d.stretch(0, forward=True)))
    list(live.warm("other", 0))
    going = live.track("t", candidate.video_id, d, 0, d.stretch(0, forward=True))
    found = [next(made for made in going if made is not None)]
    for other in ("a", "b"):
        list(live.warm(other, 0))
    assert found + masks_of(going) == expected
    assert list(live._videos) == [candidate.video_id, "b"]
    list(live.warm("c", 0))
    assert list(live._videos) == ["c"], "once nobody propagates in it, it is closed like any other"


def test_others_have_their_turn_in_the_middle_of_a_frame(live, candidate):
    """Encoding ahead and tracking stop between the blocks of the encoder, and the masks are the same whoever comes."""
    d = draft(candidate)
    ahead = live.warm(candidate.video_id, 12)
    blocks = len(live._loaded.model.vision_encoder.backbone.blocks)
    assert len([next(ahead) for _ in range(blocks)]) == blocks
    alone = live.click("u", candidate.video_id, d, click(candidate, 12), memory=True)  # encodes the frame by itself
    assert list(ahead) == [None] and list(live.warm(candidate.video_id, 12)) == [], "a frame is encoded once"
    assert live.click("v", candidate.video_id, d, click(candidate, 12), memory=True) == alone

    fresh, expected = LiveModel(live._s), masks_of(live.track("t", candidate.video_id, d, 0, (4, 8, 12)))
    found, steps = [], 0
    for made in fresh.track("t", candidate.video_id, d, 0, (4, 8, 12)):
        fresh.click(f"other-{steps}", candidate.video_id, d, click(candidate, 16), memory=False)
        found, steps = found + [made] * (made is not None), steps + 1
    assert found == expected and steps > 3 * blocks
    fresh.close()


def test_the_queue_of_the_pipeline_answers_clicks(queue, candidate):
    """Over HTTP, as `masklets serve` runs it: a ticket is refined with the model that the settings name."""
    accounts = queue.open_queue()[1]
    accounts.add("ann", [Role.ANNOTATOR])
    ticket = NewTicket(
        ticket_id="t", kind=Kind.TRACK, video_id=candidate.video_id, masklet=candidate, phase="3",
        payload=phases.payload("3"),
    )  # fmt: skip
    queue.queue.open_batch("another", [ticket])
    headers = {"Authorization": f"Bearer {accounts.issue_token('ann')}"}
    with httpx.Client(base_url=queue.settings.queue_url, headers=headers, timeout=60) as client:
        held = client.post("/api/tickets/claim", json={"claim_id": "c"}).json()
        assert client.get("/api/me").json()["live"] is True
        said = {
            "operation_id": "o1", "kind": "prompt", "frame_idx": 4, "created_at": "2026-01-01T00:00:00Z",
            "payload": json.dumps({"points_xy": [[40, 40]], "labels": [1]}),
        }  # fmt: skip
        body = {"token": held["lease_token"], "operation": said}
        begun = time.monotonic()
        answer = client.post("/api/tickets/t/refine", json=body)
        lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["event"] for line in lines] == ["kept", "frame", "done"], lines
    assert lines[1]["frame"]["frame_idx"] == 4 and time.monotonic() > begun
    assert lines[2]["checkpoint"] == queue.settings.model.checkpoint
