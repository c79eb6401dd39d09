"""What annotators' operations cost: clicks, clicked frames and edited frames."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_queue.draft import Version, draft_of
from annotation_queue.effort import Effort, effort_of
from storage import rle
from storage.records import Operation

FRAMES = (0, 4, 8, 12)


def acted(*acts):
    """Operations of Ann, or of who is named: (kind, frame_idx, payload) with ids o1, o2, ..."""
    return [
        Operation(
            operation_id=f"o{i}",
            ticket_id="t",
            batch_id="b",
            video_id="video-0",
            masklet_id="m",
            person=person[0] if person else "ann",
            kind=kind,
            frame_idx=frame_idx,
            payload=json.dumps(payload),
            created_at="",
            seq=i,
        )
        for i, (kind, frame_idx, payload, *person) in enumerate(acts, start=1)
    ]


def points(*xy, **more):
    return {"points_xy": [list(each) for each in xy], "labels": [1] * len(xy), **more}


A, B = (1, 1), (2, 2)


BOX = [1, 2, 3, 4]


UNDO_1, UNDO_2 = ("undo", None, {"operation_id": "o1"}), ("undo", None, {"operation_id": "o2"})


@pytest.mark.parametrize(
    ("acts", "expected"),  # clicks, frames clicked on, frames edited
    [
        ([("prompt", 4, points(A)), ("prompt", 4, points(A, B))], (2, 1, 1)),
        ([("prompt", 4, points(A)), ("prompt", 4, points(B))], (1 + 1, 1, 1)),  # moved
        ([("prompt", 4, {"points_xy": [], "labels": [], "box_xyxy": BOX})], (1, 1, 1)),  # a box is a click
        ([("prompt", 4, points(box_xyxy=BOX)), ("prompt", 4, points(A, box_xyxy=BOX))], (2, 1, 1)),
        ([("prompt", 4, points(A)), ("prompt", 4, points(box_xyxy=BOX))], (2, 1, 1)),  # it replaces the points
        ([("prompt", 4, points(A)), UNDO_1], (1, 1, 0)),  # counted, although its result was undone
        ([("prompt", 4, points(A)), UNDO_1, ("redo", None, {"operation_id": "o1"})], (1, 1, 1)),
        ([("prompt", 4, points(A)), ("prompt", 4, points(A, B)), UNDO_2, ("prompt", 4, points(A, A))], (3, 1, 1)),
        ([("prompt", 4, points(A)), ("clear", 4, {}), ("prompt", 4, points(B))], (2, 1, 1)),
        ([("prompt", 4, points(A, B)), ("clear", 4, {})], (2, 1, 0)),
        ([("prompt", 4, points(A, B)), ("stroke", 4, {"mask_rle": "x"}), ("prompt", 4, points(B))], (3, 1, 1)),
        ([("prompt", 4, points(A, B)), ("absent", None, {"first": 4, "last": 8}), ("prompt", 4, points(B))], (3, 1, 2)),
        ([("lock", 4, {}), ("absent", None, {"first": 0, "last": 8})], (0, 0, 2)),
        ([("lock", 4, {}), ("lock", 4, {"on": False}), ("absent", None, {"first": 0, "last": 8})], (0, 0, 3)),
        ([("absent", None, {"first": "a"}), ("prompt", 4, {"points_xy": 3}), ("propagate", 4, {})], (0, 0, 1)),
    ],
)
def test_clicks_clicked_frames_and_edited_frames_are_counted(acts, expected):
    done = effort_of(acted(*acts), FRAMES).get("ann", Effort(clicks=0, clicked_frames=0, edited_frames=0))
    assert (done.clicks, done.clicked_frames, done.edited_frames) == expected


def test_effort_counts_for_the_person_who_acted():
    done = effort_of(
        acted(
            ("prompt", 4, points(A)),
            ("prompt", 8, points(A)),
            ("prompt", 8, points(A, B), "lea"),
            ("stroke", 0, {}, "lea"),
        ),
        FRAMES,
    )
    assert done == {
        "ann": Effort(clicks=2, clicked_frames=2, edited_frames=1),
        "lea": Effort(clicks=1, clicked_frames=1, edited_frames=2),
    }


FEW = st.sampled_from(FRAMES)


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("prompt"), FEW, st.just(points(A))),
        st.tuples(st.just("stroke"), FEW, st.just({"mask_rle": rle.empty(4, 4).decode()})),
        st.tuples(st.sampled_from(["clear", "lock"]), FEW, st.just({})),
        st.tuples(st.just("lock"), FEW, st.just({"on": False})),
        st.tuples(st.just("absent"), st.none(), st.fixed_dictionaries({"first": FEW, "last": FEW})),
        st.tuples(
            st.sampled_from(["undo", "redo"]),
            st.none(),
            st.fixed_dictionaries({"operation_id": st.integers(1, 9).map("o{}".format)}),
        ),
    ),
    max_size=12,
)


@given(acts=ACTS)
def test_the_edited_frames_are_those_of_the_draft(acts):
    done = acted(*acts)
    answered = {o.operation_id: Version(operation_id=o.operation_id, frames=(), checkpoint="c", round=0) for o in done}
    draft = draft_of((4, 4), FRAMES, None, done, answered)
    assert sum(effort.edited_frames for effort in effort_of(done, FRAMES).values()) == len(draft.edited)
