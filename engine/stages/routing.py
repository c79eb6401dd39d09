"""What the verifier does with the candidates of a batch: orders their tickets, and decides those that it is sure of.

Which verifier works on a batch is pinned at the first attempt to open its review, so a retry gives the same tickets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from annotation_queue.rules import is_in_share
from engine import batches
from engine.services import Services
from engine.settings import VerifierSettings
from engine.verifier import features, keeping
from engine.verifier.figures import VerifierFigures
from engine.verifier.fitting import Predictions
from engine.verifier.keeping import NoSuchVerifier
from storage.records import Masklet, Verdict

log = logging.getLogger(__name__)

# A ticket's priority is the expected gain, 0 to 1, times this. The select tickets of a batch have a lower priority.
PRIORITIES = 1000


@dataclass(frozen=True)
class Route:
    """What happens to one candidate."""

    verdict: Verdict | None  # None: a person judges it; refine: a person corrects it without a review before
    decided_by: str | None  # the verifier that gave the verdict
    priority: int  # of its ticket


TO_PEOPLE = Route(None, None, 0)


def of_batch(s: Services, batch_id: str, rows: Sequence[Masklet]) -> dict[str, Route]:
    """The routes of candidates, by masklet_id; empty if the settings allow nothing or there is no verifier yet.

    Also empty if another version of this program made the verifier: the next round fits a new one.
    """
    chosen = s.settings.verifier
    if not (chosen.order or chosen.accept or chosen.reject or chosen.refine):
        return {}
    if batches.facts(s.blobs, batch_id, batches.VERIFIER) is None:
        newest = keeping.newest(s.blobs, batches.project_of(s.blobs, batch_id), chosen.precision)
        batches.mark(s.blobs, batch_id, batches.VERIFIER, {"verifier": newest} | chosen.model_dump())
    pinned = batches.facts(s.blobs, batch_id, batches.VERIFIER) or {}
    verifier_id = pinned.pop("verifier")
    if verifier_id is None or not rows:
        return {}
    try:
        verifier = keeping.load(s.blobs, verifier_id)
    except NoSuchVerifier as error:
        log.warning("batch %s: people judge every candidate: %s", batch_id, error)
        return {}
    predicted = verifier.predict(features.table_of(rows))
    figures = keeping.find(s.blobs, verifier_id).figures
    return routes(rows, predicted, figures, VerifierSettings(**pinned), verifier_id)


def expected_gain(row: Masklet, doubt: float) -> float:
    """How much may be learned from people's verdict on a candidate, 0 to 1.

    doubt: the verifier's. Two checkpoints that disagree (`verifier.compare`) count as much as a verifier that doubts.
    """
    agreement = json.loads(row.prompt).get("last_iou")
    return doubt if agreement is None else max(doubt, 1 - float(agreement))


def routes(
    rows: Sequence[Masklet],
    predicted: Predictions,
    figures: VerifierFigures,
    chosen: VerifierSettings,
    verifier_id: str,
) -> dict[str, Route]:
    """The routes of candidates with these predictions, by masklet_id.

    People judge each held-out candidate, and an audited share of those that the verifier could decide. That share
    follows from the ids, so it is the same each time.
    """
    found = {}
    for row, accept, reject, doubt in zip(rows, predicted.accept, predicted.reject, predicted.doubt, strict=True):
        verdict = None
        if accept >= figures.sure_accept.threshold:
            verdict = Verdict.ACCEPT if chosen.accept else None
        elif reject >= figures.sure_reject.threshold:
            verdict = Verdict.REJECT if chosen.reject else None
        elif 1 - accept >= figures.sure_refine.threshold:
            verdict = Verdict.REFINE if chosen.refine else None
        audited = is_in_share(f"{verifier_id} {row.masklet_id}", chosen.audited_share)
        if row.split != "train" or audited:
            verdict = None
        priority = round(PRIORITIES * expected_gain(row, float(doubt))) if chosen.order else 0
        found[row.masklet_id] = Route(verdict, verifier_id if verdict else None, priority)
    return found
