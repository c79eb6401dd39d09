"""A simulated annotator: decides which frame to correct and where to click, from the true masks.

Works on masks only; knows nothing about tickets or the queue. The caller decides when a masklet is good enough. The
first click goes to the middle of the object, the next ones to the middle of the largest error. Source: Ravi et al.
2024, section 6 and appendix F.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from storage import rle
from storage.pixels import Mask
from storage.records import Prompt

if TYPE_CHECKING:
    from model.tracker import Tracker

# IoU above which a mask counts as right; a frame below it is corrected. The alignment threshold of Ravi et al. 2024.
GOOD = 0.75

Ask = Callable[[Prompt], Mask]  # returns the model's mask for a prompt


def worst_frame(ious: Mapping[int, float], done: Collection[int]) -> int | None:
    """The frame with the lowest IoU among those not done; the first one if several are equal. None if all are done."""
    left = {frame: iou for frame, iou in ious.items() if frame not in done}
    return min(left, key=lambda frame: (left[frame], frame), default=None)


def margin(ious: Collection[float], *, mean: float, frame: float, share: float) -> float:
    """Distance to the thresholds: the smaller of the two margins. Negative if a threshold is missed.

    The margins: the mean IoU minus `mean`, and the share of the frames with an IoU above `frame` minus `share`.
    -1 if there are no frames.
    """
    if not ious:
        return -1.0
    right = sum(iou > frame for iou in ious) / len(ious)
    return min(sum(ious) / len(ious) - mean, right - share)


def click_on(
    ask: Ask, frame_idx: int, target: Mask, most: int, mask: Mask | None = None
) -> Iterator[tuple[Prompt, Mask]]:
    """Clicks on one frame: yields each prompt and the model's answer. A prompt repeats the earlier clicks.

    most: maximum number of clicks.
    target: the true mask.  mask: the mask to correct; None: the first click goes to the middle of the object.
    Stops early when the mask has no error left.
    """
    from model import simulated_clicks

    points: list[tuple[float, float]] = []
    labels: list[int] = []
    for _ in range(most):
        if mask is None:
            click = simulated_clicks.first_click(target)
        else:
            click = simulated_clicks.corrective_click(mask, target)
        if click is None:
            return
        points.append(click[0])
        labels.append(click[1])
        prompt = Prompt(frame_idx=frame_idx, points_xy=tuple(points), labels=tuple(labels))
        mask = ask(prompt)
        yield prompt, mask


def prompt_object(
    tracker: Tracker, name: str, frame_idx: int, target: Mask, clicks: int, mask: Mask | None = None
) -> int:
    """Prompts an object on one frame with its true mask, its box, or clicks.

    clicks: maximum number of clicks; 0: the true mask instead; -1: the box.
    mask: the mask to correct; None: the first click goes to the middle of the object.
    Returns the number of clicks made.
    """
    from model import simulated_clicks

    if clicks == 0:
        tracker.prompt(name, Prompt(frame_idx=frame_idx, mask_rle=rle.encode(target)))
        return 0
    if clicks < 0:
        tracker.prompt(name, Prompt(frame_idx=frame_idx, box_xyxy=simulated_clicks.box_of(target)))
        return 0

    def ask(prompt: Prompt) -> Mask:
        answer: Mask = tracker.prompt(name, prompt).masks((target.shape[0], target.shape[1]))[0]
        return answer

    return sum(1 for _ in click_on(ask, frame_idx, target, clicks, mask))
