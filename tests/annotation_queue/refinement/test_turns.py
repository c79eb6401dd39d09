"""The order of steps at the model, and how jobs end."""

from __future__ import annotations

import threading
import time

import pytest

from annotation_queue.refinement.turns import Cancelled, Turns


class Record:
    """The results and the end of a job."""

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
                gate.wait(60)
            yield name

    one, two, click = Record(), Record(), Record()
    turns.stream(slow("a", 4), one.frames.append, one.done)
    while not order:  # the first step of a has begun
        time.sleep(0.001)
    turns.stream(slow("b", 4), two.frames.append, two.done)
    turns.warm("ann", slow("warm", 1))
    turns.stream(slow("click", 1), click.frames.append, click.done, urgent=True)
    gate.set()
    assert one.ended.wait(60) and two.ended.wait(5) and click.ended.wait(5)
    turns.close()
    assert order[:2] == ["a0", "click0"]
    assert order[2:] == ["b0", "a1", "b1", "a2", "b2", "a3", "b3", "warm0"] or order[2:9] == [
        "b0", "a1", "b1", "a2", "b2", "a3", "b3",
    ]  # fmt: skip
    assert len(one.frames) == len(two.frames) == 4


def test_a_cancelled_job_takes_no_further_step_and_an_error_ends_one_job_only():
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
    assert started.wait(60)
    turns.stream(failing(), broken.frames.append, broken.done)
    assert broken.ended.wait(60) and isinstance(broken.error, RuntimeError)
    job.cancel()
    assert record.ended.wait(60) and isinstance(record.error, Cancelled)
    count = len(record.frames)
    turns.stream(once(), after.frames.append, after.done)
    assert after.ended.wait(60) and len(record.frames) == count
    turns.close()
    with pytest.raises(Cancelled):
        turns.stream(once(), after.frames.append, after.done)


def test_a_cancelled_job_is_closed_in_the_thread_of_the_steps():
    turns, ends = Turns(), []

    def tracking():
        try:
            while True:
                yield 1
                time.sleep(0.001)
        finally:
            ends.append(threading.current_thread().name)

    for cancel in (lambda job: job.cancel(), lambda job: turns.close()):
        record, frames = Record(), tracking()  # kept here, so that only `close` can end the generator
        job = turns.stream(frames, record.frames.append, record.done)
        while not record.frames:
            time.sleep(0.001)
        cancel(job)
        assert record.ended.wait(60) and isinstance(record.error, Cancelled)
    assert ends == ["model", "model"]


def test_closing_cancels_the_waiting_jobs():
    turns, running, waiting = Turns(), Record(), Record()
    held = threading.Event()

    def hold():
        held.wait(60)
        yield 1

    turns.stream(hold(), running.frames.append, running.done)
    turns.stream(once(), waiting.frames.append, waiting.done)
    closing = threading.Thread(target=turns.close)
    closing.start()
    while not turns._closed:
        time.sleep(0.001)
    held.set()
    closing.join()
    assert waiting.ended.wait(60) and isinstance(waiting.error, Cancelled)
