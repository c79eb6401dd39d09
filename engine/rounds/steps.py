"""Retraining rounds: pin a release, train, evaluate on held-out videos, and promote only if the gate passes.

A round's id follows from what it begins with (release, checkpoint, budget, seed), so starting it again finds it, and
every step of it can be run again. Its state is in the store: rounds/<id>/*.json and checkpoints/<id>/.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import ClipSampler, NothingToTrainOn
from engine.files import alone
from engine.protocols import first_frame as protocols
from engine.protocols.truth import NothingHeldOut
from engine.registry import Checkpoint
from engine.rounds.record import NoSuchRound, Round, RoundResult, checkpoint_of, read, result_of, start_of
from engine.services import Services
from storage import releases
from storage.releases import NoSuchRelease
from validation import gate

if TYPE_CHECKING:
    from model.recipe import Recipe
    from model.trainer import TrainingProgress as TrainProgress

log = logging.getLogger(__name__)

PROTOCOL = "3-click"  # the paper's: three clicks on the first frame that shows the object


def permanent_errors() -> tuple[type[Exception], ...]:
    """Errors of `train` and `evaluate` that a retry cannot fix."""
    from model.checkpoints import NoCheckpoint

    return (NoSuchRelease, NoCheckpoint, NothingToTrainOn, NothingHeldOut, NoSuchRound)


def train(s: Services, round_id: str, report: Callable[[TrainProgress], None] = lambda progress: None) -> str:
    """Fine-tunes from the round's parent on the release's training videos; a killed run goes on where it was saved.

    A second trainer on the same home waits for the first and finds its checkpoint; one on another machine keeps what
    the first has stored. Weights that were stored never change.
    Raises ValueError under torchrun, whose processes would wait for each other.
    """
    from model import parallel

    if not parallel.alone():
        raise ValueError("a round trains in one process: torchrun is for `masklets train --data`")
    begun = start_of(s, round_id)
    folder = s.home / "rounds" / round_id
    with alone(folder / "lock"):
        if not s.blobs.exists(f"checkpoints/{round_id}/meta.json"):
            _fine_tune(s, begun, folder, report)
    return round_id


def _fine_tune(s: Services, begun: Round, folder: Path, report: Callable[[TrainProgress], None]) -> None:
    from engine.rounds.watch import Watch
    from model import architecture, checkpoints, trainer

    parent = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key), to_train=True)
    data = layouts.of_release(releases.load(s.blobs, begun.release)).only("train")
    recipe = recipe_of(begun, begun.image_size or parent.image_size)
    source = ClipSampler(data, list(clip_sampler.index(data)), recipe.stages[0].frames)
    watch = Watch(folder, recipe, source, s.registry.track(begun.round_id))
    tuned = trainer.train(
        architecture.resized(parent.model, recipe.stages[0].image_size),
        lambda _: source,
        recipe,
        folder,
        trainer.RunOptions(device=s.device, save_every=25, report_every=10, look_every=watch.every),
        report=lambda progress: watch.report(progress, report),
        look=watch.look,
    )
    saved = checkpoints.save(
        tuned,
        folder / "checkpoint",
        card=_card(begun),
        meta={"round": asdict(begun), "recipe": asdict(recipe), "transformers": version("transformers")},
        mean=parent.mean,
        std=parent.std,
    )
    for file in sorted(saved.iterdir(), key=lambda f: f.name == "meta.json"):  # meta.json last: it says "whole"
        s.blobs.create(f"checkpoints/{begun.round_id}/{file.name}", file)
    (folder / "state.pt").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint")


def recipe_of(begun: Round, image_size: int) -> Recipe:
    """The recipe of a round: `quick`, for its steps, at its rate and the size of its checkpoint."""
    from engine.rounds import recipes

    recipe = recipes.fitted(recipes.recipe_of("quick", image_size), steps=begun.steps, lr=begun.lr, seed=begun.seed)
    (stage,) = recipe.stages
    return replace(recipe, stages=(replace(stage, warmup=max(1, begun.steps // 10)),))


def evaluate(s: Services, round_id: str) -> str:
    """Measures the round's checkpoint and its parent on the release's held-out videos, both the same way."""
    begun = start_of(s, round_id)
    if read(s, round_id, "evaluation") is not None:
        return round_id
    held_out = layouts.of_release(releases.load(s.blobs, begun.release)).only("val")
    after = s.model(checkpoint_of(s, round_id))
    before = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key))
    figures: dict[str, object] = {
        name: asdict(protocols.measure(held_out, loaded, PROTOCOL))
        for name, loaded in (("before", before), ("after", after))
    }
    figures |= {"protocol": PROTOCOL, "dtype": s.settings.model.dtype}
    s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures, indent=1).encode())
    return round_id


def decide(s: Services, round_id: str) -> RoundResult:
    """Lets the gate decide, records the round in the registry, and promotes the checkpoint if it passed.

    A decision stands. What was measured against its parent takes only its parent's place: once another checkpoint
    serves, the round is not promoted.
    """
    begun = start_of(s, round_id)
    with alone(s.home / "rounds" / "deciding.lock"):
        if decided := result_of(s, round_id):
            return decided
        figures = read(s, round_id, "evaluation")
        if figures is None:
            raise NoSuchRound(f"round {round_id} has not been evaluated")
        before, after = gate.Metrics(**figures["before"]), gate.Metrics(**figures["after"])
        rule = gate.PromotionRule(min_gain=begun.min_gain / 100)
        decision = gate.promote(before, after, rule)
        serving = s.checkpoint().name
        if decision.passed and serving not in (begun.parent, round_id):  # its own: cut off after it was promoted
            reason = f"{serving} serves now, and the round was measured against {begun.parent}"
            decision = gate.GateDecision(passed=False, reasons=(reason,))
        outcome = RoundResult(round_id, decision.passed, decision.reasons, before.jf, after.jf, after.masklets)
        metrics = {"jf_before": before.jf, "jf_after": after.jf, "promoted": float(decision.passed)}
        run_id = s.registry.record(round_id, asdict(begun) | {"rule": json.dumps(asdict(rule))}, metrics)
        if decision.passed:
            key = f"checkpoints/{round_id}"
            s.registry.promote(Checkpoint(round_id, begun.number, key), s.blobs.uri_of(key), run_id)
        s.blobs.create(f"rounds/{round_id}/decision.json", json.dumps(asdict(outcome), indent=1).encode())
        return outcome


def _card(begun: Round) -> str:
    from model import checkpoints

    facts = {
        "parent": f"`{begun.parent}`",
        "release": f"`{begun.release}`",
        "training masklets": begun.masklets,
        "steps": begun.steps,
        "learning rate": f"{begun.lr:g}",
        "seed": begun.seed,
    }
    return checkpoints.model_card(begun.round_id, "A SAM 2 video checkpoint, fine-tuned by Masklet Engine.", facts)
