"""What a round learns from few masklets: held-out J&F after fine-tuning `micro` on 10, 30, 100 and 300 of them.

    python -m benchmarks.little_data [--json] [--domain cells] [--only PREFIX] [--folder FOLDER]

Clips of a domain that `micro` never saw, with their true masks, at 6 frames a second. Each run changes one setting of
the recipe. Held-out J&F (3 clicks, and mask) is measured during the run. J&F on `micro`'s own clips shows what it
forgets. Finished runs are kept in FOLDER and skipped. The defaults of a round were chosen from this table.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import Sam2VideoModel

from engine.experiments.few_clips import FewClips
from engine.protocols import first_frame
from engine.rounds.recipes import QUICK, fitted
from engine.synthetic import labelled_clips, micro_clips
from engine.synthetic.domains.catalogue import DOMAINS
from model import checkpoints, devices, run_state, trainer
from model.checkpoints import LoadedModel
from model.recipe import Recipe
from model.trainer import RunOptions

HELD_OUT_CLIPS = 6
PROTOCOLS = ("3-click", "mask")


@dataclass(frozen=True)
class Run:
    """One fine-tuning. `changes`: what differs from the recipe `quick`."""

    name: str
    masklets: int
    steps: int
    lr: float
    stage: dict[str, object]
    recipe: dict[str, object]

    def plan(self) -> Recipe:
        """The recipe of this run."""
        named = fitted(QUICK, steps=self.steps, lr=self.lr)
        stages = tuple(replace(stage, **self.stage) for stage in named.stages)  # type: ignore[arg-type]  # named fields
        return replace(named, stages=stages, **self.recipe)  # type: ignore[arg-type]  # named fields


def _run(name: str, masklets: int, *, steps: int = 150, lr: float = 3e-4, **changes: object) -> Run:
    of_recipe = {key: value for key, value in changes.items() if key in ("affine", "colour_jitter", "weight_decay")}
    return Run(name, masklets, steps, lr, {k: v for k, v in changes.items() if k not in of_recipe}, of_recipe)


RUNS = (
    _run("30", 30),
    _run("30 rate 1e-4", 30, lr=1e-4),
    _run("30 memory and decoder", 30, parts="memory"),
    _run("100", 100),
    _run("10", 10),
    _run("300", 300),
    _run("30 turned", 30, affine=1.0, colour_jitter=0.3),
    _run("30 rate 6e-4", 30, lr=6e-4),
    _run("30 decoder", 30, parts="decoder"),
)


def held_out(loaded: LoadedModel, domain: str) -> dict[str, float]:
    """J&F in points: on held-out clips of the domain by protocol, and on `micro`'s own ones ("general", 3 clicks)."""
    clips = labelled_clips.held_out_of_domain(domain, HELD_OUT_CLIPS)
    found = {protocol: first_frame.measure(clips, loaded, protocol).jf for protocol in PROTOCOLS}
    found["general"] = first_frame.measure(micro_clips.held_out(HELD_OUT_CLIPS), loaded, "3-click").jf
    return {name: round(100 * jf, 1) for name, jf in found.items()}


def measure(run: Run, domain: str, folder: Path) -> dict[str, object]:
    """Trains and measures one run. Continues an interrupted training; a finished run is read from its file."""
    kept = folder / "result.json"
    if kept.exists():
        found: dict[str, object] = json.loads(kept.read_text())
        return found
    parent = checkpoints.load("micro")
    curve: dict[str, dict[str, float]] = {}

    def look(model: Sam2VideoModel, step: int) -> None:
        curve[str(step)] = held_out(checkpoints.wrap(model, name=f"step {step}"), domain)
        print(domain, run.name, step, curve[str(step)], flush=True)

    source = FewClips(domain, run.masklets)
    options = RunOptions(workers=0, save_every=40, report_every=20, look_every=max(1, run.steps // 4))
    trainer.train(parent.model, lambda stage: source, run.plan(), folder, options, look=look)
    found = {"domain": domain, "run": run.name, "masklets": run.masklets, "clips": len(source.clips), "jf": curve}
    kept.write_text(json.dumps(found))
    run_state.remove(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="cells")
    parser.add_argument("--only", default="", help="runs whose names begin with this")
    parser.add_argument("--folder", type=Path, default=Path("little-data"))
    asked = parser.parse_args()
    devices.set_threads(1)
    folder = asked.folder / asked.domain
    folder.mkdir(parents=True, exist_ok=True)
    before = folder / "before.json"
    if not before.exists():
        before.write_text(json.dumps(held_out(checkpoints.load("micro"), asked.domain)))
    chosen = [run for run in RUNS if run.name.startswith(asked.only)]
    results = [measure(run, asked.domain, folder / run.name.replace(" ", "-")) for run in chosen]
    table = {"domain": asked.domain, "before": json.loads(before.read_text()), "runs": results}
    print(json.dumps(table) if asked.json else json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
