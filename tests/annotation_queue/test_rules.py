"""The rules of the queue, without a database."""

import itertools
import json
from dataclasses import replace

import pytest

from annotation_queue.errors import NotAllowed, QueueError
from annotation_queue.records import Kind, NewOperation, NewTicket, Person, Reason, Role, State, Submission, Ticket
from annotation_queue.rules import (
    MAX_FRAME_IDX,
    MAX_PAYLOAD,
    MAX_POINTS,
    MAX_TIME,
    NEXT,
    PROMPTS,
    check_allowed,
    check_id,
    check_masklet,
    check_new_ticket,
    check_operation,
    check_submission,
    kinds_of,
    next_ticket_id,
    why_not,
)
from storage.records import Verdict
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


def test_every_exception_uses_its_docstring_as_its_default_message():
    for kind in QueueError.__subclasses__():
        assert str(kind()).endswith("."), kind
        assert str(kind("this one")) == "this one"


def test_every_way_to_finish_a_ticket_is_in_the_table_or_rejected():
    for kind, verdict in itertools.product(Kind, [None, *Verdict]):
        masklet = candidate("other") if verdict is None else None
        finish = outcome(verdict=verdict, reasons=(Reason.OTHER,), masklet=masklet)
        if (kind, verdict) in NEXT:
            check_submission(replace(TICKET, kind=kind), finish)
        else:
            with pytest.raises(ValueError, match="cannot be finished"):
                check_submission(replace(TICKET, kind=kind), finish)


def test_refined_work_is_always_verified_again():
    correcting = NEXT[(Kind.VERIFY, Verdict.REFINE)]
    assert correcting is not None and NEXT[(correcting, None)] is Kind.VERIFY


def test_the_maker_of_a_masklet_never_verifies_it():
    assert why_not(person(Role.LEAD), replace(TICKET, made_by="vera")) == (
        "vera made this masklet: another person must verify it"
    )
    assert why_not(person(Role.LEAD), replace(TICKET, made_by="victor")) is None
    assert why_not(person(Role.ANNOTATOR), replace(TICKET, kind=Kind.TRACK, made_by="vera")) is None


def test_only_a_lead_may_hold_a_ticket_that_a_verifier_was_unsure_of():
    unsure = replace(TICKET, needs_lead=True)
    assert why_not(person(Role.VERIFIER), unsure) == "a verifier was unsure of this masklet: a lead must decide"
    assert why_not(person(Role.LEAD), unsure) is None
    with pytest.raises(ValueError, match="a lead must decide"):
        check_submission(unsure, outcome(verdict=Verdict.UNSURE))


def test_a_person_may_hold_the_kinds_of_all_their_roles_and_a_program_none():
    assert kinds_of(frozenset({Role.ANNOTATOR, Role.VERIFIER})) == set(Kind)
    assert kinds_of(frozenset({Role.PIPELINE, Role.ADMIN})) == set()
    assert why_not(person(Role.PIPELINE), TICKET) == "vera has no role for verify tickets"


def test_a_rejection_needs_a_reason():
    with pytest.raises(ValueError, match="reason"):
        check_submission(TICKET, outcome(verdict=Verdict.REJECT))
    check_submission(TICKET, outcome(verdict=Verdict.REJECT, reasons=(Reason.DRIFT,)))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_seconds_outside_their_limits_are_rejected(seconds):
    check_submission(TICKET, outcome(verdict=Verdict.ACCEPT, seconds=0.0))
    with pytest.raises(ValueError, match="seconds"):
        check_submission(TICKET, outcome(verdict=Verdict.ACCEPT, seconds=seconds))


@pytest.mark.parametrize("watched", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_watched_share_outside_its_limits_is_rejected(watched):
    for right in (None, 0.0, 1.0):
        check_submission(TICKET, replace(outcome(verdict=Verdict.ACCEPT), watched=right))
    with pytest.raises(ValueError, match="watched"):
        check_submission(TICKET, replace(outcome(verdict=Verdict.ACCEPT), watched=watched))


@pytest.mark.parametrize("payload", ["{}", '{"operation_id": []}', '{"operation_id": 7}', '{"operation_id": null}'])
def test_undo_and_redo_need_an_operation_id(payload):
    for kind in ("undo", "redo"):
        check_operation(operation(kind, '{"operation_id": "o1"}'))
        with pytest.raises(ValueError, match="needs an operation_id"):
            check_operation(operation(kind, payload))


def test_a_submission_has_either_a_verdict_or_a_masklet():
    track = replace(TICKET, kind=Kind.TRACK)
    with pytest.raises(ValueError, match="a submission has one of"):
        check_submission(track, outcome())
    with pytest.raises(ValueError, match="a submission has one of"):
        check_submission(track, outcome(verdict=Verdict.REJECT, reasons=(Reason.OTHER,), masklet=candidate("x")))


def test_a_corrected_masklet_is_about_the_video_of_its_ticket():
    track = replace(TICKET, kind=Kind.TRACK)
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
def test_an_inconsistent_masklet_is_rejected(change):
    check_masklet(candidate("m"))
    with pytest.raises(ValueError):
        check_masklet(replace(candidate("m"), **change))


@pytest.mark.parametrize("value", ["", "a/b", "..", "a..b", ".a", "a b", "é", "a\n", "x" * 129])
def test_an_invalid_id_is_rejected(value):
    with pytest.raises(ValueError):
        check_id(value)


@pytest.mark.parametrize("value", ["a", "video-1", "manual__2026-01-01T00:00:00+00:00", "a.b", "ann@example.org"])
def test_ids_of_the_pipeline_are_valid(value):
    assert check_id(value) == value


def test_a_verify_ticket_needs_a_masklet_and_a_track_ticket_does_not():
    with pytest.raises(ValueError, match="no masklet"):
        check_new_ticket(NewTicket(ticket_id="t", kind=Kind.VERIFY, video_id="video-0"))
    check_new_ticket(NewTicket(ticket_id="t", kind=Kind.TRACK, video_id="video-0", phase="1"))


def test_a_ticket_with_an_unknown_prompt_is_rejected():
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
def test_a_ticket_rejects_prompts_that_its_phase_does_not_allow(kind, payload, needs):
    only = replace(TICKET, kind=Kind.TRACK, phase="1", payload=f'{{"prompts": ["{needs}"]}}')
    others = [word for word in PROMPTS if word != needs]
    without = replace(only, payload='{"prompts": ["' + '", "'.join(others) + '"]}')
    check_operation(operation(kind, payload))
    check_allowed(only, operation(kind, payload))
    check_allowed(replace(only, payload="{}"), operation(kind, payload))
    with pytest.raises(NotAllowed, match=f"phase 1 does not allow {needs}"):
        check_allowed(without, operation(kind, payload))
    check_allowed(without, operation("undo", '{"operation_id": "o1"}'))


def test_a_verify_ticket_rejects_prompts():
    with pytest.raises(NotAllowed, match="verdict"):
        check_allowed(TICKET, operation("prompt", '{"points_xy": [[1, 2]]}'))


def test_the_id_of_the_next_ticket_depends_only_on_the_ticket_and_its_attempt():
    again = replace(TICKET, ticket_id=next_ticket_id(TICKET, Kind.TRACK), attempt=2)
    assert next_ticket_id(TICKET, Kind.TRACK) == next_ticket_id(TICKET, Kind.TRACK)
    assert next_ticket_id(again, Kind.TRACK) != next_ticket_id(TICKET, Kind.TRACK)


@pytest.mark.parametrize("deep", ['{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": ' + "[" * 40 + "]" * 40 + "}"])
def test_a_deeply_nested_payload_is_rejected(deep):
    with pytest.raises(ValueError, match="payload"):
        check_operation(operation("stroke", deep))


@pytest.mark.parametrize(
    ("large", "says"),
    [
        ({"payload": json.dumps({"points_xy": [[1, 1]] * (MAX_POINTS + 1)})}, f"at most {MAX_POINTS} points, not"),
        ({"payload": json.dumps({"mask_rle": "0" * MAX_PAYLOAD})}, f"at most {MAX_PAYLOAD} characters, not"),
        ({"created_at": "2" * (MAX_TIME + 1)}, "invalid time"),
        ({"frame_idx": MAX_FRAME_IDX + 1}, "frame_idx must be between 0 and"),
        ({"frame_idx": -4}, "frame_idx must be between 0 and"),
    ],
)
def test_an_operation_has_limits(large, says):
    most = {"points_xy": [[1, 1]] * MAX_POINTS}
    check_operation(operation("prompt", json.dumps(most)))
    with pytest.raises(ValueError, match=says):
        check_operation(replace(operation("prompt", json.dumps(most)), **large))
