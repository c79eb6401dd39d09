"""The work of people on a batch: what is counted, and the modelled time of it."""

import json

import pytest

from engine.stages import work
from engine.stages.work import Work
from storage.records import Operation


def act(ticket, seq, kind, frame=None, video="v", **payload):
    return Operation(
        operation_id=f"{ticket}-{seq}",
        ticket_id=ticket,
        batch_id="b",
        video_id=video,
        masklet_id="m",
        person="ann",
        kind=kind,
        frame_idx=frame,
        payload=json.dumps(payload),
        created_at="2026-01-01T00:00:00Z",
        seq=seq,
    )


def test_a_verdict_watches_the_video_a_propagation_what_it_changes_and_clicks_and_strokes_count():
    acts = [
        act("verify", 0, "verdict"),
        act(
            "track", 3, "propagate", 4, direction="both"
        ),  # the order of the list does not matter, that of the ticket does
        act("track", 0, "prompt", 4, points_xy=[[1, 2]], labels=[1]),
        act("track", 1, "prompt", 4, points_xy=[[1, 2], [3, 4]], labels=[1, 0]),
        act("track", 2, "prompt", 8, points_xy=[[1, 2]], labels=[1]),
        act("track", 4, "stroke", 12),
        act("track", 5, "stroke", 12),
        act("track", 6, "submit"),
        act("other", 0, "verdict", video="unknown"),
    ]
    done = work.of_operations(acts, {"v": 26})
    assert done == Work(watched_frames=26 + 25, clicks=3, clicked_frames=2, painted_frames=1)
    assert done.modelled_s == pytest.approx(51 * 0.1 + 2 * 1.0 + 3 * 1.5 + (37.8 - 4.8 * 1.5))
    assert done + Work(clicks=1) == Work(watched_frames=51, clicks=4, clicked_frames=2, painted_frames=1)
    assert work.of_operations([], {}) == Work() and Work().modelled_s == 0


@pytest.mark.parametrize(
    ("payload", "watched"),
    [
        ({"direction": "forward"}, 15),  # to the last of 20 frames
        ({"direction": "backward"}, 4),
        ({"direction": "both"}, 19),
        ({"direction": "forward", "last": 12}, 8),  # stopped there
        ({"direction": "backward", "last": 0}, 4),
        ({"direction": "both", "first": 0, "last": 12}, 12),
        ({"direction": ["odd"], "last": "odd"}, 19),
    ],
)
def test_the_frames_that_a_propagation_changes_are_watched(payload, watched):
    assert work.of_operations([act("track", 0, "propagate", 4, **payload)], {"v": 20}).watched_frames == watched


@pytest.mark.parametrize(
    ("payload", "stopped", "watched"),
    [
        ({"direction": "forward"}, 12, 8),
        ({"direction": "backward"}, 0, 4),
        ({"direction": "backward"}, 4, 0),  # before the first mask came
        ({"direction": "both"}, 12, 8),  # it tracks forward first
        ({"direction": "both"}, 0, 15 + 4),
        ({"direction": "forward", "last": 12}, 16, 8),
    ],
)
def test_the_frames_after_a_stop_are_not_watched(payload, stopped, watched):
    acts = [act("track", 0, "propagate", 4, **payload)]
    acts.append(act("track", 1, "stop", operation_id=acts[0].operation_id, last=stopped))
    acts.append(act("track", 2, "stop", operation_id="of another one", last=0))
    assert work.of_operations(acts, {"v": 20}).watched_frames == watched


def test_marking_an_absent_stretch_costs_the_time_to_find_it():
    done = work.of_operations([act("track", 0, "absent", first=4, last=12)], {"v": 20})
    assert done == Work(absent_stretches=1) and done.modelled_s == 1.0
