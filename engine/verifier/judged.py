"""Candidates with people's verdicts: what the verifier learns from.

Pure: takes candidates and operations, knows no store and no queue.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from annotation_queue.given_verdicts import standing_verdicts
from annotation_queue.records import Kind
from engine.verifier.features import features_of
from storage.records import Masklet, Operation, Verdict, content_id


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A candidate that people judged. Refine counts as not accepted: the masklet is wrong."""

    masklet_id: str
    video_id: str
    batch_id: str
    features: tuple[float, ...]  # as `features.FEATURES`
    verdict: str  # that holds: accept, refine or reject
    people: tuple[str, ...] = ()  # who judged it, in order; unsure answers are left out
    answers: tuple[str, ...] = ()  # their verdicts


@dataclass(frozen=True)
class Answer:
    """What a person said about a candidate."""

    person: str
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What people said about a candidate: its verifiers, and then the lead, if a verifier was unsure."""

    verifiers: tuple[Answer, ...]
    leads: tuple[Answer, ...]

    @property
    def all(self) -> tuple[Answer, ...]:
        """In the order in which they were given."""
        return self.verifiers + self.leads

    @property
    def verdict(self) -> str:
        """The verdict that holds: the lead's, if a lead decided, or that of most people."""
        return self.leads[-1].verdict if self.leads else Counter(a.verdict for a in self.all).most_common(1)[0][0]


def judged_of(candidates: Iterable[Masklet], operations: Iterable[Operation]) -> list[Judged]:
    """The candidates that people judged, in their order. See `consensus` for a better verdict of several people."""
    return [
        Judged(
            masklet_id=masklet.masklet_id,
            video_id=masklet.video_id,
            batch_id=masklet.batch_id,
            features=features_of(masklet),
            verdict=said.verdict,
            people=tuple(answer.person for answer in said.all),
            answers=tuple(answer.verdict for answer in said.all),
        )
        for masklet, said in answers_of(candidates, operations)
    ]


def answers_of(candidates: Iterable[Masklet], operations: Iterable[Operation]) -> Iterator[tuple[Masklet, Answers]]:
    """The candidates that people judged, in their order, and what they said. Those without a verdict are left out."""
    acts: dict[str, list[Operation]] = defaultdict(list)
    for operation in standing_verdicts(operations):
        acts[operation.ticket_id].append(operation)
    for masklet in candidates:
        said = Answers(*(_answers(acts.get(ticket_id, [])) for ticket_id in verify_tickets(masklet)))
        if said.all:
            yield masklet, said


def verify_tickets(masklet: Masklet) -> tuple[str, str]:
    """The ids of a candidate's verify ticket, and of the one that a lead gets if its verifier is unsure."""
    first = content_id(masklet.batch_id, masklet.masklet_id, Kind.VERIFY.value)
    return first, content_id(first, Kind.VERIFY.value, "2")


def _answers(verdicts: Iterable[Operation]) -> tuple[Answer, ...]:
    """The answers of one ticket, from its operations `verdict` that stand. Without unsure ones."""
    answers = []
    for act in verdicts:
        said = json.loads(act.payload)
        answers.append(Answer(act.person, str(said["verdict"]), tuple(said.get("reasons", ()))))
    return tuple(answer for answer in answers if answer.verdict != Verdict.UNSURE)
