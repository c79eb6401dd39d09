"""Gold tickets: work with a known answer, made from what people decided about a batch."""

from __future__ import annotations

import json

from annotation_queue.records import BatchResult, Kind, NewGold, NewTicket
from engine import batches
from engine.services import Services
from engine.stages import labelling, phases
from storage import iou
from storage.dataset import parts
from storage.records import Masklet, Verdict, content_id


def gold_tickets(s: Services, result: BatchResult, phase: str) -> list[NewGold]:
    """The gold that the decisions about a batch give.

    A candidate accepted unchanged becomes a ticket to accept. A candidate that was sent back, corrected into something
    clearly different and then accepted becomes a ticket to refine, and a ticket to correct with the accepted masklet as
    the truth.

    phase: of the tickets. They ask for labels as new tickets of the batch's project do, and the queue must know the
    ontology of its settings.
    """
    batch_id = result.batch.batch_id
    labels = labelling.rules_of_new_tickets(s, batches.project_of(s.blobs, batch_id))
    candidates: dict[str, Masklet] = {row.masklet_id: row for row in parts.rows(s.blobs, "candidates", batch_id)}
    verdicts = [(o, json.loads(o.payload)) for o in result.operations if o.kind == "verdict"]
    sent_back = {o.masklet_id: (o, said) for o, said in verdicts if said["verdict"] == Verdict.REFINE}  # the last wins

    def ticket(candidate: Masklet, kind: Kind, **rules: object) -> NewTicket:
        return NewTicket(
            ticket_id=content_id(batch_id, candidate.masklet_id, kind.value, "gold"),
            kind=kind,
            video_id=candidate.video_id,
            masklet=candidate,
            phase=phase,
            payload=phases.payload(phase, labels | rules),
        )

    found = []
    for settled in result.settled:
        made = settled.masklet
        if settled.verdict is not Verdict.ACCEPT or made is None:
            continue
        if made.masklet_id in candidates:
            found.append(NewGold(ticket=ticket(candidates[made.masklet_id], Kind.VERIFY), expected=Verdict.ACCEPT))
            continue
        candidate = candidates.get(made.corrected_id or "")
        if candidate is None or candidate.masklet_id not in sent_back:
            continue  # the verdict that led to this masklet is unknown
        verdict, said = sent_back[candidate.masklet_id]
        if iou.mean_iou(candidate, made) < s.settings.queue.gold_iou:  # else accepting the candidate is right, too
            pointed = {"frame_idx": verdict.frame_idx, "by": verdict.person, "reasons": said["reasons"]}
            pointed["verdict"] = Verdict.REFINE.value  # then the text: in the order of a real correction
            pointed |= {"text": said["text"]} if "text" in said else {}
            found.append(NewGold(ticket=ticket(candidate, Kind.VERIFY), expected=Verdict.REFINE))
            found.append(NewGold(ticket=ticket(candidate, Kind.TRACK, pinned=pointed), truth=made))
    return found
