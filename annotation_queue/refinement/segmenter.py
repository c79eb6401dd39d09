"""The model that answers in live refinement, as two protocols, and how a correction propagates.

`engine/serving/live_model.py` implements the protocols over the promoted checkpoint. Knows nothing about the database,
threads or HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Protocol

from annotation_queue.draft import Draft, FrameMask
from storage import iou
from storage.records import Prompt

# A propagation stops after this many frames in a row whose new mask has at least this IoU with the old one.
UNCHANGED_FRAMES = 5
UNCHANGED_IOU = 0.97


class PinnedCheckpoint(Protocol):
    """One checkpoint that answers. Called from one thread only.

    `click` and `track` answer in steps: they yield None where more urgent work may come between. They are closed early
    if nobody waits for the rest. The next call for a ticket comes after the last one has ended or was closed.
    """

    @property
    def checkpoint(self) -> str:
        """The name of the checkpoint."""

    @property
    def round(self) -> int:
        """The retraining round that made the checkpoint; 0 before the first."""

    def click(
        self, ticket_id: str, video_id: str, draft: Draft, prompt: Prompt, *, memory: bool
    ) -> Generator[FrameMask | None]:
        """Answers a prompt on its frame.

        memory: True uses the masks of the frames around it, too.
        Raises ValueError for a prompt that the model refuses.
        """

    def track(
        self, ticket_id: str, video_id: str, draft: Draft, source: int, frame_idx: Sequence[int]
    ) -> Generator[FrameMask | None]:
        """Tracks the object through frames, in the given order.

        source: a frame that has a mask; frame_idx leads away from it, forward or backward.
        """


class Segmenter(Protocol):
    """The model that refinement asks. Called from one thread only."""

    def load(self) -> None:
        """Loads the weights of the checkpoint that is promoted now."""

    def now(self) -> PinnedCheckpoint:
        """The checkpoint that answers now. The returned object keeps its checkpoint when another one is promoted."""

    def warm(self, video_id: str, frame_idx: Sequence[int]) -> Generator[None]:
        """Computes the embeddings of frames ahead, in steps and in the given order. Raises NoSuchVideo."""


def propagation(
    model: PinnedCheckpoint,
    ticket_id: str,
    video_id: str,
    draft: Draft,
    frame_idx: int,
    stretches: Sequence[Sequence[int]],
    made: Mapping[int, FrameMask],
) -> Generator[FrameMask | None]:
    """Tracks the frames that a correction on `frame_idx` affects, and yields None where other work may come between.

    Each stretch ends early where the new masks are the same as the old ones, unless a stale frame comes after that.
    stretches: see `Draft.stretches`.
    made: masks by frame that this propagation made before it was cut off. It goes on behind them.
    """
    for stretch in stretches:
        known = list(takewhile(made.__contains__, stretch))
        least = max((n for n, i in enumerate(stretch, start=1) if i in draft.stale), default=0)  # frames to be tracked
        same = 0
        for i in known:
            same = _same(same, draft, made[i])
        rest = stretch[len(known) :]
        if not rest or (same >= UNCHANGED_FRAMES and len(known) >= least):
            continue
        now = replace(draft, masks={**draft.masks, **made})
        with contextlib.closing(model.track(ticket_id, video_id, now, frame_idx, rest)) as tracked:
            count = len(known)
            for mask in tracked:
                yield mask
                if mask is None:
                    continue
                count, same = count + 1, _same(same, draft, mask)
                if same >= UNCHANGED_FRAMES and count >= least:
                    break


def _same(before: int, draft: Draft, mask: FrameMask) -> int:
    """How many frames in a row are unchanged with this mask. before: without it."""
    old = draft.masks.get(mask.frame_idx)
    if old is None or iou.rle_iou(old.rle, mask.rle, draft.height, draft.width) < UNCHANGED_IOU:
        return 0
    return before + 1
