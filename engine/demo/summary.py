"""The figures of a demo: what each batch took, and what the round between them changed. Only reads the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine import batches
from engine.batches import BatchStage
from engine.demo.tally import Tally
from engine.ingest import admitted
from engine.protocols import first_frame
from engine.rounds import record
from engine.rounds.record import RoundResult
from engine.services import Services
from engine.stages import work
from storage import iou
from storage.dataset import parts
from storage.records import Masklet, Video
from validation import jf


@dataclass(frozen=True, kw_only=True)
class BatchFigures:
    """What one batch took. Counts are of its training videos: people paint the held-out ones by hand.

    J&F is in points, 0 to 100; None if it could not be measured.
    """

    batch_id: str
    proposed_by: str  # the checkpoint
    videos: int  # of all splits
    candidates: int
    candidates_jf: float | None  # against the ground truth
    masklets: int  # published
    accepted: int  # of these: accepted as they were proposed
    added: int  # objects of all videos that no candidate showed; people added them
    clicks: int
    edited_frames: int
    annotated_frames: int  # of the published masklets
    published_jf: float | None  # against the ground truth; a painted frame is the truth itself
    modelled_s: float  # of the simulated people, by the paper's time model
    release: str  # "": nothing was published

    @property
    def accepted_share(self) -> float:
        """The share of the candidates that were accepted as they were proposed."""
        return self.accepted / max(1, self.candidates)

    @property
    def clicks_a_masklet(self) -> float:
        return self.clicks / max(1, self.masklets)

    @property
    def edited_frames_a_masklet(self) -> float:
        return self.edited_frames / max(1, self.masklets)

    @property
    def seconds_a_frame(self) -> float:
        """Modelled seconds of people for each annotated frame of a published masklet."""
        return self.modelled_s / max(1, self.annotated_frames)


@dataclass(frozen=True)
class Summary:
    """The figures of a demo."""

    domain: str
    quarantined: int
    batches: tuple[BatchFigures, ...]
    round: RoundResult | None
    seconds: Mapping[str, float]  # by stage, measured


def of_batch(s: Services, batch_id: str, tally: Tally) -> BatchFigures:
    """The figures of a published batch. tally: what people did on it."""
    videos = batches.videos(s, batch_id)
    training = [video for video in videos if video.split == "train"]
    ids = {video.video_id for video in training}
    rows = [row for row in s.tables.masklets(where=f"batch_id == '{batch_id}'") if row.video_id in ids]
    markers = [m for m in parts.markers(s.blobs, "candidates", batch_id) if m.video_id in ids]
    candidates = [row for marker in markers for row in parts.read_part(s.blobs, marker)]
    acts = parts.rows(s.blobs, "operations", batch_id, only=ids)
    published = batches.facts(s.blobs, batch_id, BatchStage.PUBLISHED) or {}
    return BatchFigures(
        batch_id=batch_id,
        proposed_by=", ".join(sorted({row.checkpoint for row in candidates})),
        videos=len(videos),
        candidates=len(candidates),
        candidates_jf=_mean_jf(s, training, candidates),
        masklets=len(rows),
        accepted=sum(row.edited_frame_count == 0 for row in rows),
        added=tally.added,
        clicks=sum(row.click_count for row in rows),
        edited_frames=sum(row.edited_frame_count for row in rows),
        annotated_frames=sum(len(row.frame_idx) for row in rows),
        published_jf=_mean_jf(s, training, rows),
        modelled_s=work.of_operations(acts, {video.video_id: video.frame_count for video in training}).modelled_s,
        release=str(published.get("release", "")),
    )


def of_demo(
    s: Services, domain: str, done: Sequence[BatchFigures], round_id: str | None, seconds: Mapping[str, float]
) -> Summary:
    """The summary of a demo."""
    return Summary(
        domain=domain,
        quarantined=len(s.tables.quarantine()),
        batches=tuple(done),
        round=record.result_of(s, round_id) if round_id else None,
        seconds=dict(seconds),
    )


def against_truth(s: Services, video: Video, rows: Sequence[Masklet]) -> dict[str, jf.JF]:
    """J and F of each masklet of a video against the true object with the largest IoU; {} without ground truth."""
    if video.truth_key is None:
        return {}
    truths = admitted.truths(s.blobs, video)
    found = {}
    for row in rows:
        if row.video_id != video.video_id:
            continue
        truth = max(truths, key=lambda t: iou.tube_iou(row, t), default=None)
        if truth is None:
            continue
        metric = first_frame.jf_of_masklet(row, truth)
        if metric is not None:
            found[row.masklet_id] = metric
    return found


def _mean_jf(s: Services, videos: Sequence[Video], rows: Sequence[Masklet]) -> float | None:
    mean = jf.mean(metric for video in videos for metric in against_truth(s, video, rows).values())
    return None if mean is None else 100 * mean.jf


def table(summary: Summary) -> list[tuple[str, ...]]:
    """The two batches side by side: rows of a label and a cell for each batch. The first row is the heading."""

    def points(value: float | None) -> str:
        return "not measured" if value is None else f"{value:.1f}"

    done = summary.batches
    return [
        ("", *("first batch" if n == 0 else "second batch" for n in range(len(done)))),
        ("proposed by", *(b.proposed_by for b in done)),
        ("videos", *(str(b.videos) for b in done)),
        ("candidates", *(str(b.candidates) for b in done)),
        ("their J&F against the truth", *(points(b.candidates_jf) for b in done)),
        ("accepted as they were", *(f"{b.accepted} ({b.accepted_share:.0%})" for b in done)),
        ("objects that people had to add", *(str(b.added) for b in done)),
        ("edited frames a masklet", *(f"{b.edited_frames_a_masklet:.1f}" for b in done)),
        ("clicks a masklet", *(f"{b.clicks_a_masklet:.1f}" for b in done)),
        ("people's time a frame, modelled", *(f"{b.seconds_a_frame:.1f} s" for b in done)),
        ("masklets published", *(str(b.masklets) for b in done)),
        ("their J&F against the truth", *(points(b.published_jf) for b in done)),
    ]


def lines(summary: Summary) -> list[tuple[str, str]]:
    """What the round changed, and how long each stage took: labelled lines."""
    found: list[tuple[str, str]] = []
    if (end := summary.round) is not None:
        gain = 100 * (end.jf_after - end.jf_before)
        interval = (
            ""
            if end.interval is None
            else f", 95 % interval {100 * end.interval[0]:+.1f} to {100 * end.interval[1]:+.1f}"
        )
        found = [
            ("round", end.round_id),
            (
                "J&F on held-out videos, before and after",
                f"{100 * end.jf_before:.1f} -> {100 * end.jf_after:.1f} ({gain:+.1f}{interval})",
            ),
        ]
        if end.general_before is not None and end.general_after is not None:
            kept = f"{100 * end.general_before:.1f} -> {100 * end.general_after:.1f}"
            found.append(("J&F on the general set, before and after", kept))
        found.append(("gate", f"{'promoted' if end.promoted else 'not promoted'}: {'; '.join(end.reasons)}"))
    if summary.quarantined:
        found.append(("quarantined", str(summary.quarantined)))
    return found + [(f"seconds, {stage}", f"{value:.1f}") for stage, value in summary.seconds.items()]
