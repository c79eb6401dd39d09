"""Records of the queue's figures: how far batches are, and how people work."""

from __future__ import annotations

from dataclasses import dataclass

from annotation_queue.records import Kind


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """A proportion that was counted, with its 95 % Wilson confidence interval."""

    right: int
    of: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class BatchProgress:
    """The progress of the tickets of one kind in one batch."""

    batch_id: str
    kind: Kind
    open: int
    leased: int
    done: int
    per_hour: float  # tickets done, at the pace of the last quarter of an hour
    expected_s: float | None  # until these tickets are done at that pace; None: nobody finished one lately


@dataclass(frozen=True, kw_only=True)
class WorkFigures:
    """The work of people, summed over one person, phase or checkpoint. None: nothing was counted."""

    name: str  # of the person, the phase, the checkpoint or the label
    answers: int  # tickets finished; each of several verdicts on a ticket counts
    verdicts: dict[str, int]  # by verdict; "made" is a masklet
    seconds_per_ticket: float | None  # where the client measured it
    seconds_per_frame: float | None  # of masklets that people made, an annotated frame (6 fps)
    clicks_per_clicked_frame: float | None
    edited_frames_share: float | None  # frames that they edited, of the annotated frames of their masklets
    # The share of first reviews that accepted the masklet. It says how often a person accepts, not how carefully:
    # a person who accepts everything has the highest share. `judging` has the figures about care.
    first_pass: Proportion | None
    agreement: float | None  # on tickets with several answers: mean share of the others that gave the same answer
    masklet_iou: float | None  # mean IoU over time with the masklets that other people made of the same object


@dataclass(frozen=True, kw_only=True)
class GoldFigures:
    """How often a person was right on gold tickets."""

    person: str
    kind: Kind
    accuracy: Proportion
    score: float  # mean: 0 or 1 for a verdict, the IoU for a masklet


@dataclass(frozen=True, kw_only=True)
class JudgingFigures:
    """How a person judges masklets: from their last verdicts, of which gold is a part. None: nothing was counted."""

    person: str
    verdicts: int  # that these figures are about, at most judging.LAST
    median_s: float | None  # where the client measured it
    watched: float | None  # mean share of the frames with the object that were on screen, where the client sent it
    accepts: Proportion
    agreement: float | None  # mean share of the others that gave the same verdict, on all shared tickets
    shared: int  # tickets that others judged, too
    gold: Proportion | None  # how often they were right on gold to verify
    flags: tuple[str, ...]  # what is suspicious, each in one plain sentence


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """The queue in figures: in total, by person, maker, phase, checkpoint and label. Only `gold` includes gold."""

    at: float  # s since the epoch, when they were counted
    batches: tuple[BatchProgress, ...]  # those that are not drained, and the last ones that are
    total: WorkFigures
    people: tuple[WorkFigures, ...]
    makers: tuple[WorkFigures, ...]  # the verdicts on the masklets of each person; "" is the model
    phases: tuple[WorkFigures, ...]
    checkpoints: tuple[WorkFigures, ...]
    labels: tuple[WorkFigures, ...] = ()  # the answers about objects that have this label, without those that have none
    projects: tuple[WorkFigures, ...] = ()  # empty while all work is of the unnamed one
    gold: tuple[GoldFigures, ...]
    judging: tuple[JudgingFigures, ...]
    undelivered: int
