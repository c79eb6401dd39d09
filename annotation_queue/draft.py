"""Live refinement: what a track ticket holds after its operations, and the turns that people take at the model.

Masks are never edited: each operation that makes some (a click, a stroke, a propagation) has a version, the masks that
it made, and a ticket's draft follows from its operations and versions alone. So undo, a reload and another server
process all give the same masks without the model. The model itself is behind `Segmenter`; one thread serves everybody:
clicks first, propagations a frame at a time in turn, embeddings ahead when nothing else waits.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import isfinite
from typing import Any, Protocol

from pydantic import TypeAdapter

from annotation_queue.records import Masklet, Operation
from storage import rle
from storage.records import Prompt

UNCHANGED = 0.97  # IoU with the mask that was there: a propagation that finds this
UNCHANGED_FRAMES = 5  # frames in a row has come to where the correction changes nothing
CLICK, PROPAGATE, WARM = 0, 1, 2  # whose turn comes first


@dataclass(frozen=True, kw_only=True)
class FrameMask:
    """The object's mask on one annotated frame."""

    frame_idx: int
    rle: bytes  # COCO counts at the video's size; all zero where the object is absent
    area_px: int
    score: float  # predicted IoU, the model's own estimate; 1 for what a person drew
    object_score: float  # presence logit, > 0 is present
    stability: float

    def __post_init__(self) -> None:
        if not all(map(isfinite, (self.score, self.object_score, self.stability))):  # JSON could not hold it
            raise ValueError(f"frame {self.frame_idx}: the model's scores are not finite")


@dataclass(frozen=True, kw_only=True)
class Version:
    """The masks that one operation made, and which checkpoint made them."""

    operation_id: str
    frames: tuple[FrameMask, ...]
    checkpoint: str
    round: int


VERSION: TypeAdapter[Version] = TypeAdapter(Version)


@dataclass
class Draft:
    """A ticket's masklet as it stands."""

    height: int
    width: int
    frame_idx: tuple[int, ...]  # the annotated frames
    masks: dict[int, FrameMask] = field(default_factory=dict)  # a frame that nobody has masked yet is missing
    prompts: dict[int, Prompt] = field(default_factory=dict)  # the clicks and the box that stand on a frame
    edited: set[int] = field(default_factory=set)  # frames that a person touched
    locked: set[int] = field(default_factory=set)
    anchor: int | None = None  # the frame on which the candidate was prompted

    def known(self, source: int | None = None) -> dict[int, FrameMask]:
        """The masks that condition the others: what a person made or locked, the candidate's first, and `source`."""
        frames = self.edited | self.locked | {i for i in (self.anchor, source) if i is not None}
        return {i: self.masks[i] for i in sorted(frames) if i in self.masks}

    def stretch(self, frame_idx: int, *, forward: bool) -> tuple[int, ...]:
        """The frames that a propagation from `frame_idx` goes through: up to the next one that a person settled."""
        if forward:
            order = [i for i in self.frame_idx if i > frame_idx]
        else:
            order = [i for i in reversed(self.frame_idx) if i < frame_idx]
        wall = next((n for n, i in enumerate(order) if i in self.edited or i in self.locked), len(order))
        return tuple(order[:wall])


def effective(operations: Sequence[Operation]) -> list[Operation]:
    """The operations that stand, in order: without undone ones, and without undo and redo themselves."""
    undone: set[str] = set()
    for operation in operations:
        if operation.kind not in ("undo", "redo"):
            continue
        about = json.loads(operation.payload).get("operation_id")
        if isinstance(about, str):  # a malformed one takes nothing back
            (undone.add if operation.kind == "undo" else undone.discard)(about)
    return [o for o in operations if o.operation_id not in undone and o.kind not in ("undo", "redo")]


def draft_of(
    hw: tuple[int, int],
    frame_idx: Sequence[int],
    masklet: Masklet | None,
    operations: Sequence[Operation],
    versions: Mapping[str, Version],
) -> Draft:
    """The draft that follows from a ticket's masklet, operations (in order) and versions (by operation)."""
    draft = Draft(hw[0], hw[1], tuple(frame_idx))
    if masklet is not None:
        draft.masks = {m.frame_idx: m for m in frame_masks(masklet)}
        malformed = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
        with contextlib.suppress(*malformed):  # a prompt that says no such frame
            begun = json.loads(masklet.prompt)["frame_idx"]
            draft.anchor = begun if draft.masks[begun].area_px else None
    for operation in effective(operations):
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):  # a malformed act changes nothing
            _apply(draft, operation, versions.get(operation.operation_id))
    return draft


def frame_masks(masklet: Masklet) -> list[FrameMask]:
    """A masklet's masks, frame by frame."""
    columns = zip(
        masklet.frame_idx,
        masklet.rle,
        masklet.area_px,
        masklet.score,
        masklet.object_score,
        masklet.stability,
        strict=True,
    )
    return [
        FrameMask(frame_idx=i, rle=counts, area_px=area, score=score, object_score=present, stability=stability)
        for i, counts, area, score, present, stability in columns
    ]


def drawn(frame_idx: int, counts: bytes, hw: tuple[int, int]) -> FrameMask:
    """A mask that a person drew; an empty one says that the object is absent."""
    area = rle.area(counts, *hw)
    return FrameMask(
        frame_idx=frame_idx,
        rle=counts,
        area_px=area,
        score=1.0,
        object_score=10.0 if area else -10.0,
        stability=1.0,
    )


def beside(draft: Draft, made: Masklet) -> dict[int, bytes]:
    """The masks of a masklet that are not those of the draft, by frame. A frame without a mask shows no object."""
    nothing = rle.empty(draft.height, draft.width)
    masks = dict(zip(made.frame_idx, made.rle, strict=True))
    before = {i: mask.rle for i, mask in draft.masks.items()}
    frames = sorted(masks.keys() | before.keys())
    return {i: masks.get(i, nothing) for i in frames if masks.get(i, nothing) != before.get(i, nothing)}


def _apply(draft: Draft, operation: Operation, version: Version | None) -> None:
    said, frame = json.loads(operation.payload), operation.frame_idx
    hw = (draft.height, draft.width)
    if operation.kind == "lock" and frame is not None:
        (draft.locked.add if said.get("on", True) else draft.locked.discard)(frame)
    elif operation.kind == "absent":
        nothing = rle.empty(*hw)
        for i in draft.frame_idx:
            if said["first"] <= i <= said["last"] and i not in draft.locked:
                draft.masks[i] = drawn(i, nothing, hw)
                draft.prompts.pop(i, None)
                draft.edited.add(i)
    elif operation.kind == "stroke" and frame is not None:
        counts = said["mask_rle"].encode()
        if problem := rle.check(counts, *hw):
            raise ValueError(problem)
        draft.masks[frame] = drawn(frame, counts, hw)
        draft.prompts.pop(frame, None)
        draft.edited.add(frame)
    elif operation.kind == "submit":
        for i, counts in said.get("masks", {}).items():  # that did not follow from the operations before
            if not rle.check(counts.encode(), *hw):
                draft.masks[int(i)] = drawn(int(i), counts.encode(), hw)
    elif operation.kind == "clear" and frame is not None:
        draft.prompts.pop(frame, None)
        draft.edited.discard(frame)
    elif operation.kind == "prompt" and frame is not None and version is not None:
        draft.prompts[frame] = prompt_of(frame, said)
        draft.edited.add(frame)
    if version is not None:
        draft.masks |= {m.frame_idx: m for m in version.frames}


def prompt_of(frame_idx: int, said: Mapping[str, Any]) -> Prompt:
    """A prompt operation's payload as a Prompt. Raises ValueError for one that is malformed."""
    try:
        points = tuple((float(x), float(y)) for x, y in said.get("points_xy") or ())
        labels = tuple(int(label) for label in said.get("labels") or ())
        box = said.get("box_xyxy")
        corners = None if box is None else tuple(float(v) for v in box)
        mask = said.get("mask_rle")
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"not a prompt: {json.dumps(said)[:120]}") from None
    finite = all(map(isfinite, chain(*points, corners or ())))
    if not finite or len(points) != len(labels) or (corners is not None and len(corners) != 4):
        raise ValueError(f"not a prompt: {json.dumps(said)[:120]}")
    return Prompt(
        frame_idx=frame_idx,
        points_xy=points,
        labels=labels,
        box_xyxy=corners,
        mask_rle=mask.encode() if isinstance(mask, str) else None,
    )


class Pinned(Protocol):
    """One checkpoint, as refinement asks it. Called from one thread only.

    Both answer in steps: None wherever more urgent work may come between. They are closed when nobody waits for the
    rest; then, or when they are done, the next one of the same ticket may begin.
    """

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint that answers."""

    @property
    def round(self) -> int:
        """The retraining round that made it; 0 before the first."""

    def click(
        self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool
    ) -> Generator[FrameMask | None]:
        """Answers a prompt on its frame; with `memory`, in the light of the masks around it.

        Raises ValueError for a prompt that the model refuses.
        """

    def track(
        self, ticket_id: str, video_id: str, draft: Draft, source: int, frame_idx: Sequence[int]
    ) -> Generator[FrameMask | None]:
        """The masks of these frames, in this order, which leads away from `source`, a frame that has a mask."""


class Segmenter(Protocol):
    """The model, as refinement needs it. Called from one thread only."""

    def load(self) -> None:
        """Load the weights ahead: those that should answer now."""

    def now(self) -> Pinned:
        """What answers from now on. It stays the same checkpoint when another one is loaded."""

    def warm(self, video_id: str, frame_idx: Sequence[int]) -> Generator[None]:
        """Compute the embeddings of frames ahead, in steps, the first ones first. Raises NoSuchVideo."""


def propagation(
    model: Pinned, ticket_id: str, video_id: str, draft: Draft, frame_idx: int, direction: str
) -> Generator[FrameMask | None]:
    """Re-tracks what a correction on `frame_idx` affects. direction: "forward", "backward" or "both".

    None wherever more urgent work may come between. It ends at the next frame that a person settled, or where the masks
    that are there come out again.
    """
    if frame_idx not in draft.masks:
        raise ValueError(f"frame {frame_idx} has no mask yet: nothing to propagate")
    for forward in (True, False):
        if direction not in ("both", "forward" if forward else "backward"):
            continue
        same = 0
        stretch = draft.stretch(frame_idx, forward=forward)
        with contextlib.closing(model.track(ticket_id, video_id, draft, frame_idx, stretch)) as tracked:
            for made in tracked:
                yield made
                if made is None:
                    continue
                before = draft.masks.get(made.frame_idx)
                same = same + 1 if before is not None and _unchanged(before, made, draft) else 0
                if same == UNCHANGED_FRAMES:
                    break


def _unchanged(before: FrameMask, after: FrameMask, draft: Draft) -> bool:
    if not before.area_px or not after.area_px:
        return before.area_px == after.area_px
    return float(rle.iou([before.rle], [after.rle], draft.height, draft.width)[0, 0]) >= UNCHANGED


class Job:
    """Work for the model that comes in steps. `cancel` takes effect before the next step."""

    def __init__(self, steps: Generator[None], priority: int, done: Callable[[BaseException | None], None]) -> None:
        self._steps, self.priority, self._done = steps, priority, done
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ends the job; `done` is told of a Cancelled."""
        self._cancelled.set()

    def step(self) -> bool:
        """One step, or the end of what was cancelled; False once it has ended."""
        error: BaseException | None = Cancelled()
        try:
            if not self._cancelled.is_set():
                next(self._steps)
                return True
            self._steps.close()
        except StopIteration:
            error = None
        except BaseException as raised:
            error = raised
        self._done(error)
        return False


class Cancelled(Exception):
    """The job was cancelled."""


class Turns:
    """One thread that takes steps of jobs: the most urgent first, jobs of the same urgency in turn.

    Nobody's work waits longer than one step of somebody else's less urgent work. At most one warming at a time for
    each `who`: a new one takes the place of the old.
    """

    def __init__(self) -> None:
        self._jobs: list[tuple[int, int, Job]] = []
        self._count = 0
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._warming: dict[str, Job] = {}

    def stream(
        self,
        frames: Generator[FrameMask | None],
        each: Callable[[FrameMask], None],
        done: Callable[[BaseException | None], None],
        *,
        urgent: bool = False,
    ) -> Job:
        """Masks one by one: `each` is called with every frame, `done` once at the end; both in the model's thread.

        frames: None is a step without a mask; closed there, too, when the job is cancelled. urgent: a click, which
        somebody waits for.
        """

        def steps() -> Generator[None]:
            with contextlib.closing(frames):
                for made in frames:
                    if made is not None:
                        each(made)
                    yield None

        job = Job(steps(), CLICK if urgent else PROPAGATE, done)
        self._add(job)
        return job

    def warm(self, who: str, steps: Generator[None]) -> None:
        """Work for idle moments."""
        job = Job(steps, WARM, lambda error: None)
        with self._ready:
            if (old := self._warming.get(who)) is not None:
                old.cancel()
            self._warming[who] = job
            if len(self._warming) > 1000:
                del self._warming[next(iter(self._warming))]
        self._add(job)

    def close(self) -> None:
        """Ends the thread after the step that it is in; jobs that are left are told that they are cancelled."""
        with self._ready:
            self._closed = True
            self._ready.notify()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _add(self, job: Job) -> None:
        with self._ready:
            if self._closed:
                raise Cancelled("the server is stopping")
            self._count += 1
            heapq.heappush(self._jobs, (job.priority, self._count, job))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="model", daemon=True)
                self._thread.start()
            self._ready.notify()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._jobs and not self._closed:
                    self._ready.wait()
                if not self._jobs:
                    return
                _, _, job = heapq.heappop(self._jobs)
                if self._closed:
                    job.cancel()
            if job.step():
                try:
                    self._add(job)
                except Cancelled:
                    job.cancel()
                    job.step()
