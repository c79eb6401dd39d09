"""How a simulated annotator makes a correct masklet from a candidate: by hand, or with the model.

Knows the true masklet. Knows nothing about the queue, accounts or leases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from annotation_queue.client import new_id, now
from annotation_queue.records import NewOperation, Ticket
from engine.demo.annotator_policy import AnnotatorPolicy, aligned, iou_at
from engine.demo.tally import Tally
from engine.protocols import annotator
from engine.registry import Checkpoint
from engine.stages import propose
from engine.stages.work import Work
from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import STRIDE, Masklet, Prompt, Video, content_id

if TYPE_CHECKING:
    from model.tracker import Tracker


_PATIENCE = 2  # corrections in a row that helped no other frame, after which people paint the rest


@dataclass(frozen=True)
class Tracked:
    """The result of a track ticket."""

    masklet: Masklet
    operations: list[NewOperation]
    tally: Tally


def by_hand(candidate: Masklet, target: Masklet, ticket: Ticket) -> Tracked:
    """Phase 1: every annotated frame that shows the object is painted; nothing propagates."""
    wanted = aligned(target, candidate.frame_idx)
    strokes = [
        _stroke(frame, counts)
        for frame, counts, area in zip(candidate.frame_idx, wanted.rle, wanted.area_px, strict=True)
        if area
    ]
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
        edited_frame_count=len(strokes),
        click_count=0,
    )
    tally = Tally(
        tracked=1,
        edited_frames=len(strokes),
        annotated_frames=len(made.frame_idx),
        work=Work(painted_frames=len(strokes)),
    )
    return Tracked(made, strokes, tally)


def blank(video: Video, ticket: Ticket) -> Masklet:
    """A masklet without any mask, to begin an object that no candidate shows."""
    frames = tuple(range(0, video.frame_count, STRIDE))
    return Masklet(
        masklet_id=ticket.ticket_id,
        video_id=video.video_id,
        batch_id=video.batch_id,
        height=video.height,
        width=video.width,
        frame_idx=frames,
        rle=(rle.empty(video.height, video.width),) * len(frames),
        area_px=(0,) * len(frames),
        score=(1.0,) * len(frames),
        object_score=(-1.0,) * len(frames),
        stability=(1.0,) * len(frames),
        kind="manual",
        phase=ticket.phase,
        round=0,
        checkpoint="by hand",
        prompt="{}",
        split=video.split,
    )


class Correction:
    """Phases 2 and 3: a masklet while an annotator corrects it with the model.

    clicking: phase 3 corrects a frame with clicks. Phase 2, and phase 3 if the clicks are not enough, paints the frame.
    """

    def __init__(
        self,
        tracker: Tracker,
        video: Video,
        candidate: Masklet,
        target: Masklet,
        policy: AnnotatorPolicy,
        *,
        clicking: bool,
    ) -> None:
        self._tracker, self._video, self._candidate = tracker, video, candidate
        self._target, self._wanted = target, aligned(target, candidate.frame_idx)
        self._policy, self._clicking = policy, clicking
        self._current = candidate
        self._operations: list[NewOperation] = []
        self._edited: dict[int, int] = {}  # frame -> clicks
        self._painted: set[int] = set()  # frames
        self._propagations = 0

    def correct(self) -> None:
        """Corrects the worst frame and propagates both ways, again and again; then paints the frames still wrong.

        People stop earlier if the model was no help twice in a row: the clicks on a frame were not enough, and what
        they painted instead made no other frame right.
        """
        wrong, useless = len(self._wrong()), 0
        for _ in range(self._policy.corrections):
            if self._edited and self._policy.satisfied(self._current, self._target):
                break
            frame = _worst(self._current, self._wanted, set(self._edited))
            if frame is None:
                break
            painted = self._correct_frame(frame)
            begin = min(self._edited)
            self._current = _propagated(self._tracker, self._candidate, begin, self._video)
            self._operations.append(_operation("propagate", begin, {"direction": "both" if begin else "forward"}))
            self._propagations += 1
            before, wrong = wrong, len(self._wrong())
            useless = useless + 1 if painted and wrong >= before - 1 else 0
            if useless == _PATIENCE:
                break
        self._paint_wrong_frames()

    def result(self, ticket: Ticket, checkpoint: Checkpoint) -> Tracked:
        """The corrected masklet. checkpoint: that of the tracker."""
        clicks = sum(self._edited.values())
        frames = len(self._current.frame_idx)
        made = replace(
            self._current,
            masklet_id=content_id(self._candidate.masklet_id, ticket.ticket_id, length=20),
            kind="manual",
            phase=ticket.phase,
            checkpoint=checkpoint.name,
            round=checkpoint.round,
            edited_frame_count=min(frames, self._candidate.edited_frame_count + len(self._edited)),
            click_count=self._candidate.click_count + clicks,
        )
        tally = Tally(
            tracked=1,
            edited_frames=len(self._edited),
            annotated_frames=frames,
            work=Work(
                watched_frames=self._propagations * self._video.frame_count,
                clicks=clicks,
                clicked_frames=sum(1 for count in self._edited.values() if count),
                painted_frames=len(self._painted),
            ),
        )
        return Tracked(made, self._operations, tally)

    def _correct_frame(self, frame: int) -> bool:
        """Clicks on one frame, and paints it if the clicks are not enough. Returns whether it was painted."""
        hw = (self._video.height, self._video.width)
        place = self._candidate.frame_idx.index(frame)
        truth = rle.decode(self._wanted.rle[place], *hw)
        # The first prompt starts the track anew; later ones correct the mask that was tracked.
        tracked = rle.decode(self._current.rle[place], *hw) if self._edited else None
        mask: Mask | None = None
        clicks = 0

        def ask(prompt: Prompt) -> Mask:
            answer: Mask = self._tracker.prompt("object", prompt).masks(hw)[0]
            return answer

        if self._clicking and truth.any():
            for prompt, answer in annotator.click_on(ask, frame, truth, self._policy.clicks_a_frame, tracked):
                mask, clicks = answer, clicks + 1
                points = {"points_xy": [list(p) for p in prompt.points_xy], "labels": list(prompt.labels)}
                self._operations.append(_operation("prompt", frame, points))
                if mask_iou(answer, truth) >= self._policy.accept_mean:  # other frames follow from this one
                    break
        self._edited[frame] = clicks
        if mask is not None and mask_iou(mask, truth) >= self._policy.accept_frame:
            return False
        counts = rle.encode(truth)
        self._tracker.prompt("object", Prompt(frame_idx=frame, mask_rle=counts))
        self._operations.append(_stroke(frame, counts))
        self._painted.add(frame)
        return True

    def _wrong(self) -> set[int]:
        """The places of the frames whose mask is not right."""
        current, wanted = self._current, self._wanted
        shown = [i for i in range(len(current.rle)) if current.area_px[i] or wanted.area_px[i]]
        return {i for i in shown if iou_at(current, wanted, i) <= self._policy.accept_frame}

    def _paint_wrong_frames(self) -> None:
        """Replaces the mask of every wrong frame by the true one."""
        current, wanted, wrong = self._current, self._wanted, self._wrong()
        self._current = replace(
            current,
            rle=tuple(wanted.rle[i] if i in wrong else c for i, c in enumerate(current.rle)),
            area_px=tuple(wanted.area_px[i] if i in wrong else a for i, a in enumerate(current.area_px)),
            stability=tuple(1.0 if i in wrong else x for i, x in enumerate(current.stability)),
        )
        for i in sorted(wrong):
            self._operations.append(_stroke(current.frame_idx[i], wanted.rle[i]))
            self._edited.setdefault(current.frame_idx[i], 0)
            self._painted.add(current.frame_idx[i])


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
            estimates = answer.estimates()
            stability = estimates.stability[0] if area else 1.0
            scores = (estimates.iou[0], estimates.object_score[0], stability)
            rows[answer.frame_idx] = (rle.encode(shown), area, *scores)
    counts, areas, ious, object_scores, stabilities = zip(*(rows[f] for f in candidate.frame_idx), strict=True)
    return replace(candidate, rle=counts, area_px=areas, score=ious, object_score=object_scores, stability=stabilities)


def _worst(current: Masklet, wanted: Masklet, done: set[int]) -> int | None:
    """The frame to correct next: the lowest IoU among the frames that show the object or the masklet."""
    areas = zip(current.frame_idx, current.area_px, wanted.area_px, strict=True)
    ious = {
        frame: iou_at(current, wanted, i)
        for i, (frame, ours, true) in enumerate(areas)
        if true or (ours and done)  # the first prompt needs a frame that shows the object
    }
    return annotator.worst_frame(ious, done)


def _stroke(frame_idx: int, counts: bytes) -> NewOperation:
    """The operation that paints a whole mask."""
    return _operation("stroke", frame_idx, {"mask_rle": counts.decode()})


def _operation(kind: str, frame_idx: int, payload: Mapping[str, object]) -> NewOperation:
    return NewOperation(
        operation_id=new_id(), kind=kind, created_at=now(), frame_idx=frame_idx, payload=json.dumps(payload)
    )
