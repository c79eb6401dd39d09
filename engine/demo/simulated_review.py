"""Simulated people close a batch's review: they get accounts, do its tickets, and the batch is published."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable

from annotation_queue.records import QueuePolicy, Role, State
from engine import batches, loop
from engine.batches import BatchStage
from engine.demo import simulated_people
from engine.demo.annotator_policy import AnnotatorPolicy
from engine.demo.simulated_people import Credentials
from engine.demo.tally import Tally
from engine.progress import Tell
from engine.services import Services

WAIT_S = 1.0  # between two checks for tickets that other people hold


def team(policy: QueuePolicy) -> list[tuple[str, Role]]:
    """Names and roles of the people that a batch needs, so that somebody may do each of its tickets.

    There are as many of a role as one ticket takes answers, and one verifier more, because the verifier who sent a
    masklet back may not judge the correction. There are two leads, because a lead also corrects masklets, and may not
    judge their own corrections.
    """
    makers = policy.makers if policy.makers_share else 1
    judges = 1 + (policy.overlap if policy.overlap_share else 1)
    numbers = {("sim-annotator", Role.ANNOTATOR): makers, ("sim-reviewer", Role.VERIFIER): judges}
    numbers["sim-lead", Role.LEAD] = 2
    return [(_numbered(name, n), role) for (name, role), count in numbers.items() for n in range(count)]


def _numbered(name: str, n: int) -> str:
    return f"{name}-{n + 1}" if n else name


def hire(s: Services, people: Iterable[tuple[str, Role]]) -> list[Credentials]:
    """Gives each simulated person an account in the queue, with a new random password."""
    _, accounts = s.open_queue()
    hired = []
    for name, role in people:
        password = secrets.token_urlsafe(12)
        accounts.add(name, [role], password)
        hired.append(Credentials(name, password))
    return hired


def close_reviews(
    s: Services, batch_ids: list[str], check: Callable[[], None], tell: Tell, policy: AnnotatorPolicy | None = None
) -> tuple[Tally, list[str]]:
    """Does all tickets of these batches and publishes them. Returns the work and each batch's release ("": nothing).

    check: called while it waits for tickets that other people hold; may raise.  policy: of the simulated people.
    Raises NoTruth, and what `loop.finish` raises.
    """
    hired = hire(s, team(s.settings.queue))
    total, told = Tally(), False
    for batch_id in batch_ids:
        total.add(simulated_people.work(s, hired, batch_id=batch_id, policy=policy))
        while s.queue.tickets(batch_id=batch_id, state=State.LEASED, limit=1):
            if not told:
                tell("waiting for leased tickets: another person or a killed run holds them")
                told = True
            check()
            time.sleep(WAIT_S)
            total.add(simulated_people.work(s, hired, batch_id=batch_id, policy=policy))
        loop.finish(s, batch_id)
    facts = [batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {} for batch_id in batch_ids]
    return total, [str(fact.get("release", "")) for fact in facts]
