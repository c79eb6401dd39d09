from __future__ import annotations

from annotation_queue.given_verdicts import standing_verdicts
from storage.records import Operation


def acts(*said: str) -> list[Operation]:
    """ "a accept t" is the verdict of a on ticket t; "a back t" takes it back. Numbered in this order."""
    made = []
    for n, (person, what, ticket) in enumerate(map(str.split, said)):
        made.append(
            Operation(
                operation_id=f"o{n}",
                ticket_id=ticket,
                batch_id="b",
                video_id="v",
                masklet_id="m",
                person=person,
                seq=n,
                kind="unsubmit" if what == "back" else what if what == "stroke" else "verdict",
                frame_idx=None,
                payload=f'{{"verdict": "{what}"}}',
                created_at="",
            )
        )
    return made


def ids(*said: str) -> list[str]:
    return [act.operation_id for act in standing_verdicts(reversed(acts(*said)))]


def test_a_take_back_ends_the_last_verdict_of_its_person_on_its_ticket():
    assert ids("a accept t", "b reject t", "a back t", "a refine t", "a accept s") == ["o4", "o1", "o3"]
    assert ids("a accept t", "a accept s", "a back t") == ["o1"]
    assert ids("a accept t", "a refine t", "a back t") == ["o0"]


def test_a_take_back_without_a_verdict_changes_nothing():
    assert ids("a back t", "b accept t", "a back t") == ["o1"]


def test_other_acts_are_no_verdicts():
    assert ids("a stroke t", "a accept t", "a stroke t") == ["o1"]
