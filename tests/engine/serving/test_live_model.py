"""The model of live refinement over a real checkpoint and a real store."""

from __future__ import annotations

import gc
import json
import shutil
import threading
import weakref
from dataclasses import replace

import httpx
import numpy as np
import pytest
import torch

from annotation_queue.draft import draft_of, drawn
from annotation_queue.errors import NoSuchVideo
from annotation_queue.records import Kind, NewTicket, Role
from annotation_queue.refinement.segmenter import propagation
from annotation_queue.refinement.turns import Turns
from engine import batches
from engine.ingest import ingest
from engine.registry import Checkpoint
from engine.services import Services, connect
from engine.serving.live_model import LiveModel
from engine.serving.media import StoredMedia
from engine.stages import phases, propose
from storage import rle
from storage.dataset import parts
from storage.records import Prompt


@pytest.fixture
def candidate(s, searched_once):
    """A candidate of a store that was ingested and searched for real."""
    ingest.admit(s)
    (batch_id,) = batches.reached(s.blobs)
    propose.propose_batch(s, batch_id)
    return max(parts.rows(s.blobs, "candidates", batch_id), key=lambda row: sum(row.area_px))


def masks_of(steps):
    """The result of work that is done in steps."""
    return [made for made in steps if made is not None]


def draft(row):
    return draft_of((row.height, row.width), row.frame_idx, row, [], {})


def click(row, frame_idx, xy=(40.0, 40.0)):
    return Prompt(frame_idx=frame_idx, points_xy=(xy,), labels=(1,))


@pytest.fixture
def media(s):
    """The store's videos, with more open than a test needs."""
    stored = StoredMedia(s)
    yield stored
    stored.close()


@pytest.fixture
def live(s, media):
    return LiveModel(s, media)


def clicked(model, ticket_id, row, d, prompt, *, memory=True):
    """The mask that a click gives."""
    (made,) = masks_of(model.now().click(ticket_id, row.video_id, d, prompt, memory=memory))
    return made


def propagated(model, row, d, source, direction="both"):
    return masks_of(going_on(model.now(), "t", row.video_id, d, source, direction))


def going_on(model, ticket_id, video_id, d, source, direction="both"):
    """A propagation from its begin."""
    return propagation(model, ticket_id, video_id, d, source, d.stretches(source, {"direction": direction}), {})


def with_mask(d, made, prompt):
    """The draft after a click was answered."""
    return replace(
        d,
        masks=d.masks | {made.frame_idx: made},
        prompts=d.prompts | {made.frame_idx: prompt},
        edited=d.edited | {made.frame_idx},
    )


def test_clicks_and_tracks_are_masks_of_the_video_s_size(live, candidate):
    d = draft(candidate)
    made = clicked(live, "t", candidate, d, click(candidate, 8))
    assert made.frame_idx == 8 and made.area_px == rle.area(made.rle, candidate.height, candidate.width)
    d.masks[8] = made
    d.edited.add(8)
    frames = d.stretch(8, forward=True)
    found = masks_of(live.now().track("t", candidate.video_id, d, 8, frames))
    assert [m.frame_idx for m in found] == list(frames) == [12, 16, 20]
    back = masks_of(live.now().track("t", candidate.video_id, d, 8, d.stretch(8, forward=False)))
    assert [m.frame_idx for m in back] == [4, 0]


def test_a_model_in_bfloat16_answers_as_one_in_float32_nearly_and_is_trained_in_that(s, settings, live, candidate):
    half_settings = settings.model.model_copy(update={"dtype": "bfloat16"})
    with connect(settings.model_copy(update={"model": half_settings})) as other:
        half = LiveModel(other, StoredMedia(other))
        loaded = [other.model(other.checkpoint(), to_train=to_train) for to_train in (False, True)]
        assert [model.dtype for model in loaded] == [torch.bfloat16, torch.float32]
        d, hw = draft(candidate), (candidate.height, candidate.width)
        found = [clicked(model, "t", candidate, d, click(candidate, 8)) for model in (live, half)]
        full, rounded = (rle.decode(made.rle, *hw) for made in found)
        assert (full & rounded).sum() > 0.9 * (full | rounded).sum() > 0
        d.masks[8] = found[1]
        d.edited.add(8)
        assert len(masks_of(half.now().track("t", candidate.video_id, d, 8, d.stretch(8, forward=True)))) == 3


def test_the_memory_of_tracked_frames_is_bounded_over_all_tickets(live, candidate, monkeypatch):
    monkeypatch.setattr("engine.serving.live_model.KEPT_IN_ALL", 5)
    d = draft(candidate)
    d.masks[8] = clicked(live, "first", candidate, d, click(candidate, 8))
    d.edited.add(8)
    for ticket_id, left in (("first", ["first"]), ("second", ["second"]), ("third", ["third"])):
        masks_of(live.now().track(ticket_id, candidate.video_id, d, 8, d.stretch(8, forward=True)))
        assert list(live.now()._tickets) == left, "two tickets have six tracked frames"
    again = clicked(live, "first", candidate, d, click(candidate, 12))
    assert again.frame_idx == 12


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
        (name, memory): clicked(live, f"{name}{memory}", candidate, d, click(candidate, 8), memory=memory)
        for name, d in (("one", one), ("other", other))
        for memory in (True, False)
    }
    assert answers["one", True] != answers["other", True]
    assert answers["one", False] == answers["other", False]


@pytest.mark.parametrize("memory", [True, False])
def test_a_new_server_answers_as_the_one_that_was_there(s, live, candidate, memory):
    """A tracker is only a cache: a server that answered all earlier operations and a new one give the same answer."""
    d = draft(candidate)
    d.masks[8] = drawn(8, rle.empty(d.height, d.width), (d.height, d.width))  # the draft has clicks only

    def asked(do, *about, **more):
        """The answer of the first server; a new server must give the same."""
        fresh = LiveModel(s, StoredMedia(s))
        made = do(live, *about, **more)
        assert do(fresh, *about, **more) == made
        return made

    for points in ((40.0, 40.0),), ((40.0, 40.0), (60.0, 50.0)):
        prompt = Prompt(frame_idx=8, points_xy=points, labels=(1,) * len(points))
        d = with_mask(d, asked(clicked, "t", candidate, d, prompt, memory=memory), prompt)
    made = asked(propagated, candidate, d, 8)
    d = replace(d, masks=d.masks | {m.frame_idx: m for m in made})
    for frame in (4, 16):  # with memory, the first server remembers the frames that it tracked a little better
        asked(clicked, "t", candidate, d, click(candidate, frame), memory=False)
    undone = replace(d, masks={}, prompts={}, edited=set())
    asked(clicked, "t", candidate, undone, click(candidate, 8), memory=memory)


def test_settled_frames_condition_by_their_masks_alone(live, candidate, monkeypatch):
    """Phase 2 propagates from masks only, also from a frame whose clicks the same tracker answered."""
    from model.tracker import Tracker

    prompts, asked = [], Tracker.prompt

    def recorded(self, object_id, prompt, **more):
        prompts.append(prompt)
        return asked(self, object_id, prompt, **more)

    monkeypatch.setattr(Tracker, "prompt", recorded)
    d = draft(candidate)
    prompt = click(candidate, 8)
    d = with_mask(d, clicked(live, "t", candidate, d, prompt, memory=False), prompt)
    assert [p.points_xy for p in prompts] == [prompt.points_xy]
    propagated(live, candidate, d, 8)
    assert {p.mask_rle for p in prompts[1:]} == {d.masks[i].rle for i in (d.anchor, 8) if i is not None}


def test_a_propagation_from_a_drawn_mask_follows_it_and_locks_stop_it(live, candidate):
    d = draft(candidate)
    d.locked.add(12)
    assert [m.frame_idx for m in propagated(live, candidate, d, 4)] == [8, 0]
    with pytest.raises(NoSuchVideo):
        next(live.warm("nothing", [0]))


def test_a_propagation_goes_on_though_its_video_was_closed(candidate, s, monkeypatch):
    monkeypatch.setattr("engine.serving.media.OPEN_VIDEOS", 1)
    media = StoredMedia(s)
    live = LiveModel(s, media)
    video = s.video(candidate.video_id)
    monkeypatch.setattr(s, "video", lambda video_id: video)
    d = draft(candidate)
    expected = propagated(LiveModel(s, StoredMedia(s)), candidate, d, 0)
    going = going_on(live.now(), "t", candidate.video_id, d, 0)
    found = [next(made for made in going if made is not None)]
    for other in ("a", "b"):
        list(live.warm(other, [0]))
    assert media.is_open("b") and not media.is_open(candidate.video_id)
    assert found + masks_of(going) == expected


def test_a_propagation_ends_with_the_checkpoint_that_it_began_with(live, candidate, s, checkpoint, monkeypatch):
    """Another checkpoint is promoted meanwhile; later requests are answered by that one."""
    d = draft(candidate)
    source = 8  # it goes both ways: the way back begins after the promotion
    expected = propagated(LiveModel(s, StoredMedia(s)), candidate, d, source)
    promoted = Checkpoint(name="another", round=1, key=None)
    other = replace(s.model(s.checkpoint()))
    going_with = live.now()
    going = going_on(going_with, "u", candidate.video_id, d, source)
    found = [next(made for made in going if made is not None)]
    ahead = live.warm(candidate.video_id, (16, 20))
    next(ahead)
    monkeypatch.setattr(s, "checkpoint", lambda: promoted)
    monkeypatch.setitem(s._models, ("another", "float32"), other)
    live.load()
    list(ahead)
    assert (candidate.video_id, 20) not in going_with.features._kept, "its weights answer nothing new"
    assert found + masks_of(going) == expected
    assert (going_with.checkpoint, live.now().checkpoint, live.now().round) == (str(checkpoint), "another", 1)
    now = live.now()
    live.load()
    assert live.now() is now and now.features.loaded is other


@pytest.fixture
def promote(s, checkpoint, tmp_path, monkeypatch):
    """Promotes a copy of the checkpoint under a name of its own, as a round would."""

    def promoting(name):
        folder = shutil.copytree(checkpoint, tmp_path / name)
        promoted = Checkpoint(name=str(folder), round=1, key=None)
        monkeypatch.setattr(s, "checkpoint", lambda: promoted)

    return promoting


@pytest.fixture
def turns():
    running = Turns()
    yield running
    running.close()


@pytest.fixture
def no_collection():
    """Garbage is collected only where the code asks for it."""
    gc.disable()
    yield
    gc.enable()


def in_memory(pinned):
    """Functions that give the parts of a pinned checkpoint as long as they are in memory, else None."""
    parts_of_it = (pinned, pinned.features, pinned.features.loaded, pinned.features.loaded.model)
    return [weakref.ref(part) for part in parts_of_it]


def done(turns, steps):
    """Takes all steps in the thread of the model. Returns the error that ended them."""
    ended, left, errors = threading.Event(), threading.Event(), []

    def end(error):
        errors.append(repr(error))
        ended.set()

    turns.stream(steps, lambda made: None, end)
    turns.stream(iter(()), lambda made: None, lambda error: left.set())  # it ends after the thread has left the first
    assert ended.wait(60) and left.wait(60)
    return errors[0]


def test_each_promotion_frees_the_model_before_it(live, candidate, promote, turns, no_collection):
    """Work that began before the promotion keeps its model until it ends, with an error or without."""
    d = draft(candidate)
    for name in ("first", "second", "third"):
        old = in_memory(live.now())
        assert done(turns, live.now().click("t", candidate.video_id, d, click(candidate, 8), memory=True)) == "None"
        outside = live.now().click("t", candidate.video_id, d, click(candidate, 8, (1e6, 1e6)), memory=True)
        going = going_on(live.now(), "u", candidate.video_id, d, 0)
        next(going)
        promote(name)
        live.load()
        assert all(part() for part in old), "a propagation still uses it"
        assert done(turns, going) == "None" and "outside" in done(turns, outside)
        del going, outside
        assert not any(part() for part in old)
    assert live.now().checkpoint.endswith("third")


def test_a_promotion_frees_the_old_model_even_where_it_needs_the_garbage_collector(live, promote, no_collection):
    """An earlier `load` froze these objects; frozen garbage is never collected."""
    live.load()
    old = in_memory(live.now())
    for holder in (live.now().features, live.now().features.loaded.model):
        holder.itself = [holder]
    del holder
    promote("next")
    live.load()
    assert not any(part() for part in old)


def test_no_more_is_encoded_ahead_than_is_kept_for_a_ticket(s, candidate, monkeypatch):
    """The nearest frames are still there when the click comes, and when the next ticket was encoded too."""
    monkeypatch.setattr("engine.serving.live_model.NEAREST", 2)
    small = Services(
        s.settings.model_copy(update={"model": s.settings.model.model_copy(update={"embeddings_gib": 1e-9})})
    )
    live = LiveModel(small, StoredMedia(small))
    assert live.now().features.size == 4
    nearest = [8, 12, 4, 16, 0, 20]
    list(live.warm(candidate.video_id, nearest))
    list(live.warm(candidate.video_id, [20, 16]))
    assert not list(live.warm(candidate.video_id, nearest)), "they are there"
    assert {frame for _, frame in live.now().features._kept} == {8, 12, 16, 20}


def test_others_have_their_turn_in_the_middle_of_a_frame(live, candidate):
    """Encoding ahead, clicks and tracking stop between the blocks of the encoder; the masks are the same then."""
    d = draft(candidate)
    ahead = live.warm(candidate.video_id, [12])
    blocks = len(live.now().features.loaded.model.vision_encoder.backbone.blocks)
    assert len([next(ahead) for _ in range(blocks)]) == blocks
    alone = clicked(live, "u", candidate, d, click(candidate, 12))  # encodes the frame by itself
    assert list(ahead) == [None] and list(live.warm(candidate.video_id, [12])) == [], "a frame is encoded once"
    assert clicked(live, "v", candidate, d, click(candidate, 12)) == alone

    expected = masks_of(live.now().track("t", candidate.video_id, d, 0, (4, 8, 12)))
    fresh = LiveModel(live._s, live._media)
    found, steps = [], 0
    for made in fresh.now().track("t", candidate.video_id, d, 0, (4, 8, 12)):
        clicked(fresh, f"other-{steps}", candidate, d, click(candidate, 16), memory=False)
        found, steps = found + [made] * (made is not None), steps + 1
    assert found == expected and steps > 3 * blocks


def test_nothing_cold_is_done_in_one_step(s, candidate, monkeypatch):
    """A click and a propagation on a server that has just begun encode a block a step, and prompt a mask a step."""
    from model import network

    def whole(*about):
        raise AssertionError("a frame was encoded in one go")

    monkeypatch.setattr(network, "encode_images", whole)
    d = draft(candidate)
    d.locked |= {0, 4, 20}
    for ask in (
        lambda by: by.click("t", candidate.video_id, d, click(candidate, 8), memory=True),
        lambda by: by.track("t", candidate.video_id, d, 8, (12, 16)),
    ):
        live = LiveModel(s, StoredMedia(s))
        steps = list(ask(live.now()))
        blocks = len(live.now().features.loaded.model.vision_encoder.backbone.blocks)
        assert len(masks_of(steps)) >= 1 and len(steps) > 4 * blocks


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
        answer = client.post("/api/tickets/t/refine", json=body)
        lines = [said for said in map(json.loads, answer.text.splitlines()) if said["event"] != "alive"]
    assert [line["event"] for line in lines] == ["kept", "frame", "done"], lines
    assert lines[1]["frame"]["frame_idx"] == 4
    assert lines[2]["checkpoint"] == queue.settings.model.checkpoint
