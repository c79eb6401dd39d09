"""The steps of a retraining round: train, evaluate on held-out videos, and promote only if the gate passes.

Every step can run again. A round starts in `engine.rounds.starting`; its files are read in `engine.rounds.record`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from engine import trouble
from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import NothingToTrainOn
from engine.files import alone
from engine.protocols import first_frame
from engine.protocols.truth import NothingHeldOut
from engine.registry import Checkpoint
from engine.rounds import launching
from engine.rounds.record import (
    LOCK,
    Approval,
    NoSuchRound,
    Round,
    RoundResult,
    approval_of,
    checkpoint_of,
    is_taken_back,
    lock_of,
    note_failure,
    read,
    result_of,
    start_of,
    waiting_of,
)
from engine.services import Services
from storage import log_ids
from storage.blobs.base import BlobDamaged, BlobMissing
from storage.dataset import releases
from storage.dataset.batch_manifests import ReleaseError
from storage.dataset.parts import PartError
from storage.errors import first_line
from storage.videos.reader import VideoError
from validation import gate

if TYPE_CHECKING:
    from model.checkpoints import LoadedModel
    from model.clips import DrawClip
    from model.training.recipe import TrainingStage
    from model.training.trainer import TrainingProgress

log = logging.getLogger(__name__)

TAKEN_BACK = "it was promoted and taken back since: to train again, choose another seed"

# Of a damaged release or video, and of a model that gives NaN: they come again until a person mends something.
_DAMAGE = (ReleaseError, PartError, VideoError, BlobMissing, BlobDamaged, FloatingPointError)


def permanent_errors() -> tuple[type[Exception], ...]:
    """Errors of `train` and `evaluate` that a retry cannot fix; so are all ValueErrors."""
    from model.checkpoints import NoCheckpoint

    return (NoCheckpoint, NothingToTrainOn, NothingHeldOut, NoSuchRound, *_DAMAGE)


def is_permanent(error: Exception) -> bool:
    """Whether a retry of `train` or `evaluate` cannot fix this error."""
    return isinstance(error, (ValueError, *permanent_errors()))


def train(s: Services, round_id: str, report: Callable[[TrainingProgress], None] = lambda progress: None) -> str:
    """Fine-tunes the round's parent on the release's training videos. A killed run continues from its last saved step.

    A second trainer on the same home waits for the first and uses its checkpoint. A second trainer on another machine
    does not overwrite the stored files of the first. Stored weights never change. With `rounds.launcher`, several
    processes train (see `launching`).
    Raises NoSuchRound, TrainingFailed; ValueError under torchrun, whose processes would wait for each other.
    """
    from model.training import parallel

    if not parallel.is_single():
        raise ValueError("a round starts its own processes: run it without torchrun, and set rounds.launcher")
    with _step(s, round_id, "train"):
        _train(s, round_id, report)
    return round_id


def _train(s: Services, round_id: str, report: Callable[[TrainingProgress], None]) -> None:
    begun, folder, lock = start_of(s, round_id), folder_of(s, round_id), lock_of(s, round_id)

    def finished() -> bool:
        return s.blobs.exists(f"checkpoints/{round_id}/meta.json")

    if s.settings.rounds.launcher:
        launching.train_in_processes(s.settings, round_id, folder, lock, finished, report)
        return
    with alone(lock):
        if not finished():
            train_round(s, begun, report)


def folder_of(s: Services, round_id: str) -> Path:
    """The folder of this machine with the state, the curve and the pictures of a round's training."""
    return s.home / "rounds" / round_id


@contextlib.contextmanager
def _step(s: Services, round_id: str, name: str) -> Iterator[None]:
    """Records the error of a step; its log lines carry the round's checkpoint.

    `decide` removes the record: only the last step completes a round.
    """
    with log_ids.about(checkpoint=round_id):
        log.info("%s begins", name)
        try:
            yield
        except Exception as error:
            trouble.record(s.blobs, trouble.NO_BATCH, "retrain", f"{round_id}: {first_line(error)}")
            if is_permanent(error) and not isinstance(error, NoSuchRound):
                note_failure(s, round_id, first_line(error))
            raise
        log.info("%s is done", name)


def train_round(s: Services, begun: Round, report: Callable[[TrainingProgress], None] = lambda progress: None) -> None:
    """Trains the round's parent and stores the checkpoint. The caller holds the round's lock.

    Several processes call this together under torchrun; the first one writes and reports.
    """
    from engine.rounds import general, recipes, training
    from engine.rounds.general import WithReplay
    from engine.rounds.watch import Watch
    from model.training import parallel, run_state
    from model.training.trainer import RunOptions

    folder = folder_of(s, begun.round_id)
    parent = _load(s, _parent(begun), to_train=True)
    data = layouts.of_release(releases.load(s.blobs, begun.release), rejected=begun.rejected).only("train")
    recipe = recipes.of_round(begun, begun.image_size or parent.image_size)
    samplers = training.samplers_of(data, list(clip_sampler.index(data)), recipe)
    tracked = s.registry.track(begun.round_id) if parallel.leads() else None
    watch = Watch(folder, recipe, samplers[recipe.stages[-1]], tracked)
    options = RunOptions(device=s.device, save_every=25, report_every=10, share_batch=s.settings.rounds.share_batch)
    clips: dict[TrainingStage, DrawClip] = dict(samplers)
    if begun.general is not None and begun.replay:
        for stage, sampler in samplers.items():
            clips[stage] = WithReplay(sampler, general.training_clips(s, begun.general, stage), begun.replay)
    tuned = training.fine_tune(parent, recipe, clips.__getitem__, folder, options, watch=watch, report=report)
    if not parallel.leads():
        return
    meta = {"round": asdict(begun), "recipe": asdict(recipe)}
    saved = training.save(tuned, folder / "checkpoint", parent, card=_card(begun), meta=meta)
    for file in sorted(saved.iterdir(), key=lambda f: f.name == "meta.json"):  # meta.json last: it marks the end
        s.blobs.create(f"checkpoints/{begun.round_id}/{file.name}", file)
    run_state.remove(folder)
    shutil.rmtree(folder / "checkpoint")


def _load(s: Services, checkpoint: Checkpoint, *, to_train: bool = False) -> LoadedModel:
    """The model of a checkpoint, with the CPU threads of a round: a round often has the machine for itself."""
    from model import devices
    from model.training import parallel

    loaded = s.model(checkpoint, to_train=to_train)
    if (threads := s.settings.rounds.threads) is not None:
        devices.set_threads(max(1, threads // parallel.local_size()))
    return loaded


def _parent(begun: Round) -> Checkpoint:
    return Checkpoint(begun.parent, begun.parent_round, begun.parent_key)


def evaluate(s: Services, round_id: str) -> str:
    """Measures the round's checkpoint and its parent on the release's held-out videos. Raises NoSuchRound."""
    with _step(s, round_id, "evaluate"):
        _evaluate(s, round_id)
    return round_id


def _evaluate(s: Services, round_id: str) -> None:
    begun = start_of(s, round_id)
    from engine.rounds import general

    with alone(lock_of(s, round_id)):
        if read(s, round_id, "evaluation") is not None:
            return
        _refit_verifier(s, begun)
        held_out = layouts.of_release(releases.load(s.blobs, begun.release)).only("val")
        kept = None if begun.general is None else general.held_out(s, begun.general)
        figures: dict[str, object] = {"protocol": first_frame.PROTOCOL, "dtype": s.settings.model.dtype}
        for name, checkpoint in (("before", _parent(begun)), ("after", checkpoint_of(s, round_id))):
            loaded = _load(s, checkpoint)
            figures[name] = asdict(first_frame.measure(held_out, loaded, first_frame.PROTOCOL))
            if kept is not None:
                figures[f"general_{name}"] = asdict(first_frame.measure(kept, loaded, first_frame.PROTOCOL))
        s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures, indent=1).encode())


def _refit_verifier(s: Services, begun: Round) -> None:
    """Fits the verifier on people's verdicts up to the round's release, and writes its report beside the round.

    The report says why there is no new verifier, if the verdicts are too few or damaged: the round goes on without it.
    """
    from engine.verifier import keeping
    from engine.verifier.fitting import TooFewVerdicts

    try:
        told = asdict(keeping.refit(s.blobs, begun.release, s.settings.verifier.precision))
    except TooFewVerdicts as error:
        told = {"problem": str(error)}
    except PartError as error:
        told = {"problem": str(error)}
        log.warning("%s goes on without a new verifier: %s", begun.round_id, first_line(error))
    s.blobs.create(f"rounds/{begun.round_id}/verifier.json", json.dumps(told, indent=1).encode())


def _metrics(written: Mapping[str, Any]) -> gate.Metrics:
    """Metrics as `evaluate` wrote them."""
    return TypeAdapter(gate.Metrics).validate_python(written)


def decide(s: Services, round_id: str) -> RoundResult:
    """Asks the gate, records the round in the registry, and promotes the checkpoint if the gate passed.

    A decision never changes. A round is measured against its parent, so it can replace only its parent: if another
    checkpoint serves meanwhile, the round is not promoted. If the settings ask for a person's approval, a round that
    passed waits for `answer`, and the result says so. Raises NoSuchRound.
    """
    with _step(s, round_id, "decide"):
        outcome = _decide(s, round_id)
        # not the reasons: those of a person name the person
        log.info("waits for approval" if outcome.waits else "promoted" if outcome.promoted else "not promoted")
    trouble.remove(s.blobs, trouble.NO_BATCH, "retrain")
    return outcome


def answer(s: Services, round_id: str, *, approved: bool, by: str, why: str = "") -> RoundResult:
    """Records a person's answer about a round that waits for approval, and decides. A decided round stays as it is.

    An earlier answer is not changed. Raises NoSuchRound, ValueError if the round does not wait.
    """
    start_of(s, round_id)
    if (decided := result_of(s, round_id)) is not None:
        return decided
    if waiting_of(s, round_id) is not None:
        said = Approval(approved, by, why, round(time.time()))
        s.blobs.create(f"rounds/{round_id}/approval.json", json.dumps(asdict(said)).encode())
    elif approval_of(s, round_id) is None:
        raise ValueError(f"round {round_id} does not wait for approval")
    return decide(s, round_id)


def _with_approval(decision: gate.GateDecision, said: Approval) -> gate.GateDecision:
    """The gate's decision, and what the person decided about it."""
    word = "approved" if said.approved else "rejected"
    reason = f"{word} by {said.by}" + (f": {said.why}" if said.why else "")
    return replace(decision, passed=said.approved, reasons=(reason, *decision.reasons))


def _decide(s: Services, round_id: str) -> RoundResult:
    begun = start_of(s, round_id)
    with s.alone(LOCK) as held:
        if decided := result_of(s, round_id):
            if not decided.promoted or not is_taken_back(s, round_id):
                return decided
            return replace(decided, promoted=False, reasons=(TAKEN_BACK, *decided.reasons))
        figures = read(s, round_id, "evaluation")
        if figures is None:
            raise NoSuchRound(f"round {round_id} has not been evaluated")
        before, after = _metrics(figures["before"]), _metrics(figures["after"])
        kept, since, rounds = None, None, 1
        if "general_before" in figures:
            kept = _metrics(figures["general_before"]), _metrics(figures["general_after"])
            first, rounds = _first_general(s, begun, figures)
            since = first, kept[1]
        rule = gate.PromotionRule(
            min_gain=begun.min_gain / 100,
            min_masklets=begun.min_masklets,
            min_videos=begun.min_videos,
            max_slice_loss=begun.max_slice_loss / 100,
            max_forgotten=begun.max_forgotten / 100,
        )
        decision = gate.promote(before, after, rule, since, rounds)
        serving = s.checkpoint().name
        if decision.passed and serving not in (
            begun.parent,
            round_id,
        ):  # itself: an earlier call was interrupted after the promotion
            reason = f"{serving} serves now, and the round was measured against {begun.parent}"
            decision = replace(decision, passed=False, reasons=(reason,))
        if is_taken_back(s, round_id):  # an earlier call was killed between the promotion and the decision
            decision = replace(decision, passed=False, reasons=(TAKEN_BACK, *decision.reasons))
        said = approval_of(s, round_id)
        waits = said is None and decision.passed and serving != round_id and s.settings.rounds.approval == "person"
        if said is not None and decision.passed:
            decision = _with_approval(decision, said)
        outcome = RoundResult(
            round_id,
            decision.passed and not waits,
            decision.reasons,
            before.jf,
            after.jf,
            after.masklets,
            interval=None if decision.gain is None else (decision.gain.low, decision.gain.high),
            general_before=kept and kept[0].jf,
            general_after=kept and kept[1].jf,
            general_first=since and since[0].jf,
            general_rounds=rounds,
            waits=waits,
        )
        if waits:
            s.blobs.create(f"rounds/{round_id}/gate.json", json.dumps(asdict(outcome), indent=1).encode())
            return outcome
        metrics = {"jf_before": before.jf, "jf_after": after.jf, "promoted": float(decision.passed)}
        metrics |= {"general_before": kept[0].jf, "general_after": kept[1].jf} if kept else {}
        run_id = s.registry.record(round_id, asdict(begun) | {"rule": json.dumps(asdict(rule))}, metrics)
        if decision.passed:
            key = f"checkpoints/{round_id}"
            held.check()  # otherwise, another process may have promoted a checkpoint meanwhile
            s.registry.promote(Checkpoint(round_id, begun.number, key), s.blobs.uri_of(key), run_id)
        s.blobs.create(f"rounds/{round_id}/decision.json", json.dumps(asdict(outcome), indent=1).encode())
        return outcome


def _first_general(s: Services, begun: Round, figures: Mapping[str, Any]) -> tuple[gate.Metrics, int]:
    """The general set as it was measured before the oldest ancestor of a round; and the number of rounds since then.

    With this, what several rounds forget adds up: each is measured against its parent alone. An ancestor counts if it
    was measured by the same protocol on the same general set, with at least the masklets that are measured now.
    Reads one small file an ancestor, and the measurement of the oldest.
    """
    line = [begun]
    with contextlib.suppress(NoSuchRound):  # no round made the checkpoint at the start of the line
        while line[-1].parent_key is not None:
            line.append(start_of(s, line[-1].parent))
    now = _metrics(figures["general_before"])
    wanted = {(one.video_id, one.name) for one in now.each}
    for place in range(len(line) - 1, 0, -1):
        if line[place].general != begun.general:
            continue
        then = read(s, line[place].round_id, "evaluation") or {}
        if "general_before" not in then or then.get("protocol") != figures.get("protocol"):
            continue
        same = [one for one in _metrics(then["general_before"]).each if (one.video_id, one.name) in wanted]
        if same and len(same) == len(wanted):
            return gate.Metrics.of(same), place + 1
    return now, 1


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
