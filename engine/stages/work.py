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
        total += Work(
            watched_frames=sum(_watched(act, stored) for act in acts),
            clicks=sum(each.clicks for each in efforts),
            clicked_frames=sum(each.clicked_frames for each in efforts),
            painted_frames=len({act.frame_idx for act in acts if act.kind == "stroke"}),
            absent_stretches=sum(act.kind == "absent" for act in acts),
        )
    return total


def _watched(act: Operation, stored: int) -> int:
    """The stored frames that a person watches for an operation. stored: those of the video."""
    if act.kind == "verdict":
        return stored
    if act.kind != "propagate" or act.frame_idx is None or not stored:
        return 0
    payload = json.loads(act.payload)
    ends = {"forward": (act.frame_idx, stored - 1), "backward": (0, act.frame_idx)}
    first, last = ends.get(str(payload.get("direction")), (0, stored - 1))
    stopped = payload.get("last")
    return abs(stopped - act.frame_idx) if isinstance(stopped, int) else last - first
