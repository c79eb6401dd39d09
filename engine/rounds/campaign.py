"""The campaign: a plan of phases in the settings, where it stands, and what follows from it for tickets and rounds.

Where it stands is derived from the published batches and the decided rounds; nothing is stored. In the order of
releases, a published batch adds its masklets to the current phase if its tickets were opened in it, and a decided round
adds a retraining. A phase ends when it has all its masklets and retrainings. Without a plan, `review.phase` and
`rounds.min_new_masklets` hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from annotation_queue.records import PlannedPhase
from engine import batches
from engine.rounds import record
from engine.services import Services
from engine.settings import CampaignPhase
from engine.stages import published
from engine.stages.published import PublishedBatch
from storage.dataset import releases
from storage.wording import counted


@dataclass(frozen=True)
class _Counts:
    masklets: int = 0
    retrainings: int = 0


def of_all(s: Services) -> list[PlannedPhase]:
    """The phases of all projects' plans."""
    return [of for project in s.settings.project_names for of in standing(s, project)]


def standing(s: Services, project: str = "") -> list[PlannedPhase]:
    """Every phase of a project's plan and how far it is, in order. Empty without a plan."""
    plan = s.settings.of_project(project).campaign.phases
    if not plan:
        return []
    added = [batch for batch in published.of_all(s.blobs) if releases.project_of(batch.release) == project]
    trained_on = [begun.release for begun in record.decided(s) if releases.project_of(begun.release) == project]
    return [replace(of, project=project) for of in progress(plan, added, trained_on)]


def progress(
    plan: Sequence[CampaignPhase], batches: Sequence[PublishedBatch], trained_on: Sequence[str]
) -> list[PlannedPhase]:
    """How far each phase is. trained_on: the release of each decided round."""
    counts = [_Counts() for _ in plan]
    current = 0
    events: list[tuple[tuple[int, str], PublishedBatch | None]] = [(releases.place(b.release), b) for b in batches]
    events += [(releases.place(release), None) for release in trained_on]
    for _, batch in sorted(events, key=lambda event: (event[0], event[1] is None)):
        if current == len(plan):
            break
        counted_so_far = counts[current]
        if batch is None:
            counts[current] = _Counts(counted_so_far.masklets, counted_so_far.retrainings + 1)
        elif batch.phase == plan[current].phase:
            counts[current] = _Counts(counted_so_far.masklets + batch.masklets, counted_so_far.retrainings)
        current += _is_complete(plan[current], counts[current])
    return [
        PlannedPhase(
            phase=step.phase,
            state="done" if place < current else "current" if place == current else "planned",
            masklets=of.masklets,
            planned_masklets=step.masklets,
            retrainings=of.retrainings,
            planned_retrainings=step.retrainings,
        )
        for place, (step, of) in enumerate(zip(plan, counts, strict=True))
    ]


def _is_complete(step: CampaignPhase, counts: _Counts) -> bool:
    return counts.masklets >= (step.masklets or 0) and counts.retrainings >= step.retrainings


def phase_of_batch(s: Services, batch_id: str) -> str:
    """The phase in which the tickets of a batch are opened now, by the plan of its project."""
    return phase_of_new_tickets(s, batches.project_of(s.blobs, batch_id))


def phase_of_new_tickets(s: Services, project: str = "") -> str:
    """The phase in which a project's new tickets are opened. The last one stays when the campaign is complete."""
    phases = standing(s, project)
    if not phases:
        return s.settings.of_project(project).review.phase
    return next((of.phase for of in phases if of.state == "current"), phases[-1].phase)


def needed_for_round(s: Services, new_masklets: int, project: str = "") -> str | None:
    """What is missing before a project's next round starts by itself, as a sentence; None if the round is due.

    new_masklets: training masklets since the last decided round.
    A phase with a number of masklets spreads its retrainings evenly over them. A phase without one retrains after every
    `rounds.min_new_masklets`. No round is due in a phase that has had its retrainings, nor after the campaign.
    """
    phases = standing(s, project)
    wanted = s.settings.rounds.min_new_masklets
    if not phases:
        return _lacking(wanted - new_masklets)
    now = next((of for of in phases if of.state == "current"), None)
    if now is None:
        return "the campaign is complete"
    if now.retrainings >= now.planned_retrainings:
        return f"{sentence(now)}; it has no further retraining"
    if now.planned_masklets is None:
        return _lacking(wanted - new_masklets)
    due_at = -(-now.planned_masklets * (now.retrainings + 1) // now.planned_retrainings)
    return _lacking(max(due_at - now.masklets, 1 - new_masklets), f"of phase {now.phase}")


def _lacking(number: int, which: str = "to train on") -> str | None:
    return f"{counted(number, 'masklet')} {which} missing" if number > 0 else None


def sentence(of: PlannedPhase) -> str:
    """`phase 2 is current: 120 of 400 masklets, 1 of 2 retrainings`."""
    parts = []
    if of.planned_masklets is not None:
        parts.append(f"{of.masklets} of {counted(of.planned_masklets, 'masklet')}")
    if of.planned_retrainings:
        parts.append(f"{of.retrainings} of {counted(of.planned_retrainings, 'retraining')}")
    return f"phase {of.phase} is {of.state}: {', '.join(parts)}"


def summary(s: Services) -> str:
    """Where the campaigns stand, each in one sentence."""
    said = []
    for project in s.settings.project_names:
        if phases := standing(s, project):
            of = f" of {project}" if project else ""
            now = next((of for of in phases if of.state == "current"), None)
            said.append(f"the campaign{of} is complete" if now is None else f"campaign{of}: {sentence(now)}")
    return "; ".join(said) or "no campaign is planned"
