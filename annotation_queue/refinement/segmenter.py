"""The model that answers in live refinement, as two protocols, and how a correction propagates.

`engine/serving/live_model.py` implements the protocols over the promoted checkpoint. Knows nothing about the database,
threads or HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
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
    model: PinnedCheckpoint, ticket_id: str, video_id: str, draft: Draft, frame_idx: int, direction: str
) -> Generator[FrameMask | None]:
    """Tracks the frames that a correction on `frame_idx` affects, and yields None where other work may come between.

    It ends before the next frame that a person settled, or where the new masks are the same as the old ones.
    direction: "forward", "backward" or "both".
    Raises ValueError if the frame has no mask.
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
    return iou.rle_iou(before.rle, after.rle, draft.height, draft.width) >= UNCHANGED_IOU
