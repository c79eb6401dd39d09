"""What an annotator did, counted from the operations: clicks, clicked frames and edited frames. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage.records import Operation


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What one person's operations in a track ticket cost."""

    clicks: int
    clicked_frames: int
    edited_frames: int


def effort_of(operations: Sequence[Operation], frames: Iterable[int]) -> dict[str, Effort]:
    """The effort of each person on a masklet. operations: of its ticket, in order. frames: its annotated frames.

    The figures and the published masklets use these definitions:

    - A click is a point that was placed or moved, or a box that was drawn. It still counts after an undo. A prompt
      holds every point on its frame; points that were there before are not counted again.
    - An edited frame ends with a prompt, a stroke or "absent" that was neither undone nor cleared, as in the draft. It
      counts for the person who edited it last.
    """
    done = [(operation, json.loads(operation.payload)) for operation in operations]
    clicks: dict[str, Counter[int]] = defaultdict(Counter)
    on_frame: dict[int, list[tuple[str, dict[str, object]]]] = defaultdict(list)  # prompts, and {} where they ended
    undone: set[object] = set()
    for o, payload in done:
        about = payload.get("operation_id")
        if o.kind in ("undo", "redo") and isinstance(about, str):
            (undone.add if o.kind == "undo" else undone.discard)(about)
        elif o.kind == "prompt" and o.frame_idx is not None:
            before = next((prompt for by, prompt in reversed(on_frame[o.frame_idx]) if by not in undone), {})
            clicks[o.person][o.frame_idx] += _clicks_from(before, payload)
            on_frame[o.frame_idx].append((o.operation_id, payload))
        elif o.kind in ("stroke", "clear") and o.frame_idx is not None:
            on_frame[o.frame_idx].append((o.operation_id, {}))
        elif o.kind == "absent":
            for frame in set(_emptied(payload, on_frame)):
                on_frame[frame].append((o.operation_id, {}))
    edited: dict[int, str] = {}
    locked: set[int] = set()
    annotated = sorted(frames)
    for o, payload in done:
        if o.operation_id in undone:
            continue
        if o.kind == "absent":
            edited |= dict.fromkeys(set(_emptied(payload, annotated)) - locked, o.person)
        elif o.frame_idx is None:
            continue
        elif o.kind == "lock":
            (locked.add if payload.get("on", True) else locked.discard)(o.frame_idx)
        elif o.kind in ("prompt", "stroke"):
            edited[o.frame_idx] = o.person
        elif o.kind == "clear":
            edited.pop(o.frame_idx, None)
    last = Counter(edited.values())
    return {
        person: Effort(
            clicks=clicks[person].total(),
            clicked_frames=sum(1 for n in clicks[person].values() if n),
            edited_frames=last[person],
        )
        for person in sorted({*clicks, *last})
    }


def _clicks_from(before: Mapping[str, object], now: Mapping[str, object]) -> int:
    """The clicks between two prompts of a frame. Removing points or keeping the box costs no click."""
    old, new = (len(points) if isinstance(points := prompt.get("points_xy"), list) else 0 for prompt in (before, now))
    boxes = int(bool(now.get("box_xyxy")) and now.get("box_xyxy") != before.get("box_xyxy"))
    moved = int(bool(new) and new == old and not boxes)
    return max(0, new - old) + moved + boxes


def _emptied(payload: Mapping[str, object], frames: Iterable[int]) -> list[int]:
    """The frames among `frames` that an "absent" operation covers; empty if its payload is malformed."""
    first, last = payload.get("first"), payload.get("last")
    if not isinstance(first, int) or not isinstance(last, int):
        return []
    return [frame for frame in frames if first <= frame <= last]
