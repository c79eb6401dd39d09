"""How long the model's answers take, counted by kind."""

from annotation_queue.refinement import timings
from annotation_queue.refinement.timings import Timings


def test_the_first_frame_of_a_propagation_is_counted_apart_from_the_others():
    times, got = Timings(), []
    each = times.timed(timings.PROPAGATION, got.append)
    for frame in range(3):
        each(frame)
    assert got == [0, 1, 2]
    assert {row.what: row.answers for row in times.summary()} == {"propagation": 1, "frame": 2}


def test_the_mean_is_exact_and_the_95_percent_are_the_end_of_a_bucket():
    times = Timings()
    for _ in range(19):
        times.note(timings.CLICK, 0.04)
    times.note(timings.CLICK, 4.0)
    (row,) = times.summary()
    assert (row.answers, row.mean_s, row.p95_s) == (20, (19 * 0.04 + 4.0) / 20, 0.05)
    times.note(timings.CLICK, 4.0)
    assert times.summary()[0].p95_s == 5.0


def test_nothing_is_said_before_the_first_answer():
    assert Timings().summary() == ()
