"""Work that several people do: how many answers a ticket takes, and what several answers decide.

Pure: no database, no clock. Verifiers of the overlap share judge the same ticket. Annotators of the makers' share make
the same masklet, each in a ticket of their own; these tickets have one `object_id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import Row

from annotation_queue.labels import Label
from annotation_queue.records import Kind, QueuePolicy
from annotation_queue.rules import is_in_share
from storage import iou
from storage.records import Masklet, Verdict


@dataclass(frozen=True)
class Majority:
    """The result of the answers to a ticket: the columns of the deciding answer."""

    verdict: str | None
    reasons: str | None
    person: str
    seconds: float | None
    label: Label | None = None  # None: the answers do not agree on one, so the ticket keeps its own


def majority(answers: Sequence[Row[Any]]) -> Majority:
    """The verdict of more than half of the answers, with the reasons of the last answer that gave it.

    answers: rows of `leases`, in their order. Without such a verdict it is UNSURE, so that a lead decides; so it is if
    masklets are accepted under different labels, none of which has more than half of the accepting answers.
    """
    (verdict, count), *_ = Counter(answer.verdict for answer in answers).most_common(1)
    if 2 * count > len(answers):
        same = [answer for answer in answers if answer.verdict == verdict]
        (label, agree), *_ = Counter(answer.label for answer in same).most_common(1)
        if 2 * agree > len(same):
            of = [answer for answer in same if answer.label == label][-1]
            name = Label(name=of.label, attributes=of.attributes)
            return Majority(verdict, same[-1].reasons, same[-1].person, same[-1].seconds, name)
        if verdict != Verdict.ACCEPT.value:
            return Majority(verdict, same[-1].reasons, same[-1].person, same[-1].seconds)
    return Majority(Verdict.UNSURE.value, "", answers[-1].person, answers[-1].seconds)


def closest(masklets: Sequence[Masklet]) -> tuple[Masklet, list[float]]:
    """The masklet that agrees best with the others, and each masklet's mean IoU over time with the others.

    masklets: several people's, of one object. If several agree equally well, the first one is chosen.
    """
    agreement, others = [0.0] * len(masklets), max(1, len(masklets) - 1)
    for a, b in combinations(range(len(masklets)), 2):
        same = iou.mean_iou(masklets[a], masklets[b]) / others
        agreement[a] += same
        agreement[b] += same
    return masklets[agreement.index(max(agreement))], agreement


def overlap_of(
    ticket_id: str,
    kind: Kind,
    policy: QueuePolicy,
    *,
    masklet_id: str | None,
    made_by: str | None = None,
    needs_lead: bool = False,
) -> int:
    """How many answers a ticket takes: verdicts, or masklets of the same object."""
    if kind is Kind.VERIFY and not needs_lead and is_in_share(ticket_id, policy.overlap_share):
        return max(1, policy.overlap)
    # Only a ticket with a masklet names its object; a masklet that a person made is corrected by that person only.
    begins = kind is Kind.TRACK and masklet_id is not None and made_by is None
    return max(1, policy.makers) if begins and is_in_share(ticket_id, policy.makers_share) else 1


def object_of(ticket_id: str, kind: Kind, overlap: int) -> str | None:
    """The `object_id` of a ticket that several people work on, which is the id of the first of their tickets."""
    return ticket_id if kind is Kind.TRACK and overlap > 1 else None
