"""A simulated annotator: knows the true masks and decides where to click."""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import rle
from storage.pixels import Mask
from storage.records import Prompt

if TYPE_CHECKING:
    from model.tracker import Tracker


def prompt_object(
    tracker: Tracker, name: str, frame_idx: int, target: Mask, clicks: int, mask: Mask | None = None
) -> int:
    """Prompts an object by its true mask (0 clicks), its box (-1), or clicks: its centre, then the largest errors'.

    mask: what is there already and is to be corrected; then every click goes to an error.
    Returns the number of clicks that were needed: none is given to a mask that is right already.
    """
    from model import simulated_clicks

    if clicks == 0:
        tracker.prompt(name, Prompt(frame_idx=frame_idx, mask_rle=rle.encode(target)))
        return 0
    if clicks < 0:
        tracker.prompt(name, Prompt(frame_idx=frame_idx, box_xyxy=simulated_clicks.box_of(target)))
        return 0
    points: list[tuple[float, float]] = []
    labels: list[int] = []
    for _ in range(clicks):
        click = (
            simulated_clicks.first_click(target) if mask is None else simulated_clicks.corrective_click(mask, target)
        )
        if click is None:
            break
        points.append(click[0])
        labels.append(click[1])
        answer = tracker.prompt(name, Prompt(frame_idx=frame_idx, points_xy=tuple(points), labels=tuple(labels)))
        mask = answer.masks(target.shape[:2])[0]
    return len(points)
