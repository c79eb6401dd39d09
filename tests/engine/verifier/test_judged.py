"""Which verdict people gave a candidate, from the record of their acts."""

import json

import pytest

from engine.verifier import consensus, judged
from engine.verifier.judged import Judged
from storage.records import Operation
from tests.storage.rows import make_masklet

ONE = make_masklet("one")
FIRST, SECOND = judged.verify_tickets(ONE)


def act(seq, person, verdict, *, ticket_id=FIRST, kind="verdict"):
    return Operation(
        operation_id=f"{ticket_id}-{seq}",
        ticket_id=ticket_id,
        batch_id="b1",
        video_id="v1",
        masklet_id="one",
        person=person,
        kind=kind,
        frame_idx=0,
        payload=json.dumps({"verdict": verdict}),
        created_at="2026-01-01T00:00:00Z",
        seq=seq,
    )


def verdict_of(*acts):
    found = judged.judged_of([ONE], acts)
    return (found[0].verdict, found[0].people, found[0].answers) if found else None


def test_a_candidate_has_the_verdict_of_its_verifier():
    assert verdict_of(act(1, "vera", "accept")) == ("accept", ("vera",), ("accept",))
    assert verdict_of(act(1, "vera", "reject", ticket_id="another")) is None
    assert verdict_of() is None


def test_a_verdict_that_was_taken_back_does_not_count():
    acts = [act(1, "vera", "accept"), act(2, "vera", "accept", kind="unsubmit"), act(3, "vera", "refine")]
    assert verdict_of(*acts[::-1]) == ("refine", ("vera",), ("refine",))
    assert verdict_of(*acts[:2]) is None


def test_an_unsure_verifier_is_left_out_and_the_lead_decides():
    acts = [act(1, "vera", "unsure"), act(1, "lea", "reject", ticket_id=SECOND)]
    assert verdict_of(*acts) == ("reject", ("lea",), ("reject",))
    assert verdict_of(acts[0]) is None


def test_most_people_decide_and_the_lead_after_a_tie():
    most = [act(1, "a", "refine"), act(2, "b", "accept"), act(3, "c", "accept")]
    assert verdict_of(*most) == ("accept", ("a", "b", "c"), ("refine", "accept", "accept"))
    tie = [act(1, "a", "refine"), act(2, "b", "accept"), act(1, "lea", "refine", ticket_id=SECOND)]
    assert verdict_of(*tie)[0] == "refine"


def test_a_rejection_in_a_later_track_ticket_is_no_verdict_on_the_candidate():
    acts = [act(1, "vera", "refine"), act(1, "ann", "reject", ticket_id="the-track-ticket")]
    assert verdict_of(*acts) == ("refine", ("vera",), ("refine",))


def answers(name, video, people):
    return Judged(
        masklet_id=name,
        video_id=video,
        batch_id="b",
        features=(),
        verdict=next(iter(people.values())),
        people=tuple(people),
        answers=tuple(people.values()),
    )


def test_a_reliable_person_outweighs_one_who_answers_at_random():
    """`good` and `also` agree on 40 candidates; `bad` says accept half of the time, whatever it is."""
    rows = []
    for i in range(40):
        right = "accept" if i % 2 else "refine"
        rows.append(
            answers(f"m{i}", f"v{i}", {"bad": "accept" if i % 4 < 2 else "refine", "good": right, "also": right})
        )
    rows.append(answers("last", "v", {"bad": "accept", "good": "refine"}))
    found = {one.masklet_id: one.verdict for one in consensus.weighed(rows)}
    assert found["last"] == "refine", "the first answer would be that of `bad`"
    assert all(found[f"m{i}"] == ("accept" if i % 2 else "refine") for i in range(40))


def test_single_answers_stay_as_they_are():
    rows = [answers("a", "v", {"x": "accept"}), answers("b", "v", {"y": "reject"})]
    assert consensus.weighed(rows) == rows and consensus.agreement(rows) is None


def test_agreement_is_the_share_of_pairs_that_agree_whether_it_is_accepted():
    rows = [
        answers("a", "v1", {"x": "accept", "y": "accept"}),
        answers("b", "v2", {"x": "refine", "y": "reject"}),
        answers("c", "v3", {"x": "accept", "y": "refine", "z": "accept"}),
        answers("d", "v4", {"x": "accept"}),
    ]
    found = consensus.agreement(rows)
    assert found.value == pytest.approx(3 / 5) and found.low < 3 / 5 < found.high
