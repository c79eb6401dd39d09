"""The rules, without a database."""

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_queue.draft import Version, draft_of
from annotation_queue.effort import Effort, effort_of
from annotation_queue.errors import NotAllowed, QueueError
from annotation_queue.records import Kind, NewOperation, NewTicket, Person, Reason, Role, State, Submission, Ticket
from annotation_queue.rules import (
    NEXT,
    PROMPTS,
    check_id,
    check_masklet,
    check_new_ticket,
    check_operation,
    check_submission,
    kinds_of,
    next_ticket_id,
    why_not,
)
from storage import rle
from storage.records import Operation, Verdict
from tests.annotation_queue.synthetic_queue import candidate

TICKET = Ticket(
    ticket_id="t",
    batch_id="b",
    kind=Kind.VERIFY,
    video_id="video-0",
    masklet_id="m",
    phase="auto",
    priority=0,
    payload="{}",
    state=State.LEASED,
    made_by=None,
    needs_lead=False,
    attempt=1,
    lease_token=1,
    leased_by="vera",
    expires_at=90.0,
)


def outcome(**fields):
    return Submission(operation_id="o", created_at="2026-01-01T00:00:00Z", **fields)


def operation(kind, payload="{}"):
    return NewOperation(operation_id="o", kind=kind, created_at="2026-01-01T00:00:00Z", payload=payload)


def person(*roles):
    return Person(name="vera", roles=frozenset(roles))


def test_every_exception_says_what_is_wrong_in_its_docstring():
    for kind in QueueError.__subclasses__():
        assert str(kind()).endswith("."), kind
        assert str(kind("this one")) == "this one"


def test_every_way_to_finish_a_ticket_is_in_the_table_or_refused():
    for kind, verdict in itertools.product(Kind, [None, *Verdict]):
        masklet = candidate("other") if verdict is None else None
        finish = outcome(verdict=verdict, reasons=(Reason.OTHER,), masklet=masklet)
        if (kind, verdict) in NEXT:
            check_submission(replace(TICKET, kind=kind), finish)
        else:
            with pytest.raises(ValueError, match="cannot be finished"):
                check_submission(replace(TICKET, kind=kind), finish)


def test_refined_work_is_always_verified_again():
    assert NEXT[NEXT[(Kind.VERIFY, Verdict.REFINE)], None] is Kind.VERIFY


def test_the_maker_of_a_masklet_never_verifies_it():
    assert "somebody else" in why_not(person(Role.LEAD), replace(TICKET, made_by="vera"))
    assert why_not(person(Role.LEAD), replace(TICKET, made_by="victor")) is None
    assert why_not(person(Role.ANNOTATOR), replace(TICKET, kind=Kind.TRACK, made_by="vera")) is None


def test_only_a_lead_holds_what_a_verifier_was_unsure_of():
    unsure = replace(TICKET, needs_lead=True)
    assert "lead" in why_not(person(Role.VERIFIER), unsure)
    assert why_not(person(Role.LEAD), unsure) is None
    with pytest.raises(ValueError, match="a lead decides"):
        check_submission(unsure, outcome(verdict=Verdict.UNSURE))


def test_roles_add_up_and_programs_hold_no_tickets():
    assert kinds_of(frozenset({Role.ANNOTATOR, Role.VERIFIER})) == set(Kind)
    assert kinds_of(frozenset({Role.PIPELINE, Role.ADMIN})) == set()
    assert why_not(person(Role.PIPELINE), TICKET) == "vera has no role for verify tickets"


def test_a_rejection_needs_a_reason():
    with pytest.raises(ValueError, match="reason"):
        check_submission(TICKET, outcome(verdict=Verdict.REJECT))
    check_submission(TICKET, outcome(verdict=Verdict.REJECT, reasons=(Reason.DRIFT,)))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_the_seconds_of_a_ticket_are_a_time_that_can_be_summed(seconds):
    check_submission(TICKET, outcome(verdict=Verdict.ACCEPT, seconds=0.0))
    with pytest.raises(ValueError, match="seconds"):
        check_submission(TICKET, outcome(verdict=Verdict.ACCEPT, seconds=seconds))


@pytest.mark.parametrize("payload", ["{}", '{"operation_id": []}', '{"operation_id": 7}', '{"operation_id": null}'])
def test_an_undo_and_a_redo_say_of_what(payload):
    for kind in ("undo", "redo"):
        check_operation(TICKET, operation(kind, '{"operation_id": "o1"}'))
        with pytest.raises(ValueError, match="which operation_id"):
            check_operation(TICKET, operation(kind, payload))


def test_a_ticket_is_finished_with_a_verdict_or_a_masklet_and_never_with_both_or_neither():
    track = replace(TICKET, kind=Kind.TRACK)
    with pytest.raises(ValueError, match="one of the two"):
        check_submission(track, outcome())
    with pytest.raises(ValueError, match="one of the two"):
        check_submission(track, outcome(verdict=Verdict.REJECT, reasons=(Reason.OTHER,), masklet=candidate("x")))


def test_a_corrected_masklet_is_a_new_one_of_the_same_video():
    track = replace(TICKET, kind=Kind.TRACK)
    with pytest.raises(ValueError, match="its own id"):
        check_submission(track, outcome(masklet=candidate("m")))
    with pytest.raises(ValueError, match="about video video-0"):
        check_submission(track, outcome(masklet=candidate("x", video_id="video-1")))


@pytest.mark.parametrize(
    "change",
    [
        {"frame_idx": ()},
        {"frame_idx": tuple(range(12))},
        {"frame_idx": tuple(reversed(range(0, 48, 4)))},
        {"area_px": (1,)},
        {"height": 10},
        {"width": 0},
        {"rle": (b"\xff\x00",) * 12},
        {"masklet_id": "../m"},
        {"score": (float("nan"),) * 12},
        {"object_score": (float("-inf"),) * 12},
        {"stability": (1.0,) * 11 + (float("inf"),)},
    ],
)
def test_a_masklet_whose_parts_disagree_is_refused(change):
    check_masklet(candidate("m"))
    with pytest.raises(ValueError):
        check_masklet(replace(candidate("m"), **change))


@pytest.mark.parametrize("value", ["", "a/b", "..", "a..b", ".a", "a b", "é", "a\n", "x" * 129])
def test_an_id_is_never_a_path(value):
    with pytest.raises(ValueError):
        check_id(value)


@pytest.mark.parametrize("value", ["a", "video-1", "manual__2026-01-01T00:00:00+00:00", "a.b", "ann@example.org"])
def test_ids_of_the_pipeline_are_ids(value):
    assert check_id(value) == value


def test_a_verify_ticket_without_a_masklet_is_refused_and_a_track_ticket_is_not():
    with pytest.raises(ValueError, match="no masklet"):
        check_new_ticket(NewTicket(ticket_id="t", kind=Kind.VERIFY, video_id="video-0"))
    check_new_ticket(NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1"))


def test_a_ticket_with_an_unknown_prompt_is_refused():
    with pytest.raises(ValueError, match="lasso"):
        check_new_ticket(NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="v", payload='{"prompts": ["lasso"]}'))


@pytest.mark.parametrize(
    ("kind", "payload", "needs"),
    [
        ("prompt", '{"points_xy": [[1, 2]], "labels": [1]}', "click"),
        ("prompt", '{"box_xyxy": [0, 0, 9, 9]}', "box"),
        ("prompt", '{"mask_rle": "04o0"}', "mask"),
        ("stroke", "{}", "stroke"),
        ("propagate", "{}", "propagate"),
    ],
)
def test_the_ticket_says_which_prompts_its_phase_allows(kind, payload, needs):
    only = replace(TICKET, kind=Kind.TRACK, phase="1", payload=f'{{"prompts": ["{needs}"]}}')
    others = [word for word in PROMPTS if word != needs]
    without = replace(only, payload='{"prompts": ["' + '", "'.join(others) + '"]}')
    check_operation(only, operation(kind, payload))
    check_operation(replace(only, payload="{}"), operation(kind, payload))
    with pytest.raises(NotAllowed, match=f"phase 1 does not allow {needs}"):
        check_operation(without, operation(kind, payload))
    check_operation(without, operation("undo", '{"operation_id": "o1"}'))


def test_a_verify_ticket_takes_no_prompts():
    with pytest.raises(NotAllowed, match="verdict"):
        check_operation(TICKET, operation("prompt", '{"points_xy": [[1, 2]]}'))


def test_the_ticket_that_follows_has_the_same_id_each_time_and_another_one_each_round():
    again = replace(TICKET, ticket_id=next_ticket_id(TICKET, Kind.TRACK), attempt=2)
    assert next_ticket_id(TICKET, Kind.TRACK) == next_ticket_id(TICKET, Kind.TRACK)
    assert next_ticket_id(again, Kind.TRACK) != next_ticket_id(TICKET, Kind.TRACK)


# --- what people put into a masklet ----------------------------------------------------------------------------------


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
        ([("prompt", 4, points(A)), ("prompt", 4, points(box_xyxy=BOX))], (2, 1, 1)),  # it takes the points' place
        ([("prompt", 4, points(A)), UNDO_1], (1, 1, 0)),  # spent, and nothing of it stands
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
def test_what_was_spent_and_what_stands_are_counted(acts, expected):
    done = effort_of(acted(*acts), FRAMES).get("ann", Effort(clicks=0, clicked_frames=0, edited_frames=0))
    assert (done.clicks, done.clicked_frames, done.edited_frames) == expected


def test_effort_is_of_those_who_made_it():
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
def test_the_frames_that_count_as_edited_are_those_of_the_draft(acts):
    done = acted(*acts)
    answered = {o.operation_id: Version(operation_id=o.operation_id, frames=(), checkpoint="c", round=0) for o in done}
    draft = draft_of((4, 4), FRAMES, None, done, answered)
    assert sum(effort.edited_frames for effort in effort_of(done, FRAMES).values()) == len(draft.edited)


@pytest.mark.parametrize("deep", ['{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "[" * 40 + "]" * 40 + "}"])
def test_a_payload_that_would_use_up_the_stack_is_refused(deep):
    with pytest.raises(ValueError, match="payload"):
        check_operation(replace(TICKET, kind=Kind.TRACK), operation("stroke", deep))
