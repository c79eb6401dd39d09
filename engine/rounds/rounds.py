"""Retraining rounds: pin a release, train, evaluate on held-out videos, and promote only if the gate passes.

A round's id follows from what it begins with (release, checkpoint, budget, seed), so starting it again finds it, and
every step of it can be run again. Its state is in the store: rounds/<id>/*.json and checkpoints/<id>/.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.datasets import labelled
from engine.datasets.labelled import ClipSource, NothingToTrainOn
from engine.files import alone
from engine.protocols import first_frame as protocols
from engine.protocols.first_frame import NothingHeldOut
from engine.registry import Checkpoint
from engine.services import Services
from storage import releases
from storage.blobs.base import BlobMissing
from storage.records import Masklet, content_id
from storage.releases import NoSuchRelease, Release
from validation import gate

if TYPE_CHECKING:
    from model.recipe import Recipe
    from model.trainer import TrainingProgress as TrainProgress

log = logging.getLogger(__name__)

PROTOCOL = "3-click"  # the paper's: three clicks on the first frame that shows the object
FRAMES = 6  # annotated frames of a training clip, as the recipe `quick` has it


class NoSuchRound(Exception):
    """There is no such round, or it has not come this far."""


def hopeless() -> tuple[type[Exception], ...]:
    """What another try at a step that runs a model would only repeat."""
    from model.checkpoints import NoCheckpoint

    return (NoSuchRelease, NoCheckpoint, NothingToTrainOn, NothingHeldOut, NoSuchRound)


@dataclass(frozen=True)
class Round:
    """What a round begins with."""

    round_id: str
    number: int
    release: str
    parent: str  # name of the checkpoint that it trains on from
    parent_key: str | None
    parent_round: int
    steps: int
    lr: float
    seed: int
    image_size: int | None  # px; None: the parent's
    min_gain: float  # J&F points (0-100) that it must gain over its parent
    masklets: int  # to train on in the release: the watermark that the next round counts from


@dataclass(frozen=True)
class Outcome:
    """What a round came to. J&F in [0, 1]."""

    round_id: str
    promoted: bool
    reasons: tuple[str, ...]
    jf_before: float
    jf_after: float
    masklets: int  # that it was measured on


def due(s: Services) -> str | None:
    """The release that a round should begin with by itself, or go on with; None while too little is new.

    A round that nobody has decided was cut off, or is at work: it is due as long as `start` would find the same one
    again, and counts for nothing otherwise.
    """
    names = releases.names(s.blobs)
    if not names:
        return None
    begun = [start_of(s, round_id) for round_id in ids(s)]
    serving = s.checkpoint().name  # a round that serves was decided, even if it was cut off before that was written
    decided = {r.round_id for r in begun if r.round_id == serving or outcome_of(s, r.round_id)}
    seen = max((r.masklets for r in begun if r.round_id in decided), default=0)
    undecided = [r for r in begun if r.round_id not in decided and r.masklets > seen]
    if again := [r for r in undecided if _round(s, releases.load(s.blobs, r.release)).round_id == r.round_id]:
        return max(again, key=lambda r: r.masklets).release
    newest = releases.load(s.blobs, names[-1])
    if _count(newest, "train") - seen < s.settings.rounds.min_new_masklets:
        return None
    try:
        _check(newest)
    except (NothingToTrainOn, NothingHeldOut) as error:
        log.warning("no round begins: %s", error)
        return None
    return newest.name


def start(s: Services, release: str, *, steps: int | None = None, lr: float | None = None, seed: int = 1) -> str:
    """Pins everything a round depends on and returns its id; the same again is the same round.

    Raises NoSuchRelease, NothingToTrainOn, NothingHeldOut.
    """
    pinned = releases.load(s.blobs, release)
    _check(pinned)
    begun = _round(s, pinned, steps, lr, seed)
    s.blobs.create(f"rounds/{begun.round_id}/start.json", json.dumps(asdict(begun), indent=1).encode())
    return begun.round_id


def _check(pinned: Release) -> None:
    """Raises NothingToTrainOn, NothingHeldOut."""
    data = labelled.of_release(pinned).only("train")
    first = next((of for of in labelled.index(data) if of.runs(FRAMES)), None)
    ClipSource(data, [first] if first else [], FRAMES)  # or it raises
    if not any(_scorable(m) for v in pinned.videos() if v.split == "val" for m in pinned.masklets([v.video_id])):
        raise NothingHeldOut(
            f"release {pinned.name} shows no object in a held-out video: a round could not be measured"
        )


def _round(s: Services, release: Release, steps: int | None = None, lr: float | None = None, seed: int = 1) -> Round:
    """The round that would begin now."""
    parent, chosen = s.checkpoint(), s.settings.rounds
    steps = chosen.steps if steps is None else steps
    lr = chosen.lr if lr is None else float(lr)
    parts = (release.name, parent.name, str(steps), repr(lr), str(seed), str(chosen.image_size), repr(chosen.min_gain))
    number = parent.round + 1
    return Round(
        round_id=f"round-{number:03d}-{content_id(*parts, length=8)}",
        number=number,
        release=release.name,
        parent=parent.name,
        parent_key=parent.key,
        parent_round=parent.round,
        steps=steps,
        lr=lr,
        seed=seed,
        image_size=chosen.image_size,
        min_gain=chosen.min_gain,
        masklets=_count(release, "train"),
    )


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
    from engine.rounds import training
    from model import architecture, checkpoints, trainer

    parent = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key), to_train=True)
    data = labelled.of_release(releases.load(s.blobs, begun.release)).only("train")
    recipe = recipe_of(begun, begun.image_size or parent.image_size)
    source = ClipSource(data, list(labelled.index(data)), recipe.stages[0].frames)
    watch = training.Watch(folder, recipe, source, s.registry.track(begun.round_id))
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
    from engine.rounds import training

    recipe = training.fitted(training.recipe_of("quick", image_size), steps=begun.steps, lr=begun.lr, seed=begun.seed)
    (stage,) = recipe.stages
    return replace(recipe, stages=(replace(stage, warmup=max(1, begun.steps // 10)),))


def evaluate(s: Services, round_id: str) -> str:
    """Measures the round's checkpoint and its parent on the release's held-out videos, both the same way."""
    begun = start_of(s, round_id)
    if _read(s, round_id, "evaluation") is not None:
        return round_id
    held_out = labelled.of_release(releases.load(s.blobs, begun.release)).only("val")
    after = s.model(checkpoint_of(s, round_id))
    before = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key))
    figures: dict[str, object] = {
        name: asdict(protocols.measure(held_out, loaded, PROTOCOL))
        for name, loaded in (("before", before), ("after", after))
    }
    figures |= {"protocol": PROTOCOL, "dtype": s.settings.model.dtype}
    s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures, indent=1).encode())
    return round_id


def decide(s: Services, round_id: str) -> Outcome:
    """Lets the gate decide, records the round in the registry, and promotes the checkpoint if it passed.

    A decision stands. What was measured against its parent takes only its parent's place: once another checkpoint
    serves, the round is not promoted.
    """
    begun = start_of(s, round_id)
    with alone(s.home / "rounds" / "deciding.lock"):
        if decided := outcome_of(s, round_id):
            return decided
        figures = _read(s, round_id, "evaluation")
        if figures is None:
            raise NoSuchRound(f"round {round_id} has not been evaluated")
        before, after = gate.Metrics(**figures["before"]), gate.Metrics(**figures["after"])
        rule = gate.PromotionRule(min_gain=begun.min_gain / 100)
        decision = gate.promote(before, after, rule)
        serving = s.checkpoint().name
        if decision.passed and serving not in (begun.parent, round_id):  # its own: cut off after it was promoted
            reason = f"{serving} serves now, and the round was measured against {begun.parent}"
            decision = gate.GateDecision(passed=False, reasons=(reason,))
        outcome = Outcome(round_id, decision.passed, decision.reasons, before.jf, after.jf, after.masklets)
        metrics = {"jf_before": before.jf, "jf_after": after.jf, "promoted": float(decision.passed)}
        run_id = s.registry.record(round_id, asdict(begun) | {"rule": json.dumps(asdict(rule))}, metrics)
        if decision.passed:
            key = f"checkpoints/{round_id}"
            s.registry.promote(Checkpoint(round_id, begun.number, key), s.blobs.uri_of(key), run_id)
        s.blobs.create(f"rounds/{round_id}/decision.json", json.dumps(asdict(outcome), indent=1).encode())
        return outcome


def checkpoint_of(s: Services, name: str) -> Checkpoint:
    """The checkpoint that a round made, by the round's id; any other name is one that is loaded by its name.

    Raises NoSuchRound for a round that has not been trained.
    """
    if name not in ids(s):
        return Checkpoint(name, 0, None)
    if not s.blobs.exists(f"checkpoints/{name}/meta.json"):
        raise NoSuchRound(f"round {name} has not been trained")
    return Checkpoint(name, start_of(s, name).number, f"checkpoints/{name}")


def ids(s: Services) -> list[str]:
    """Every round that was started, in order."""
    return sorted({key.split("/")[1] for key in s.blobs.keys("rounds/") if key.endswith("/start.json")})


def start_of(s: Services, round_id: str) -> Round:
    """What a round began with. Raises NoSuchRound."""
    found = _read(s, round_id, "start")
    if found is None:
        raise NoSuchRound(f"no such round: {round_id}")
    return Round(**found)


def outcome_of(s: Services, round_id: str) -> Outcome | None:
    """What a round came to; None while it is not decided."""
    found = _read(s, round_id, "decision")
    return None if found is None else Outcome(**{**found, "reasons": tuple(found["reasons"])})


def _read(s: Services, round_id: str, name: str) -> dict[str, Any] | None:
    if not round_id.replace("-", "").isalnum():
        raise NoSuchRound(f"no such round: {round_id}")
    try:
        return dict(json.loads(s.blobs.read(f"rounds/{round_id}/{name}.json")))
    except BlobMissing:
        return None


def _count(release: Release, split: str) -> int:
    """Masklets of a split."""
    return int(release.counts["by_split"].get(split, {}).get("masklets", 0))


def _scorable(row: Masklet) -> bool:
    """Whether a held-out masklet can be scored: it shows its object after the prompted frame and before the last."""
    first = next((i for i, area in enumerate(row.area_px) if area), len(row.area_px))
    return any(row.area_px[first + 1 : -1])


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
