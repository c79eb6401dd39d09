"""How a simulated annotator makes a correct masklet from a candidate: by hand, or with the model.

Knows the true masklet. Knows nothing about the queue, accounts or leases.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from annotation_queue.client import new_id, now
from annotation_queue.records import NewOperation, Ticket
from engine.candidates import finding
from engine.demo.annotator_policy import AnnotatorPolicy, aligned, iou_at
from engine.demo.tally import Tally
from engine.protocols import annotator
from engine.registry import Checkpoint
from engine.stages.work import Work
from storage import rle
from storage.iou import mask_iou
from storage.pixels import Mask
from storage.records import STRIDE, Masklet, Prompt, Video, content_id

if TYPE_CHECKING:
    from model.frame_masks import FrameMasks
    from model.tracker import Tracker


_OBJECT = "object"  # a ticket is about one object
_PATIENCE = 2  # frames in a row on which clicks were not enough, after which people paint
_T = TypeVar("_T")


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
    """Phases 2 and 3: an annotator corrects a masklet with the model, as on the review page.

    People watch the masks come, stop at the first wrong one, correct it and go on from there: the "online" way of Ravi
    et al. 2024. A place is an index into the annotated frames; the tracker sees only these, as in live refinement.

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
        self._target = aligned(target, candidate.frame_idx)
        self._hw = (video.height, video.width)
        self._policy, self._clicking = policy, clicking
        self._current = candidate
        self._operations: list[NewOperation] = []
        self._edited: dict[int, int] = {}  # place -> clicks
        self._not_enough = 0  # frames in a row on which the clicks were not enough
        self._work = Work()

    def correct(self) -> None:
        """Corrects the masklet until no frame is wrong, and until a reviewer is satisfied with all of them together.

        A blank one begins where the object is well seen and is followed both ways. Otherwise the frames before the
        first wrong one are right, and stay.
        """
        blank = not any(self._candidate.area_px)
        begin = self._well_seen() if blank else self._first_wrong()
        if begin is not None:
            self._remember_before(begin)
            self._follow(self._correct_at(begin, 1), 1)
            if blank:
                self._follow(begin, -1)
        self._improve(known=begin is not None)

    def _improve(self, known: bool) -> None:
        """Corrects the worst frames, each by itself, until the mean is good enough: frames that are right one by one
        may all be just above what counts as right.

        known: whether the tracker has the masklet in its memory.
        """
        while self._policy.margin(self._current, self._target) < 0:
            shown = [i for i, area in enumerate(self._target.area_px) if area]
            ious = {i: iou_at(self._current, self._target, i) for i in shown}
            worst = annotator.worst_frame(ious, done=self._edited)
            if worst is None:
                return
            if not known:
                self._remember_before(worst)
                known = True
            self._correct_at(worst, 1, least=self._policy.accept_mean)

    def result(self, ticket: Ticket, checkpoint: Checkpoint) -> Tracked:
        """The corrected masklet. checkpoint: that of the tracker."""
        frames = len(self._current.frame_idx)
        made = replace(
            self._current,
            masklet_id=content_id(self._candidate.masklet_id, ticket.ticket_id, length=20),
            kind="manual",
            phase=ticket.phase,
            checkpoint=checkpoint.name,
            round=checkpoint.round,
            edited_frame_count=min(frames, self._candidate.edited_frame_count + len(self._edited)),
            click_count=self._candidate.click_count + self._work.clicks,
        )
        tally = Tally(tracked=1, edited_frames=len(self._edited), annotated_frames=frames, work=self._work)
        return Tracked(made, self._operations, tally)

    def _well_seen(self) -> int:
        """The first place where the object is at least half as large as it ever is."""
        areas = self._target.area_px
        return next(i for i, area in enumerate(areas) if 2 * area >= max(areas))

    def _first_wrong(self) -> int | None:
        return next((i for i in range(len(self._current.rle)) if self._is_wrong(i)), None)

    def _is_wrong(self, place: int) -> bool:
        return iou_at(self._current, self._target, place) <= self._policy.accept_frame

    def _remember_before(self, place: int) -> None:
        """Puts the candidate's masks up to a place into the tracker's memory."""
        first = max(0, place - self._tracker.reach)
        known = {i: self._current.rle[i] for i in range(first, place + 1) if self._current.area_px[i]}
        if known:
            deque(self._tracker.recalling(_OBJECT, known, about=place), maxlen=0)

    def _follow(self, place: int, step: int) -> None:
        """Propagates from a place to the end of the video, or to its begin with step -1, and corrects on the way."""
        stopped: int | None = place
        while stopped is not None:
            stopped = self._propagate(place, step)
            if stopped is not None:
                place = self._correct_at(stopped, step)

    def _propagate(self, place: int, step: int) -> int | None:
        """Propagates from a place until a mask is wrong; returns its place. None: no mask was wrong."""
        end, last, wrong = len(self._current.rle) if step > 0 else -1, place, False
        if place + step == end:
            return None
        for answer in self._tracker.propagate(place + step, end, reverse=step < 0):
            last = answer.frame_idx
            self._put(last, self._cleaned(answer), answer)
            if wrong := self._is_wrong(last):
                break
        frames = self._candidate.frame_idx
        way = "forward" if step > 0 else "backward"
        self._operations.append(_operation("propagate", frames[place], {"direction": way, "last": frames[last]}))
        self._work += Work(watched_frames=abs(frames[last] - frames[place]))
        return last if wrong else None

    def _correct_at(self, place: int, step: int, least: float | None = None) -> int:
        """Corrects a place; returns the place to go on from, which is another one if the object is absent.

        least: IoU that clicks must exceed, or else the frame is painted. Default: that of a right frame.
        """
        least = self._policy.accept_frame if least is None else least
        truth = rle.decode(self._target.rle[place], *self._hw)
        if not truth.any():
            return self._mark_absent(place, step)
        enough = self._clicking and self._not_enough < _PATIENCE and self._click_at(place, truth, least)
        if not enough:
            counts = rle.encode(truth)
            self._put(place, truth, self._tracker.prompt(_OBJECT, Prompt(frame_idx=place, mask_rle=counts)))
            self._operations.append(_stroke(self._candidate.frame_idx[place], counts))
            self._edited.setdefault(place, 0)
            self._work += Work(painted_frames=1)
        return place

    def _click_at(self, place: int, truth: Mask, least: float) -> bool:
        """Clicks on a place, and takes back clicks that only made the mask worse. Returns whether it is right then."""
        shown = rle.decode(self._current.rle[place], *self._hw)
        answers: list[FrameMasks] = []

        def ask(prompt: Prompt) -> Mask:
            answers.append(self._tracker.prompt(_OBJECT, prompt))
            return self._cleaned(answers[-1])

        most, current = self._policy.clicks_a_frame, shown if shown.any() else None
        tried: list[tuple[float, Prompt, Mask]] = []
        for prompt, mask in annotator.click_on(ask, place, truth, most, current):
            iou = mask_iou(mask, truth)
            tried.append((iou, prompt, mask))
            self._operations.append(_clicks(self._candidate.frame_idx[place], prompt))
            highest = max(each[0] for each in tried)
            if iou >= self._policy.accept_mean or iou < highest > self._policy.accept_frame:
                break  # very good, because other frames follow from this one; or good, and clicks no longer help
        best = max(range(len(tried)), key=lambda i: tried[i][0])
        iou, prompt, mask = tried[best]
        enough = iou > least
        if enough and best < len(tried) - 1:
            self._operations.append(_clicks(self._candidate.frame_idx[place], prompt))
            self._tracker.prompt(_OBJECT, Prompt(frame_idx=place, mask_rle=rle.encode(mask)))
        self._put(place, mask, answers[best])
        self._edited[place] = len(tried)
        self._work += Work(clicks=len(tried), clicked_frames=1)
        self._not_enough = 0 if enough else self._not_enough + 1
        return enough

    def _mark_absent(self, place: int, step: int) -> int:
        """Marks the object as absent from a place on, as long as it is; returns the last place of that."""
        empty = rle.empty(*self._hw)
        answer = self._tracker.prompt(_OBJECT, Prompt(frame_idx=place, mask_rle=empty))
        last = place
        while 0 <= last + step < len(self._target.rle) and not self._target.area_px[last + step]:
            last += step
        for i in range(min(place, last), max(place, last) + 1):
            self._put(i, np.zeros(self._hw, bool), answer)
            self._edited.setdefault(i, 0)
        first, final = sorted((self._candidate.frame_idx[place], self._candidate.frame_idx[last]))
        self._operations.append(_operation("absent", None, {"first": first, "last": final}))
        self._work += Work(absent_stretches=1)
        return last

    def _cleaned(self, answer: FrameMasks) -> Mask:
        from model import masks

        return masks.clean(answer.masks(self._hw)[0], finding.speck_px(self._hw))

    def _put(self, place: int, mask: Mask, answer: FrameMasks) -> None:
        """Puts the mask of a place, with the model's estimates of its answer, into the masklet."""
        estimates, now, area = answer.estimates(), self._current, int(mask.sum())
        self._current = replace(
            now,
            rle=_with(now.rle, place, rle.encode(mask)),
            area_px=_with(now.area_px, place, area),
            score=_with(now.score, place, estimates.iou[0]),
            object_score=_with(now.object_score, place, estimates.object_score[0]),
            stability=_with(now.stability, place, estimates.stability[0] if area else 1.0),
        )


def _with(values: tuple[_T, ...], place: int, value: _T) -> tuple[_T, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _stroke(frame_idx: int, counts: bytes) -> NewOperation:
    """The operation that paints a whole mask."""
    return _operation("stroke", frame_idx, {"mask_rle": counts.decode()})


def _clicks(frame_idx: int, prompt: Prompt) -> NewOperation:
    """The operation that says which clicks a frame has now."""
    points = {"points_xy": [list(point) for point in prompt.points_xy], "labels": list(prompt.labels)}
    return _operation("prompt", frame_idx, points)


def _operation(kind: str, frame_idx: int | None, payload: Mapping[str, object]) -> NewOperation:
    return NewOperation(
        operation_id=new_id(), kind=kind, created_at=now(), frame_idx=frame_idx, payload=json.dumps(payload)
    )
