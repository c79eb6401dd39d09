"""Simulated people: they claim tickets over the queue's HTTP interface and finish them with the help of ground truth.

A verifier compares the masklet with the true objects. An annotator corrects it by the paper's offline protocol (prompt
the worst frame, propagate, repeat) with the model, and then paints the frames that are still wrong. In phase 1 the
annotator paints every frame. Where to click is decided in `engine.protocols.annotator`; the time is modelled, never
measured (`engine.protocols.effort`).
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from annotation_queue.client import QueueClient, new_id, now
from annotation_queue.errors import QueueError
from annotation_queue.records import Kind, NewOperation, Reason, Ticket
from engine.protocols import annotator
from engine.protocols.effort import BRUSH_S, CLICK_S, LOCATE_S, WATCH_S
from engine.services import Services
from engine.stages import phases, propose
from storage import overlap, rle
from storage.formats import sav
from storage.pixels import Mask
from storage.records import STRIDE, Masklet, Prompt, Verdict, Video, content_id

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.tracker import Tracker

HEARTBEAT_S = 20.0


class NoTruth(Exception):
    """Simulated people need ground truth, and this video has no ground truth."""


@dataclass(frozen=True)
class AnnotatorPolicy:
    """When a simulated person is satisfied. IoU in [0, 1]."""

    accept_mean: float = 0.80  # mean IoU over the frames that show the object or the masklet
    accept_frame: float = 0.75  # a frame counts as right above it (SA-V's alignment score)
    accept_share: float = 0.85  # of the frames that must be right
    same_object: float = 0.5  # least IoU with a true object; below it the masklet shows no true object
    clicks_a_frame: int = 3
    corrections: int = 3  # frames to correct with the model before painting the rest
    one_each: bool = True  # a second candidate of one object is a duplicate
    attempts: int = 2  # track tickets of one object before it is rejected as untrackable


@dataclass
class Tally:
    """What the simulated people did. modelled_s: modelled seconds of their work."""

    verdicts: Counter[str] = field(default_factory=Counter)
    tracked: int = 0
    clicks: int = 0
    clicked_frames: int = 0
    edited_frames: int = 0
    annotated_frames: int = 0
    modelled_s: float = 0.0

    def add(self, other: Tally) -> None:
        self.verdicts += other.verdicts
        self.tracked += other.tracked
        self.clicks += other.clicks
        self.clicked_frames += other.clicked_frames
        self.edited_frames += other.edited_frames
        self.annotated_frames += other.annotated_frames
        self.modelled_s += other.modelled_s


@dataclass(frozen=True)
class Credentials:
    """The account of a simulated person."""

    name: str
    password: str


def work(
    s: Services,
    people: Sequence[Credentials],
    *,
    batch_id: str | None = None,
    policy: AnnotatorPolicy | None = None,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Lets each person in turn claim and finish tickets until none is left. Raises NoTruth, the ticket released."""
    policy, total = policy or AnnotatorPolicy(), Tally()
    clients = [_Connections(s.settings.queue_url, person) for person in people]
    desk = _Desk(s, policy)
    try:
        idle = 0
        while idle < len(clients):
            idle = 0
            for client in clients:
                ticket = client.work.claim(batch_id=batch_id)
                if ticket is None:
                    idle += 1
                    continue
                with _Heartbeat(client.heart, ticket):
                    total.add(desk.do(client.work, ticket))
                progress(total)
        return total
    finally:
        for client in clients:
            client.close()


class _Connections:
    """One person's two connections: one for the work, one for the heartbeat thread. A client serves one thread only."""

    def __init__(self, url: str, person: Credentials) -> None:
        self.work = QueueClient(url, username=person.name, password=person.password)
        self.heart = QueueClient(url, username=person.name, password=person.password)

    def close(self) -> None:
        self.work.close()
        self.heart.close()


class _Desk:
    """What people share: ground truth, videos, the model, and which objects already have a candidate."""

    def __init__(self, s: Services, policy: AnnotatorPolicy) -> None:
        self._s, self._policy = s, policy
        self._truths: dict[str, list[Masklet]] = {}
        self._taken: set[tuple[str, str]] = set()  # (video, object) pairs whose first candidate was seen
        self._videos: dict[str, Video] = {}
        self._loaded: LoadedModel | None = None

    def do(self, client: QueueClient, ticket: Ticket) -> Tally:
        """Finishes one ticket; releases it if the video has no ground truth."""
        try:
            if ticket.kind is Kind.VERIFY:
                return self._verify(client, ticket)
            return self._track(client, ticket)
        except NoTruth:
            client.release(ticket)
            raise

    def _verify(self, client: QueueClient, ticket: Ticket) -> Tally:
        masklet = client.masklet(ticket)
        assert masklet is not None  # every verify ticket has a masklet
        target, best = self._match(masklet)
        seconds = WATCH_S * len(masklet.frame_idx)
        reasons: tuple[Reason, ...] = ()
        if target is None:
            verdict, reasons = Verdict.REJECT, (Reason.NOT_AN_OBJECT,)
        elif self._is_duplicate(ticket, target):
            verdict, reasons = Verdict.REJECT, (Reason.DUPLICATE,)
        elif self._satisfied(masklet, target):
            verdict = Verdict.ACCEPT
        elif self._tries(client, ticket) >= self._policy.attempts:
            verdict, reasons = Verdict.REJECT, (Reason.UNTRACKABLE,)
        else:
            verdict, reasons = Verdict.REFINE, (Reason.DRIFT if best > 0.75 else Reason.WRONG_BOUNDARY,)
        client.finish(ticket, verdict=verdict, reasons=reasons, frame_idx=0, seconds=seconds)
        return Tally(verdicts=Counter([verdict.value]), modelled_s=seconds)

    def _track(self, client: QueueClient, ticket: Ticket) -> Tally:
        candidate = client.masklet(ticket)
        if candidate is None:
            client.finish(ticket, verdict=Verdict.REJECT, reasons=(Reason.NOT_AN_OBJECT,))
            return Tally(verdicts=Counter([Verdict.REJECT.value]))
        target, _ = self._match(candidate)
        if target is None or self._is_duplicate(ticket, target):
            reason = Reason.NOT_AN_OBJECT if target is None else Reason.DUPLICATE
            client.finish(ticket, verdict=Verdict.REJECT, reasons=(reason,))
            return Tally(verdicts=Counter([Verdict.REJECT.value]))
        phase = phases.phase(ticket.phase)
        if not phase.propagates:
            made, acts, tally = self._by_hand(candidate, target, ticket)
        else:
            made, acts, tally = self._with_model(candidate, target, ticket)
        client.append_operations(ticket, acts)
        client.finish(ticket, masklet=made, frame_idx=0, seconds=tally.modelled_s)
        return tally

    # ------------------------------------------------------------------------------------------- two ways to track

    def _by_hand(
        self, candidate: Masklet, target: Masklet, ticket: Ticket
    ) -> tuple[Masklet, list[NewOperation], Tally]:
        """Phase 1: every annotated frame is painted; nothing propagates."""
        wanted = _aligned(target, candidate.frame_idx)
        acts = [
            _act("stroke", frame, {"mask_rle": counts.decode()})
            for frame, counts, area in zip(candidate.frame_idx, wanted.rle, wanted.area_px, strict=True)
            if area
        ]
        seconds = LOCATE_S + BRUSH_S * len(acts)
        made = replace(
            wanted,
            masklet_id=content_id(candidate.masklet_id, ticket.ticket_id, length=20),
            video_id=candidate.video_id,
            score=(1.0,) * len(wanted.frame_idx),
            object_score=tuple(1.0 if area else -1.0 for area in wanted.area_px),
            stability=(1.0,) * len(wanted.frame_idx),
            kind="manual",
            phase="1",
            round=candidate.round,
            checkpoint="by hand",
            prompt=candidate.prompt,
            edited_frame_count=len(acts),
            click_count=0,
        )
        tally = Tally(tracked=1, edited_frames=len(acts), annotated_frames=len(made.frame_idx), modelled_s=seconds)
        return made, acts, tally

    def _with_model(
        self, candidate: Masklet, target: Masklet, ticket: Ticket
    ) -> tuple[Masklet, list[NewOperation], Tally]:
        """Phases 2 and 3: correct the worst frame, propagate both ways, repeat.

        Phase 3 corrects with clicks. Phase 2, and phase 3 if the clicks are not enough, paint the frame from scratch.
        """
        from model.features import FeatureCache
        from model.tracker import Tracker, TrackerConfig

        video = self._video(candidate.video_id)
        hw = (video.height, video.width)
        wanted = _aligned(target, candidate.frame_idx)
        clicking = "click" in phases.phase(ticket.phase).propagates
        acts: list[NewOperation] = []
        edited: dict[int, int] = {}  # frame -> clicks
        current = candidate
        seconds = LOCATE_S
        with self._s.frames(video) as reader:
            tracker = Tracker(
                self._model(),
                FeatureCache(self._model(), reader.read, size=8),
                video_hw=hw,
                frame_count=video.frame_count,
                config=TrackerConfig(history_frames=None),
            )
            for _ in range(self._policy.corrections):
                seconds += WATCH_S * len(candidate.frame_idx)
                if edited and self._satisfied(current, target):
                    break
                frame = _worst(current, wanted, set(edited))
                if frame is None:
                    break
                truth = rle.decode(wanted.rle[candidate.frame_idx.index(frame)], *hw)
                corrections, edited[frame], brushed = self._corrected(tracker, frame, truth, clicking)
                acts += corrections
                seconds += CLICK_S * edited[frame] + (BRUSH_S if brushed else 0.0)
                begin = min(edited)
                current = _propagated(tracker, candidate, begin, video)
                acts.append(_act("propagate", begin, {"both_ways": bool(begin)}))
        current, painted = self._painted(current, wanted)
        acts += [_act("stroke", frame, {"mask_rle": counts.decode()}) for frame, counts in painted.items()]
        edited = {**dict.fromkeys(painted, 0), **edited}
        seconds += BRUSH_S * len(painted)
        made = replace(
            current,
            masklet_id=content_id(candidate.masklet_id, ticket.ticket_id, length=20),
            kind="manual",
            phase=ticket.phase,
            checkpoint=self._checkpoint,
            round=self._round,
            edited_frame_count=min(len(current.frame_idx), candidate.edited_frame_count + len(edited)),
            click_count=candidate.click_count + sum(edited.values()),
        )
        tally = Tally(
            tracked=1,
            clicks=sum(edited.values()),
            clicked_frames=sum(1 for clicks in edited.values() if clicks),
            edited_frames=len(edited),
            annotated_frames=len(made.frame_idx),
            modelled_s=seconds,
        )
        return made, acts, tally

    def _corrected(
        self, tracker: Tracker, frame: int, truth: Mask, clicking: bool
    ) -> tuple[list[NewOperation], int, bool]:
        """Corrects one frame: the operations, the number of clicks, and whether the mask was painted in the end."""
        acts: list[NewOperation] = []
        mask: Mask | None = None
        clicks = 0

        def ask(prompt: Prompt) -> Mask:
            answer: Mask = tracker.prompt("object", prompt).masks((truth.shape[0], truth.shape[1]))[0]
            return answer

        if clicking and truth.any():
            for prompt, answer in annotator.click_on(ask, frame, truth, self._policy.clicks_a_frame):
                mask, clicks = answer, clicks + 1
                points = {"points_xy": [list(p) for p in prompt.points_xy], "labels": list(prompt.labels)}
                acts.append(_act("prompt", frame, points))
        if mask is not None and overlap.mask_iou(mask, truth) >= self._policy.accept_frame:
            return acts, clicks, False
        counts = rle.encode(truth)  # the clicks were not enough: paint the frame
        tracker.prompt("object", Prompt(frame_idx=frame, mask_rle=counts))
        return [*acts, _act("stroke", frame, {"mask_rle": counts.decode()})], clicks, True

    def _painted(self, current: Masklet, wanted: Masklet) -> tuple[Masklet, dict[int, bytes]]:
        """The masklet with every wrong frame replaced by the truth, and the painted masks by frame."""
        shown = [i for i in range(len(current.rle)) if current.area_px[i] or wanted.area_px[i]]
        wrong = {i for i in shown if _frame_iou(current, wanted, i) <= self._policy.accept_frame}
        made = replace(
            current,
            rle=tuple(wanted.rle[i] if i in wrong else c for i, c in enumerate(current.rle)),
            area_px=tuple(wanted.area_px[i] if i in wrong else a for i, a in enumerate(current.area_px)),
            stability=tuple(1.0 if i in wrong else x for i, x in enumerate(current.stability)),
        )
        return made, {current.frame_idx[i]: wanted.rle[i] for i in sorted(wrong)}

    # ------------------------------------------------------------------------------------------------- what is true

    def _match(self, masklet: Masklet) -> tuple[Masklet | None, float]:
        """The true object of a masklet by its first visible frame, or None, and the IoU there."""
        best, found = 0.0, None
        for truth in self._truth(masklet.video_id):
            aligned = _aligned(truth, masklet.frame_idx)
            first = next((i for i, area in enumerate(masklet.area_px) if area), None)
            if first is None:
                continue
            iou = _frame_iou(masklet, aligned, first)
            if iou > best:
                best, found = iou, truth
        return (found, best) if best >= self._policy.same_object else (None, best)

    def _is_duplicate(self, ticket: Ticket, target: Masklet) -> bool:
        """Whether an earlier candidate showed the same object. Follow-up tickets of one candidate are no duplicates."""
        if ticket.attempt > 1 or not self._policy.one_each:
            return False
        key = (ticket.video_id, target.masklet_id)
        known = key in self._taken
        self._taken.add(key)
        return known

    def _satisfied(self, masklet: Masklet, target: Masklet) -> bool:
        ious = overlap.frame_ious(masklet, _aligned(target, masklet.frame_idx)).values()
        policy = self._policy
        return annotator.satisfied(
            list(ious), mean=policy.accept_mean, frame=policy.accept_frame, share=policy.accept_share
        )

    def _tries(self, client: QueueClient, ticket: Ticket) -> int:
        """How often this masklet was corrected: every second ticket in its chain is a track ticket."""
        return ticket.attempt // 2

    def _truth(self, video_id: str) -> list[Masklet]:
        if video_id not in self._truths:
            video = self._video(video_id)
            if video.truth_key is None:
                raise NoTruth(f"video {video_id} ({video.source_uri}) has no ground truth beside it")
            self._truths[video_id] = sav.from_sav(json.loads(self._s.blobs.read(video.truth_key)), video=video)
        return self._truths[video_id]

    def _video(self, video_id: str) -> Video:
        if video_id not in self._videos:
            self._videos[video_id] = self._s.video(video_id)
        return self._videos[video_id]

    def _model(self) -> LoadedModel:
        if self._loaded is None:
            checkpoint = self._s.checkpoint()
            self._loaded = self._s.model(checkpoint)
            self._checkpoint, self._round = checkpoint.name, checkpoint.round
        return self._loaded


class _Heartbeat:
    """Renews a lease from another thread. If the lease is lost anyway, the next write of the work fails."""

    def __init__(self, client: QueueClient, ticket: Ticket) -> None:
        self._client, self._ticket, self._done = client, ticket, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        with suppress(QueueError):
            while not self._done.wait(HEARTBEAT_S):
                self._client.heartbeat(self._ticket)


def _frame_iou(a: Masklet, b: Masklet, i: int) -> float:
    return overlap.rle_iou(a.rle[i], b.rle[i], a.height, a.width)


def _propagated(tracker: Tracker, candidate: Masklet, begin: int, video: Video) -> Masklet:
    """The candidate with the masks that the tracker gives, forwards and backwards from frame `begin`."""
    from model.masks import clean

    hw = (video.height, video.width)
    speck = propose.speck_px(hw)
    rows: dict[int, tuple[bytes, int, float, float, float]] = {}
    ways = [(video.frame_count, False), (-1, True)] if begin else [(video.frame_count, False)]
    for stop, reverse in ways:
        for answer in tracker.propagate(begin, stop, reverse=reverse):
            if answer.frame_idx % STRIDE:
                continue
            shown = clean(answer.masks(hw)[0], speck)
            area = int(shown.sum())
            stability = float(answer.stability()[0]) if area else 1.0
            scores = (float(answer.iou[0]), float(answer.object_score[0]), stability)
            rows[answer.frame_idx] = (rle.encode(shown), area, *scores)
    counts, areas, ious, object_scores, stabilities = zip(*(rows[f] for f in candidate.frame_idx), strict=True)
    return replace(candidate, rle=counts, area_px=areas, score=ious, object_score=object_scores, stability=stabilities)


def _worst(current: Masklet, wanted: Masklet, done: set[int]) -> int | None:
    """The frame to correct next: the lowest IoU among the frames that show the object or the masklet."""
    areas = zip(current.frame_idx, current.area_px, wanted.area_px, strict=True)
    overlaps = {
        frame: _frame_iou(current, wanted, i)
        for i, (frame, ours, true) in enumerate(areas)
        if true or (ours and done)  # the first prompt needs a frame that shows the object
    }
    return annotator.worst_frame(overlaps, done)


def _aligned(truth: Masklet, frame_idx: Sequence[int]) -> Masklet:
    """The truth on exactly these frames, with empty masks on frames without truth."""
    empty = rle.encode(np.zeros((truth.height, truth.width), bool))
    counts: Mapping[int, tuple[bytes, int]] = {
        f: (c, a) for f, c, a in zip(truth.frame_idx, truth.rle, truth.area_px, strict=True)
    }
    rows = [counts.get(f, (empty, 0)) for f in frame_idx]
    return replace(truth, frame_idx=tuple(frame_idx), rle=tuple(c for c, _ in rows), area_px=tuple(a for _, a in rows))


def _act(kind: str, frame_idx: int, payload: Mapping[str, object]) -> NewOperation:
    return NewOperation(
        operation_id=new_id(), kind=kind, created_at=now(), frame_idx=frame_idx, payload=json.dumps(payload)
    )


def as_json(tally: Tally) -> dict[str, object]:
    """The tally as plain data, with the ratios that SA-V reports."""
    frames = max(1, tally.annotated_frames)
    return asdict(tally) | {
        "verdicts": dict(tally.verdicts),
        "clicks_per_clicked_frame": tally.clicks / max(1, tally.clicked_frames),
        "edited_share": tally.edited_frames / frames,
    }
