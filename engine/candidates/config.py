"""Every choice that shapes the candidates of a video. It is saved with each candidate."""

from __future__ import annotations

from dataclasses import dataclass

from storage.records import STRIDE


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """When objects are searched, which ones are new, and which candidates show the same object. Times in seconds."""

    max_objects: int  # most objects that are tracked in one window
    step: int = 1  # every `step`-th frame is tracked: 1, 2 or 4
    window_s: float = 20.0  # longest window
    keyframe_s: float | None = 1.0  # from one keyframe to the next; None: the first frame of a window is its only one
    least_gap_s: float = 0.5  # no keyframe sooner than this after another one
    # Before its time comes a keyframe: where the uncovered share of the frame grows by `uncovered_jump`, or a frame
    # changes by `change_jump` times the window's median.
    uncovered_jump: float = 0.1
    change_jump: float = 4.0
    late_rank: float = 0.0  # least rank of a new object, see `Seed`
    least_uncovered: float = 0.02  # share of the frame; with less, a keyframe is not searched
    background: float = 0.3  # share of the frame; a larger mask covers nothing, because objects move in front of it
    same_object: float = 0.5  # IoU of two masks of one frame, from which on they show the same object
    inside: float = 0.8  # share of a mask inside another one, from which on it is a part of it
    survive: int = 1  # at so many of the next keyframes a new object must be found again
    within: int = 1  # these keyframes
    on_probation: int = 3  # most new objects that wait for the next keyframe
    same_masklet: float = 0.8  # IoU of two masklets, above which they are duplicates
    alike_frames: int = 3  # annotated frames after which only one of two such objects is tracked on

    def __post_init__(self) -> None:
        if self.step not in (1, 2, STRIDE):
            raise ValueError(f"step must be 1, 2 or {STRIDE}, got {self.step}")
        if not 1 <= self.survive <= self.within:
            raise ValueError(f"survive must be 1 to within, got {self.survive} within {self.within}")
