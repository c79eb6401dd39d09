"""A simulated annotator: knows the true masks, and decides which frame to correct, where to click and when to stop.

Works on masks only; knows nothing about tickets or the queue. The first click goes to the middle of the object, the
next ones to the middle of the largest error. Source: Ravi et al. 2024, section 6 and appendix F.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from storage import rle
from storage.pixels import Mask
from storage.records import Prompt

if TYPE_CHECKING:
    from model.tracker import Tracker

GOOD = 0.75  # IoU below which a frame needs a correction (Ravi et al. 2024: online protocol, its alignment threshold)

Ask = Callable[[Prompt], Mask]  # the mask that a model answers to a prompt


def worst_frame(overlaps: Mapping[int, float], done: Collection[int]) -> int | None:
    """The frame with the lowest IoU that is not done yet, the first of several. None if all are done."""
    left = {frame: iou for frame, iou in overlaps.items() if frame not in done}
    return min(left, key=lambda frame: (left[frame], frame), default=None)


def satisfied(ious: Collection[float], *, mean: float, frame: float, share: float) -> bool:
    """Whether a masklet is good enough: its mean IoU, and the share of its frames with an IoU above `frame`.

    False without any frame.
    """
    if not ious:
        return False
    right = sum(iou > frame for iou in ious) / len(ious)
    return sum(ious) / len(ious) >= mean and right >= share


def click_on(
    ask: Ask, frame_idx: int, target: Mask, most: int, mask: Mask | None = None
) -> Iterator[tuple[Prompt, Mask]]:
    """Clicks on one frame, at most so many: each prompt, which repeats the earlier clicks, and the model's answer.

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
    """Prompts an object on one frame with its true mask (0 clicks), its box (-1), or at most so many clicks.

    mask: the mask to correct; None: the first click goes to the middle of the object.
    Returns the number of clicks that were needed.
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
