"""What people see of a training run: its curves and its sample pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets.clip_sampler import ClipSampler
from engine.pictures import Image, overlay, side_by_side, stacked, write_jpeg
from engine.rounds.recipes import to_json
from model import checkpoints
from model.checkpoints import LoadedModel
from model.tracker import Tracker
from model.training.recipe import Recipe
from model.training.trainer import TrainingProgress
from storage import rle
from storage.records import Prompt

if TYPE_CHECKING:
    from transformers import Sam2VideoModel

    from engine.registry import TrackedRun

_PICTURED = (1, 2)  # seeds of the clips that the pictures show
_ROW_PX = 240  # height of a row of a picture


class Watch:
    """Sends a training run's curves to MLflow, and writes a picture every `every` steps. Keeps nothing else.

    folder: the run's folder; the pictures go to its subfolder `samples`.
    """

    def __init__(self, folder: Path, recipe: Recipe, sampler: ClipSampler, tracked: TrackedRun | None) -> None:
        self.folder, self._recipe, self._sampler, self._tracked = folder, recipe, sampler, tracked
        self.every = max(1, min(1000, sum(stage.steps for stage in recipe.stages) // 4))

    def begin(self, facts: dict[str, object]) -> None:
        """Records the parameters of the run."""
        if self._tracked:
            self._tracked.parameters({**facts, "recipe": to_json(self._recipe)})

    def report(self, progress: TrainingProgress, further: Callable[[TrainingProgress], None]) -> None:
        """Records a progress report and passes it to `further`."""
        if self._tracked:
            curves = {f"loss_{name}": value for name, value in progress.losses.items()}
            self._tracked.metrics(progress.step, {**curves, "lr": progress.lr})
        further(progress)

    def look(self, model: Sam2VideoModel, step: int) -> None:
        """Writes a picture of the model's masks on the same clips each time."""
        folder = self.folder / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        sheet = picture(checkpoints.wrap(model, name=f"step {step}"), self._sampler)
        path = write_jpeg(sheet, folder / f"{step:07d}.jpg")
        if self._tracked:
            self._tracked.picture(path)

    def end(self) -> None:
        """Marks the run as finished."""
        if self._tracked:
            self._tracked.end()


def picture(loaded: LoadedModel, sampler: ClipSampler) -> Image:
    """The last frame of some clips, a row each: the frame, its true masks, and the masks that the model tracked.

    The model gets the true masks on the clip's first frame. Returns uint8 (H, W, 3) RGB.
    """
    rows = []
    for seed in _PICTURED:
        clip = sampler(seed)
        shown = [n for n in range(clip.masks.shape[1]) if clip.masks[0, n].any()]
        t, hw = len(clip.frames), (clip.masks.shape[2], clip.masks.shape[3])
        tracker = Tracker(loaded, clip.frames.__getitem__, video_hw=hw, frame_count=t)
        for n in shown:
            tracker.prompt(str(n), Prompt(frame_idx=0, mask_rle=rle.encode(clip.masks[0, n])))
        (made,) = [answer.masks(hw) for answer in tracker.propagate(0, t) if answer.frame_idx == t - 1]
        last = clip.frames[-1]
        cells = [last, overlay(last, [clip.masks[-1, n] for n in shown]), overlay(last, list(made))]
        rows.append(side_by_side(cells, width_px=round(_ROW_PX * hw[1] / hw[0]), height_px=_ROW_PX))
    return stacked(rows)
