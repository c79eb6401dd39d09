"""Candidates with people's verdicts: what the verifier learns from.

Pure: takes candidates and operations, knows no store and no queue.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

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


def judged_of(candidates: Iterable[Masklet], operations: Iterable[Operation]) -> list[Judged]:
    """The candidates that people judged, in their order. Those without a verdict are left out.

    The verdict that holds is the lead's, if a lead decided, or that of most people. See `consensus` for a better one.
    """
    acts: dict[str, list[Operation]] = defaultdict(list)
    for operation in sorted(operations, key=lambda o: (o.ticket_id, o.seq)):
        acts[operation.ticket_id].append(operation)
    found = []
    for masklet in candidates:
        first, second = (_answers(acts.get(ticket_id, [])) for ticket_id in verify_tickets(masklet))
        answers = first + second
        if not answers:
            continue
        verdicts = [verdict for _, verdict in answers]
        found.append(
            Judged(
                masklet_id=masklet.masklet_id,
                video_id=masklet.video_id,
                batch_id=masklet.batch_id,
                features=features_of(masklet),
                verdict=second[-1][1] if second else Counter(verdicts).most_common(1)[0][0],
                people=tuple(person for person, _ in answers),
                answers=tuple(verdicts),
            )
        )
    return found


def verify_tickets(masklet: Masklet) -> tuple[str, str]:
    """The ids of a candidate's verify ticket, and of the one that a lead gets if its verifier is unsure."""
    first = content_id(masklet.batch_id, masklet.masklet_id, Kind.VERIFY.value)
    return first, content_id(first, Kind.VERIFY.value, "2")


def _answers(operations: Iterable[Operation]) -> list[tuple[str, str]]:
    """The people and verdicts of one ticket, without those that were taken back and without unsure ones."""
    answers: list[tuple[str, str]] = []
    for operation in operations:
        if operation.kind == "verdict":
            answers.append((operation.person, str(json.loads(operation.payload)["verdict"])))
        elif operation.kind == "unsubmit":
            del answers[max(k for k, (person, _) in enumerate(answers) if person == operation.person)]
    return [(person, verdict) for person, verdict in answers if verdict != Verdict.UNSURE]
