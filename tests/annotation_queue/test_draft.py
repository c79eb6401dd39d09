"""What follows from operations and versions, and whose turn it is at the model."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from synthetic_queue import HEIGHT, WIDTH, SyntheticModel, blank, candidate, mask

from annotation_queue.draft import (
    UNCHANGED_FRAMES,
    Cancelled,
    Draft,
    Turns,
    Version,
    draft_of,
    drawn,
    frame_masks,
    prompt_of,
    propagation,
)
from annotation_queue.tickets.store import Operation
from storage import rle
from storage.records import STRIDE, Prompt

HW = (HEIGHT, WIDTH)
FRAMES = tuple(range(0, 48, STRIDE))
WRONG = blank(candidate("m"))
RIGHT = rle.encode(mask(8))


def act(number, kind, frame_idx=None, **payload):
    return Operation(
        operation_id=f"o{number}",
        ticket_id="t",
        batch_id="b",
        video_id="video-0",
        masklet_id="m",
        person="ann",
        kind=kind,
        frame_idx=frame_idx,
        payload=json.dumps(payload),
        created_at="2026-01-01T00:00:00Z",
        seq=number,
    )


def version(number, *frames):
    made = tuple(drawn(i, rle.encode(mask(i)), HW) for i in frames)
    return Version(operation_id=f"o{number}", frames=made, checkpoint="c", round=1)


def draft(*operations, versions=(), masklet=WRONG):
    return draft_of(HW, FRAMES, masklet, operations, {v.operation_id: v for v in versions})


def test_without_operations_a_draft_is_the_masklet():
    found = draft()
    assert found.masks == {m.frame_idx: m for m in frame_masks(WRONG)}
    assert (found.edited, found.locked, found.prompts, found.anchor) == (set(), set(), {}, 0)
    assert draft(masklet=None).masks == {}


def test_each_act_changes_what_it_says():
    click = act(1, "prompt", 8, points_xy=[[76, 230]], labels=[1])
    found = draft(
        click,
        act(2, "stroke", 12, mask_rle=rle.encode(mask(12)).decode()),
        act(3, "lock", 16),
        act(4, "absent", first=16, last=24),
        act(5, "lock", 28),
        act(6, "lock", 28, on=False),
        versions=[version(1, 8)],
    )
    assert found.masks[8].rle == RIGHT and found.prompts[8].points_xy == ((76.0, 230.0),)
    assert found.masks[12].rle == rle.encode(mask(12)) and found.masks[12].score == 1.0
    assert found.masks[16].area_px == 600, "a locked frame stays"
    assert found.masks[20].area_px == found.masks[24].area_px == 0 and found.masks[20].object_score < 0
    assert found.edited == {8, 12, 20, 24} and found.locked == {16}
    assert draft(click, act(2, "clear", 8), versions=[version(1, 8)]).prompts == {}


def test_undo_and_redo_take_back_and_bring_back():
    click, stroke = act(1, "prompt", 8, points_xy=[[1, 1]], labels=[1]), act(2, "absent", first=8, last=8)
    undo = act(3, "undo", operation_id="o2")
    assert draft(click, stroke, versions=[version(1, 8)]).masks[8].area_px == 0
    assert draft(click, stroke, undo, versions=[version(1, 8)]).masks[8].rle == RIGHT
    again = draft(click, stroke, undo, act(4, "redo", operation_id="o2"), versions=[version(1, 8)])
    assert again.masks[8].area_px == 0
    nothing = draft(click, stroke, undo, act(4, "undo", operation_id="o1"), versions=[version(1, 8)])
    assert nothing.masks == draft().masks and nothing.edited == set()


def test_a_prompt_that_nobody_answered_changes_no_mask():
    assert draft(act(1, "prompt", 8, points_xy=[[1, 1]], labels=[1])).masks == draft().masks


@pytest.mark.parametrize(
    "said",
    [
        act(1, "stroke", 8),
        act(1, "stroke", 8, mask_rle="not run lengths"),
        act(1, "stroke", 8, mask_rle=7),
        act(1, "absent", first="a", last=None),
        replace(act(1, "stroke", 8), payload="{}"),
        act(1, "undo", operation_id=[]),
        act(1, "redo", operation_id={}),
    ],
)
def test_a_malformed_act_changes_nothing(said):
    assert draft(said).masks == draft().masks


@pytest.mark.parametrize("prompt", ["", "[]", '"x"', '{"frame_idx": []}', '{"frame_idx": 3}', "[" * 10**5])
def test_a_masklet_with_a_strange_prompt_has_no_anchor(prompt):
    found = draft(masklet=replace(WRONG, prompt=prompt))
    assert found.anchor is None and found.masks == draft().masks


@pytest.mark.parametrize("field", ["score", "object_score", "stability"])
def test_a_mask_whose_scores_no_json_holds_is_none(field):
    with pytest.raises(ValueError, match="finite"):
        replace(drawn(8, RIGHT, HW), **{field: float("nan")})


@pytest.mark.parametrize(
    "said",
    [
        {"points_xy": [[1]]},
        {"points_xy": [[1, 2]], "labels": []},
        {"points_xy": [[1, float("nan")]], "labels": [1]},
        {"points_xy": [[1, 2]], "labels": [float("inf")]},
        {"box_xyxy": [1, 2]},
        {"box_xyxy": [1, 2, 3, float("inf")]},
        {"box_xyxy": [1, 2, 3, 10**400]},
    ],
)
def test_a_malformed_prompt_is_refused(said):
    with pytest.raises(ValueError, match="not a prompt"):
        prompt_of(0, said)


def test_a_stretch_ends_at_the_next_frame_that_a_person_settled():
    found = draft(act(1, "lock", 36), act(2, "stroke", 8, mask_rle=RIGHT.decode()))
    assert found.stretch(20, forward=True) == (24, 28, 32)
    assert found.stretch(20, forward=False) == (16, 12)
    assert found.stretch(44, forward=True) == ()
    assert sorted(found.known(20)) == [0, 8, 20, 36]


def test_a_propagation_ends_where_the_same_masks_come_out():
    def frames(*asked):
        return [made.frame_idx for made in propagation(SyntheticModel(), *asked) if made is not None]

    right = draft(masklet=candidate("m"))  # every frame is right but the one that was corrected
    assert frames("t", "video-0", right, 0, "both") == list(FRAMES[1 : 1 + UNCHANGED_FRAMES])
    assert frames("t", "video-0", draft(), 20, "both") == [24, 28, 32, 36, 40, 44, 16, 12, 8, 4, 0]
    assert frames("t", "video-0", draft(), 20, "backward") == [16, 12, 8, 4, 0]
    with pytest.raises(ValueError, match="no mask"):
        frames("t", "video-0", draft(masklet=None), 20, "both")


class Record:
    """What came out of a job."""

    def __init__(self):
        self.frames, self.ended, self.error = [], threading.Event(), None

    def done(self, error):
        self.error = error
        self.ended.set()


def once():
    yield 1


def test_clicks_go_first_and_propagations_take_turns():
    turns, order, gate = Turns(), [], threading.Event()

    def slow(name, count):
        for i in range(count):
            order.append(f"{name}{i}")
            if not gate.is_set():
                gate.wait(5)
            yield name

    one, two, click = Record(), Record(), Record()
    turns.stream(slow("a", 4), one.frames.append, one.done)
    while not order:  # the first step of a has begun
        time.sleep(0.001)
    turns.stream(slow("b", 4), two.frames.append, two.done)
    turns.warm("ann", slow("warm", 1))
    turns.stream(slow("click", 1), click.frames.append, click.done, urgent=True)
    gate.set()
    assert one.ended.wait(5) and two.ended.wait(5) and click.ended.wait(5)
    turns.close()
    assert order[:2] == ["a0", "click0"]
    assert order[2:] == ["b0", "a1", "b1", "a2", "b2", "a3", "b3", "warm0"] or order[2:9] == [
        "b0", "a1", "b1", "a2", "b2", "a3", "b3",
    ]  # fmt: skip
    assert len(one.frames) == len(two.frames) == 4


def test_a_cancelled_job_takes_no_further_step_and_an_error_harms_nobody_else():
    turns, record, broken, after = Turns(), Record(), Record(), Record()
    started = threading.Event()

    def endless():
        while True:
            started.set()
            yield 1
            time.sleep(0.001)

    def failing():
        raise RuntimeError("no memory")
        yield

    job = turns.stream(endless(), record.frames.append, record.done)
    assert started.wait(5)
    turns.stream(failing(), broken.frames.append, broken.done)
    assert broken.ended.wait(5) and isinstance(broken.error, RuntimeError)
    job.cancel()
    assert record.ended.wait(5) and isinstance(record.error, Cancelled)
    count = len(record.frames)
    turns.stream(once(), after.frames.append, after.done)
    assert after.ended.wait(5) and len(record.frames) == count
    turns.close()
    with pytest.raises(Cancelled):
        turns.stream(once(), after.frames.append, after.done)


def test_what_is_cancelled_lets_go_of_what_it_holds_in_the_model_s_thread():
    turns, ends = Turns(), []

    def tracking():
        try:
            while True:
                yield 1
                time.sleep(0.001)
        finally:
            ends.append(threading.current_thread().name)

    for cancel in (lambda job: job.cancel(), lambda job: turns.close()):
        record, frames = Record(), tracking()  # somebody else still knows of it, as an answer does
        job = turns.stream(frames, record.frames.append, record.done)
        while not record.frames:
            time.sleep(0.001)
        cancel(job)
        assert record.ended.wait(5) and isinstance(record.error, Cancelled)
    assert ends == ["model", "model"]


def test_closing_tells_those_who_wait():
    turns, running, waiting = Turns(), Record(), Record()
    held = threading.Event()

    def hold():
        held.wait(5)
        yield 1

    turns.stream(hold(), running.frames.append, running.done)
    turns.stream(once(), waiting.frames.append, waiting.done)
    threading.Timer(0.05, held.set).start()
    turns.close()
    assert waiting.ended.wait(5) and isinstance(waiting.error, Cancelled)


def test_the_draft_knows_its_shape():
    found = Draft(HEIGHT, WIDTH, FRAMES)
    assert found.known() == {} and found.stretch(0, forward=True) == FRAMES[1:]
    assert prompt_of(4, {"box_xyxy": [1, 2, 3, 4]}) == Prompt(frame_idx=4, box_xyxy=(1.0, 2.0, 3.0, 4.0))
    assert np.array_equal(rle.decode(drawn(0, RIGHT, HW).rle, *HW), mask(8))
