"""How `micro`, the checkpoint that ships with the project, was made: its recipe, and its figures on held-out clips.

    python -m engine.demo.micro train FOLDER      trains, or continues; a kill loses at most 50 steps, Ctrl-C no step
    python -m engine.demo.micro save FOLDER       writes model/micro from a finished run
    python -m engine.demo.micro sheet FOLDER OUT  draws the objects that micro finds and tracks in a folder's videos

`micro` replaces a published SAM 2.1 checkpoint where none is available. It was trained on synthetic clips only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from engine import pictures
from engine.protocols import first_frame
from engine.protocols.truth import Truth
from engine.settings import AutoSettings
from engine.stages import propose
from engine.synthetic import micro_clips
from engine.synthetic.micro_clips import ANYTHING, LARGER, RETURNING, RICH, StageClips
from engine.synthetic.scene import Scene
from model import architecture, checkpoints, devices, proposals
from model.architecture import Shape
from model.checkpoints import LoadedModel
from model.tracker import Tracker
from model.training import run_state, trainer
from model.training.recipe import Interaction, Recipe, TrainingStage
from model.training.trainer import TrainingProgress
from storage import rle
from storage.records import FPS, Prompt
from storage.videos.video import FrameReader
from storage.wording import counted
from validation import jf

SHAPE = Shape(image_size=128, dropout=0.0)
_CLICKS = Interaction(mask=0.0, click=0.6, prompted_frames=1, corrected_frames=1, correction_clicks=2)
_CLICK = replace(_CLICKS, correction_clicks=1)
_CLIPS = Interaction(mask=0.5, click=0.3, corrected_frames=2, correction_clicks=2)
_SHORT = Interaction(mask=0.35, click=0.4, prompted_frames=1, corrected_frames=1, correction_clicks=1)
_SHORTER = replace(_SHORT, mask=0.4, click=0.35)
_MASK = replace(_SHORT, mask=0.7, click=0.25)
_CORRECTED = Interaction(mask=0.0, click=0.6, prompted_frames=1, corrected_frames=1, correction_clicks=4)
_CORRECTED_CLIPS = Interaction(mask=0.3, click=0.45, corrected_frames=3, correction_clicks=2)
_RETURNING_CLIPS = replace(_CORRECTED_CLIPS, mask=0.45, click=0.35)
# Images first, until clicks and boxes work; then clips. 128 px first: such an image costs a quarter of one at 256 px.
STAGES: tuple[tuple[TrainingStage, Scene], ...] = (
    (TrainingStage("images", 1300, 128, frames=1, batch=16, lr=1e-3, interaction=_CLICKS), ANYTHING),
    (TrainingStage("clips", 700, 128, frames=5, batch=4, lr=1e-3, warmup=50, interaction=_CLIPS), ANYTHING),
    (TrainingStage("larger things", 300, 128, frames=1, batch=16, lr=1e-3, interaction=_CLICK), LARGER),
    (
        TrainingStage(
            "short clips", 1700, 128, frames=3, batch=4, lr=1e-3, warmup=30, final_lr=0.3, interaction=_SHORT
        ),
        LARGER,
    ),
    (
        TrainingStage("long clips", 600, 128, frames=6, batch=2, lr=4e-4, warmup=30, final_lr=0.02, interaction=_CLIPS),
        LARGER,
    ),
    (TrainingStage("rich images", 600, 128, frames=1, batch=16, lr=7e-4, warmup=50, interaction=_CLICK), RICH),
    (TrainingStage("rich clips", 1000, 128, frames=3, batch=4, lr=7e-4, warmup=30, interaction=_SHORTER), RICH),
    (TrainingStage("large images", 400, 256, frames=1, batch=8, lr=5e-4, warmup=30, interaction=_CLICK), RICH),
    (
        TrainingStage(
            "large clips", 1200, 256, frames=3, batch=2, lr=5e-4, warmup=30, final_lr=0.02, interaction=_SHORTER
        ),
        RICH,
    ),
    # Clips of three frames do not teach long tracks: without these stages errors grew over sixteen frames.
    (
        TrainingStage(
            "whole clips", 1500, 256, frames=8, batch=1, lr=1.2e-4, warmup=50, final_lr=0.2, interaction=_SHORTER
        ),
        RICH,
    ),
    (
        TrainingStage("longest", 50, 256, 16, objects=2, batch=1, lr=3e-5, warmup=20, final_lr=0.97, interaction=_MASK),
        RICH,
    ),
    (
        TrainingStage("longest clips", 200, 256, 16, objects=2, batch=1, lr=1e-4, final_lr=0.96, interaction=_SHORTER),
        RICH,
    ),
    (
        TrainingStage(
            "last clips", 400, 256, 16, objects=2, lr=1e-4, batch=1, warmup=20, final_lr=0.03, interaction=_SHORTER
        ),
        RICH,
    ),
    # Corrective clicks were rare before. These last stages raised J&F by 6 to 8 points.
    (
        TrainingStage(
            "corrected images", 1300, 256, frames=1, batch=6, lr=4e-4, warmup=50, final_lr=0.25, interaction=_CORRECTED
        ),
        RICH,
    ),
    (
        TrainingStage("corrected clips", 350, 256, 8, batch=1, lr=1.2e-4, warmup=30, final_lr=0.03, interaction=_CLIPS),
        RETURNING,
    ),
    (
        TrainingStage(
            "more images", 900, 256, frames=1, batch=6, lr=4e-4, warmup=50, final_lr=0.1, interaction=_CORRECTED
        ),
        RICH,
    ),
    (
        TrainingStage(
            "more clips", 250, 256, 8, batch=1, lr=1.2e-4, warmup=30, final_lr=0.03, interaction=_CORRECTED_CLIPS
        ),
        RETURNING,
    ),
    (
        TrainingStage(
            "last images", 1000, 256, frames=1, batch=6, lr=4e-4, warmup=50, final_lr=0.1, interaction=_CORRECTED
        ),
        RICH,
    ),
    (
        TrainingStage(
            "returning clips", 400, 256, 8, batch=1, lr=1.6e-4, warmup=30, final_lr=0.03, interaction=_RETURNING_CLIPS
        ),
        RETURNING,
    ),
    (
        TrainingStage(
            "images again", 1000, 256, frames=1, batch=6, lr=4e-4, warmup=50, final_lr=0.1, interaction=_CORRECTED
        ),
        RICH,
    ),
    (
        TrainingStage(
            "clips again", 650, 256, 8, batch=1, lr=1.6e-4, warmup=30, final_lr=0.03, interaction=_RETURNING_CLIPS
        ),
        RETURNING,
    ),
)
RECIPE = Recipe(stages=tuple(stage for stage, _ in STAGES), seed=1, weight_decay=0.01)


def clips_of(stage: TrainingStage) -> StageClips:
    """The clips of a stage, drawn at its image size."""
    scene = next(scene for known, scene in STAGES if known.name == stage.name)
    return StageClips(replace(scene, height=stage.image_size, width=stage.image_size, frames=stage.frames))


def train(folder: Path, report: Callable[[TrainingProgress], None]) -> None:
    """Trains from random weights, or continues from the state in the folder."""
    model = architecture.build(SHAPE)
    architecture.init_weights(model, RECIPE.seed)
    trainer.train(model, clips_of, RECIPE, folder, trainer.RunOptions(save_every=50), report=report)


def trained(folder: Path) -> tuple[LoadedModel, int]:
    """The current weights of a run, at the image size of the last stage, and its number of steps."""
    model = architecture.resized(architecture.build(SHAPE), RECIPE.stages[-1].image_size)
    steps = run_state.restore(model, folder)
    return checkpoints.wrap(model, name="micro"), steps


@dataclass(frozen=True)
class MicroMetrics:
    """Metrics of a checkpoint on held-out clips, in points (0 to 100)."""

    clips: int
    masklets: int
    jf_mask: float
    jf_3click: float
    jf_1click: float
    occlusion_accuracy: float  # frames where it was right about whether the object is visible


def held_out(loaded: LoadedModel, clips: int, progress: Callable[[int], None] = lambda done: None) -> MicroMetrics:
    """Measures a checkpoint on the held-out clips."""
    metrics: dict[str, list[jf.JF | None]] = {"mask": [], "3-click": [], "1-click": []}
    right = frames = 0
    for number, entry in enumerate(micro_clips.held_out(clips).entries):
        video = entry.load()
        truths = Truth.all_of(video)
        with video.open() as reader:
            for protocol, found in metrics.items():
                made = first_frame.semi_supervised(
                    loaded, reader.read, (video.height, video.width), video.frame_count, truths, protocol
                )
                found += [metric for metric, _ in made.values()]
                if protocol == "mask":
                    right += sum(presence.right for _, presence in made.values())
                    frames += sum(presence.frames for _, presence in made.values())
        progress(number + 1)

    def points(protocol: str) -> float:
        mean = first_frame.pooled(metrics[protocol])
        assert mean is not None  # every clip has objects
        return 50 * (mean.j + mean.f)

    return MicroMetrics(
        clips=clips,
        masklets=sum(metric is not None for metric in metrics["mask"]),
        jf_mask=points("mask"),
        jf_3click=points("3-click"),
        jf_1click=points("1-click"),
        occlusion_accuracy=100 * right / max(1, frames),
    )


def save(folder: Path, figures: MicroMetrics) -> Path:
    """Writes the weights of a finished run to model/micro, with a model card. Raises ValueError if it is unfinished."""
    total = sum(stage.steps for stage in RECIPE.stages)
    loaded, steps = trained(folder)
    if steps != total:
        raise ValueError(f"{folder} has done {steps} of {counted(total, 'step')}: train it to the end first")
    meta = {"recipe": asdict(RECIPE), "shape": asdict(SHAPE), "held_out": asdict(figures), "steps": total}
    return checkpoints.save(loaded.model, checkpoints.MICRO, card=_card(figures), meta=meta)


def _card(figures: MicroMetrics) -> str:
    stages = "\n".join(
        f"| {s.name} | {s.steps} | {s.frames} | {s.batch} | {s.objects} | {s.lr:g} |" for s in RECIPE.stages
    )
    text = f"""SAM 2's architecture with 3.2M parameters at {RECIPE.stages[-1].image_size} px, trained from nothing by
Masklet Engine's own trainer on its own synthetic clips. It never saw a real picture. It exists so that the whole loop
runs offline on two CPU cores, and stands in for `facebook/sam2.1-hiera-*`: masks that it makes are labelled with its
name.

Made by `python -m engine.demo.micro train FOLDER` (seed {RECIPE.seed}) and `python -m engine.demo.micro save FOLDER`.
The stages before "rich images" were run on clips without cuts, text, tails and tools, which were added to them later:

| stage | steps | frames | clips a step | objects | learning rate |
|---|---|---|---|---|---|
{stages}

Measured on {counted(figures.clips, "held-out synthetic clip")} ({counted(figures.masklets, "masklet")}, fixed by their
seeds; SA-V's evaluator on annotated frames, objects prompted on the first frame that shows them):

| J&F, mask | J&F, 3 clicks | J&F, 1 click | knows whether the object is there |
|---|---|---|---|
| {figures.jf_mask:.1f} | {figures.jf_3click:.1f} | {figures.jf_1click:.1f} | {figures.occlusion_accuracy:.1f} % |

On real video it is weak: 24.7 J&F from the true mask of the first frame, on the 20 validation sequences of DAVIS-2016.
It is there to be fine-tuned on the kind of video at hand; what a round adds counts.
"""
    return checkpoints.model_card("micro", text)


def sheet(videos: Path, out: Path) -> Path:
    """Draws the objects that `micro` finds on the first frame of each video, and their tracks: a row for each video."""
    objects, columns, count = 6, 5, 2 * FPS
    loaded = checkpoints.load("micro")
    config = propose.grid(AutoSettings(preset="quick"), loaded.image_size)
    rows = []
    for path in sorted(videos.glob("*.mp4")):
        with FrameReader(path) as reader:
            first = reader.read(0)
            hw = (first.shape[0], first.shape[1])
            tracker = Tracker(loaded, reader.read, video_hw=hw, frame_count=count)
            found = sorted(proposals.propose(loaded, first, config), key=lambda c: -c.score)[:objects]
            for n, proposal in enumerate(found):
                tracker.prompt(str(n), Prompt(frame_idx=0, mask_rle=rle.encode(proposal.mask)))
            shown = [round(i * (count - 1) / (columns - 1)) for i in range(columns)]
            made = (
                {a.frame_idx: a.masks(hw) for a in tracker.propagate(0, count) if a.frame_idx in shown} if found else {}
            )
            cells = [pictures.overlay(reader.read(i), list(made.get(i, []))) for i in shown]
        rows.append(pictures.side_by_side(cells, width_px=320, height_px=round(320 * hw[0] / hw[1])))
    return pictures.write_jpeg(pictures.stacked(rows), out, quality=85)


def main() -> None:
    """Runs one of the commands in this module's docstring."""
    words = sys.argv[1:]
    if len(words) == 3 and words[0] == "sheet":
        print(sheet(Path(words[1]), Path(words[2])))
        return
    if len(words) != 2 or words[0] not in ("train", "save"):
        sys.exit((__doc__ or "").strip())
    folder = Path(words[1])
    devices.set_threads(int(os.environ.get("OMP_NUM_THREADS", "0")) or None)
    if words[0] == "train":

        def report(p: TrainingProgress) -> None:
            losses = {name: round(value, 4) for name, value in p.losses.items()}
            print(f"{p.step}/{p.steps} {p.stage} {losses} {p.seconds:.0f} s", flush=True)

        train(folder, report)
    else:
        figures = held_out(trained(folder)[0], 200, lambda done: print(counted(done, "clip"), end="\r", flush=True))
        print(save(folder, figures), figures)


if __name__ == "__main__":
    main()
