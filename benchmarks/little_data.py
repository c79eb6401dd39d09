"""What a round learns from few masklets: held-out J&F after fine-tuning `micro` on 10, 30, 100 and 300 of them.

    python -m benchmarks.little_data [--json] [--domain cells] [--only PREFIX] [--folder FOLDER]

Clips of a domain that `micro` never saw, with their true masks, at 6 frames a second. Each run changes one setting of
the recipe. Held-out J&F (1 click, 3 clicks, and mask) is measured during the run. J&F on `micro`'s own clips shows what
it forgets. Finished runs are kept in FOLDER and skipped.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import Sam2VideoModel

from benchmarks.models import low_rank
from engine.experiments.few_clips import FewClips
from engine.experiments.plan import FULL
from engine.protocols import first_frame
from engine.rounds.recipes import QUICK, fitted
from engine.synthetic import labelled_clips, micro_clips
from engine.synthetic.domains.catalogue import DOMAINS
from model import checkpoints, devices
from model.checkpoints import LoadedModel
from model.training import run_state, trainer
from model.training.parameter_groups import TrainedParts
from model.training.recipe import Interaction, Recipe
from model.training.trainer import RunOptions

HELD_OUT_CLIPS = 6
PROTOCOLS = ("1-click", "3-click", "mask")


@dataclass(frozen=True)
class Run:
    """One fine-tuning, and what differs from the recipe `quick`."""

    name: str
    masklets: int
    steps: int | None = None  # None: as in the experiment
    lr: float = 3e-4
    single_frames: float | None = None  # share of the steps; None: as in the recipe
    few_clicks: bool = False  # two or three corrective clicks, and more masks as prompts
    parts: TrainedParts = "all"
    turned: bool = False  # clips are turned, scaled and recoloured
    low_rank: bool = False  # LoRA: the encoder's matrices change by low-rank ones only
    kept_out: int = 0  # training clips that are not trained on, to see where one would stop early

    @property
    def all_steps(self) -> int:
        """Training steps."""
        return FULL.steps_on(self.masklets) if self.steps is None else self.steps

    def plan(self) -> Recipe:
        """The recipe of this run."""
        recipe = fitted(QUICK, steps=self.all_steps, lr=self.lr, parts=self.parts)
        images, clips = recipe.stages
        if self.single_frames is not None:
            count = round(self.single_frames * self.all_steps)
            images, clips = replace(images, steps=count), replace(clips, steps=self.all_steps - count)
        if self.few_clicks:
            few = Interaction(mask=0.0, click=0.875, correction_clicks=2)
            images, clips = (
                replace(images, interaction=few),
                replace(clips, interaction=Interaction(correction_clicks=3)),
            )
        recipe = replace(recipe, stages=(images, clips))
        return replace(recipe, affine=1.0, colour_jitter=0.3) if self.turned else recipe


RUNS = (
    Run("30", 30),
    Run(
        "30 mostly single frames", 30, steps=400, single_frames=0.7
    ),  # these 400 steps take as long as 300 of the recipe
    Run("30 few clicks", 30, few_clicks=True),
    Run("10", 10),
    Run("100", 100),
    Run("300", 300),
    Run("300 in 150 steps", 300, steps=150),
    Run("30 in 600 steps", 30, steps=600),
    Run("30 rate 1e-4", 30, lr=1e-4),
    Run("30 memory and decoder", 30, parts="memory"),
    Run("30 turned", 30, turned=True),
    Run("30 rate 6e-4", 30, lr=6e-4),
    Run("30 decoder", 30, parts="decoder"),
    Run("30 LoRA", 30, parts="memory", low_rank=True),
    Run("30 two clips kept out", 30, kept_out=2),
)


def held_out(loaded: LoadedModel, domain: str) -> dict[str, float]:
    """J&F in points: on held-out clips of the domain by protocol, and on `micro`'s own ones ("general", 3 clicks)."""
    clips = labelled_clips.held_out_of_domain(domain, HELD_OUT_CLIPS)
    found = {protocol: first_frame.measure(clips, loaded, protocol).jf for protocol in PROTOCOLS}
    found["general"] = first_frame.measure(micro_clips.held_out(HELD_OUT_CLIPS), loaded, "3-click").jf
    return {name: _points(jf) for name, jf in found.items()}


def _points(jf: float) -> float:
    return round(100 * jf, 1)


def measure(run: Run, domain: str, folder: Path) -> dict[str, object]:
    """Trains and measures one run. Continues an interrupted training; a finished run is read from its file."""
    kept = folder / "result.json"
    if kept.exists():
        found: dict[str, object] = json.loads(kept.read_text())
        return found
    torch.manual_seed(0)  # for the first values of low-rank changes
    begun = checkpoints.load("micro").model
    parent = low_rank.begin(begun) if run.low_rank else begun
    source, curve = FewClips(domain, run.masklets), dict[str, dict[str, float]]()
    trained_on = len(source.clips) - run.kept_out
    kept_out, source.clips = source.clips[trained_on:], source.clips[:trained_on]

    def look(model: Sam2VideoModel, step: int) -> None:
        loaded = checkpoints.wrap(low_rank.merged(model), name=f"step {step}")
        curve[str(step)] = held_out(loaded, domain)
        if kept_out:
            data = labelled_clips.dataset("kept out", len(kept_out), lambda n: kept_out[n])
            curve[str(step)]["kept_out"] = _points(first_frame.measure(data, loaded, "3-click").jf)
        print(domain, run.name, step, curve[str(step)], flush=True)

    looks = 6 if run.kept_out else 3
    options = RunOptions(workers=0, save_every=40, report_every=20, look_every=max(1, run.all_steps // looks))
    trainer.train(parent, lambda stage: source, run.plan(), folder, options, look=look)
    masklets = sum(clip.masks.shape[1] for clip in source.clips)
    found = {"domain": domain, "run": run.name, "masklets": masklets, "clips": len(source.clips), "jf": curve}
    kept.write_text(json.dumps(found))
    run_state.remove(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="cells")
    parser.add_argument("--only", default="", help="runs with this name, or whose names begin with it")
    parser.add_argument("--folder", type=Path, default=Path("little-data"))
    asked = parser.parse_args()
    devices.set_threads(1)
    folder = asked.folder / asked.domain
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / "before.json"
    if not before.exists():
        before.write_text(json.dumps(held_out(checkpoints.load("micro"), asked.domain)))
    named = [run for run in RUNS if run.name == asked.only]
    chosen = named or [run for run in RUNS if run.name.startswith(asked.only)]
    results = [measure(run, asked.domain, folder / f"{run.name.replace(' ', '-')}-{run.all_steps}") for run in chosen]
    table = {"domain": asked.domain, "before": json.loads(before.read_text()), "runs": results}
    print(json.dumps(table) if asked.json else json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
