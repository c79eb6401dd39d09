"""What people did on a batch, in numbers, and the modelled time of it. Pure: reads operations, no store."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from annotation_queue.effort import effort_of
from engine.protocols import effort
from storage.records import STRIDE, Operation


@dataclass(frozen=True, kw_only=True)
class Work:
    """What people did. Counts; a frame counts once for each masklet that it was worked on in."""

    watched_frames: int = 0  # stored frames: all of the video for a verdict, those that change for a propagation
    clicks: int = 0
    clicked_frames: int = 0
    painted_frames: int = 0  # with a stroke of the brush or the polygon
    absent_stretches: int = 0  # times that the object was marked as absent, each from a frame to another one

    @property
    def modelled_s(self) -> float:
        """Seconds by the time model of `engine.protocols.effort`; nothing is measured."""
        return effort.modelled_s(
            watched=self.watched_frames,
            located=self.clicked_frames + self.absent_stretches,
            clicks=self.clicks,
            painted=self.painted_frames,
        )

    def __add__(self, other: Work) -> Work:
        return Work(
            watched_frames=self.watched_frames + other.watched_frames,
            clicks=self.clicks + other.clicks,
            clicked_frames=self.clicked_frames + other.clicked_frames,
            painted_frames=self.painted_frames + other.painted_frames,
            absent_stretches=self.absent_stretches + other.absent_stretches,
        )


def of_operations(operations: Iterable[Operation], frame_counts: Mapping[str, int]) -> Work:
    """The work in these operations. frame_counts: stored frames of each video; other videos count as empty."""
    by_ticket: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_ticket[operation.ticket_id].append(operation)
    total = Work()
    for acts in by_ticket.values():
        acts.sort(key=lambda act: act.seq)
        stored = frame_counts.get(acts[0].video_id, 0)
        efforts = effort_of(acts, range(0, stored, STRIDE)).values()
        stops = dict(filter(None, map(_stop, acts)))
        total += Work(
            watched_frames=sum(_watched(act, stored, stops.get(act.operation_id)) for act in acts),
            clicks=sum(each.clicks for each in efforts),
            clicked_frames=sum(each.clicked_frames for each in efforts),
            painted_frames=len({act.frame_idx for act in acts if act.kind == "stroke"}),
            absent_stretches=sum(act.kind == "absent" for act in acts),
        )
    return total


def _stop(act: Operation) -> tuple[str, int] | None:
    """Of a "stop": the propagation that it ends, and the last frame that had come then."""
    payload = json.loads(act.payload) if act.kind == "stop" else {}
    about, last = payload.get("operation_id"), payload.get("last")
    return (about, last) if isinstance(about, str) and isinstance(last, int) else None


def _watched(act: Operation, stored: int, stopped: int | None) -> int:
    """The stored frames that a person watches for an operation.

    stored: those of the video. stopped: of a propagation, the last frame that had come when a person stopped it.
    """
    if act.kind == "verdict":
        return stored
    if act.kind != "propagate" or act.frame_idx is None or not stored:
        return 0
    payload = json.loads(act.payload)
    first, last = (bound if isinstance(bound := payload.get(key), int) else None for key in ("first", "last"))
    source, direction = act.frame_idx, payload.get("direction")
    if direction == "backward":
        first, last = last, None
    ahead = 0 if direction == "backward" else max(0, (stored - 1 if last is None else last) - source)
    behind = 0 if direction == "forward" else max(0, source - (0 if first is None else first))
    if stopped is None:
        return ahead + behind
    if direction != "backward" and stopped >= source:  # it tracks forward first
        return min(ahead, stopped - source)
    return ahead + min(behind, abs(source - stopped))
