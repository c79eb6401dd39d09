"""Retraining rounds: pin a release, train, evaluate on held-out videos, and promote only if the gate passes.

A round's id follows from what it begins with (release, checkpoint, budget, seed), so starting it again finds it, and
every step of it can be run again. Its state is in the store: rounds/<id>/*.json and checkpoints/<id>/.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine import evaluate as protocols
from engine.evaluate import Truth
from engine.registry import Checkpoint
from engine.services import Services
from storage import releases, rle
from storage.blobs import BlobMissing
from storage.records import STRIDE, Masklet, Video, content_id
from storage.releases import Release
from storage.video import FrameReader
from validation import gate

if TYPE_CHECKING:
    from model.clips import Clip
    from model.load import LoadedModel
    from model.train import Progress as TrainProgress

PROTOCOL = "3-click"  # the paper's: three clicks on the first frame that shows the object


class NothingToTrainOn(Exception):
    """The release has no masklet of a training video."""


class NothingHeldOut(Exception):
    """The release has no masklet of a held-out video: nothing could be measured."""


class NoSuchRound(Exception):
    """There is no such round."""


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
    masklets: int  # in the release: the watermark that the next round counts from


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
    """The release that a round should begin with by itself: None while too little is new since the last round."""
    names = releases.names(s.blobs)
    if not names:
        return None
    newest = max(names)  # names begin with their number
    rounds = [start_of(s, round_id) for round_id in ids(s)]
    seen = max((r.masklets for r in rounds), default=0)
    count = _train_masklets(releases.load(s.blobs, newest))
    return newest if count - seen >= s.settings.rounds.min_new_masklets else None


def start(s: Services, release: str, *, steps: int | None = None, lr: float | None = None, seed: int = 1) -> str:
    """Pins everything a round depends on and returns its id; the same again is the same round.

    Raises NoSuchRelease, NothingToTrainOn, NothingHeldOut.
    """
    pinned = releases.load(s.blobs, release)
    parent = s.checkpoint()
    train = _train_masklets(pinned)
    if train == 0:
        raise NothingToTrainOn(f"release {release} has no masklet of a training video")
    if not any(m.split == "val" for m in pinned.iter_masklets()):
        raise NothingHeldOut(f"release {release} has no masklet of a held-out video: a round could not be measured")
    steps = s.settings.rounds.steps if steps is None else steps
    lr = s.settings.rounds.lr if lr is None else lr
    digest = content_id(release, parent.name, str(steps), repr(lr), str(seed), length=8)
    number = parent.round + 1
    round_id = f"round-{number:03d}-{digest}"
    begun = Round(round_id, number, release, parent.name, parent.key, parent.round, steps, lr, seed, train)
    s.blobs.create(f"rounds/{round_id}/start.json", json.dumps(asdict(begun), indent=1).encode())
    return round_id


def train(s: Services, round_id: str, report: Callable[[TrainProgress], None] = lambda progress: None) -> str:
    """Fine-tunes from the round's parent on the release's training videos; a killed run goes on where it was saved."""
    begun = start_of(s, round_id)
    if s.blobs.exists(f"checkpoints/{round_id}/meta.json"):
        return round_id
    from model import load
    from model import train as trainer

    parent = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key))
    release = releases.load(s.blobs, begun.release)
    recipe = recipe_of(begun, s.settings.rounds.image_size or parent.image_size)
    source = ReleaseClips.of(s, release, recipe.stages[0].frames)
    folder = s.home / "rounds" / round_id
    tuned = trainer.train(
        load.resized(parent.model, recipe.stages[0].image_size),
        lambda _: source,
        recipe,
        folder,
        device=s.device,
        save_every=25,
        report_every=10,
        report=report,
    )
    saved = load.save(
        tuned,
        folder / "checkpoint",
        card=_card(begun),
        meta={"round": asdict(begun), "recipe": asdict(recipe), "transformers": version("transformers")},
        mean=parent.mean,
        std=parent.std,
    )
    for file in sorted(saved.iterdir(), key=lambda f: f.name == "meta.json"):  # meta.json last: it says "whole"
        s.blobs.write(f"checkpoints/{round_id}/{file.name}", file)
    (folder / "state.pt").unlink(missing_ok=True)
    shutil.rmtree(folder / "checkpoint")
    return round_id


def recipe_of(begun: Round, image_size: int) -> Any:
    """The fine-tuning recipe of a round: one stage of the paper's interaction, a low rate, a short warm-up."""
    from model.clip_forward import Interaction
    from model.train import Recipe, Stage

    return Recipe(
        stages=(
            Stage(
                "fine-tune",
                begun.steps,
                image_size,
                frames=6,
                batch=2,
                lr=begun.lr,
                encoder_lr=begun.lr * 0.6,  # the ratio of the released fine-tuning configuration
                warmup=max(1, begun.steps // 10),
                final_lr=0.1,
                interaction=Interaction(correction_clicks=3),
            ),
        ),
        seed=begun.seed,
        weight_decay=0.1,
        clip_grad=0.1,
    )


def evaluate(s: Services, round_id: str) -> str:
    """Measures the round's checkpoint and its parent on the release's held-out videos, both the same way."""
    begun = start_of(s, round_id)
    if _read(s, round_id, "evaluation") is not None:
        return round_id
    release = releases.load(s.blobs, begun.release)
    after = s.model(Checkpoint(round_id, begun.number, f"checkpoints/{round_id}"))
    before = s.model(Checkpoint(begun.parent, begun.parent_round, begun.parent_key))
    figures = {name: asdict(measure(s, release, loaded)) for name, loaded in (("before", before), ("after", after))}
    s.blobs.create(f"rounds/{round_id}/evaluation.json", json.dumps(figures, indent=1).encode())
    return round_id


def measure(s: Services, release: Release, loaded: LoadedModel) -> gate.Metrics:
    """J&F on the held-out masklets of a release, and by size of the object. Raises NothingHeldOut."""
    scores, sizes = [], []
    for video in release.videos():
        if video.split != "val":
            continue
        rows = release.masklets([video.video_id])
        with s.frames(video) as reader:
            found = protocols.semi_supervised(
                loaded,
                reader.read,
                (video.height, video.width),
                video.frame_count,
                {row.masklet_id: Truth.of(row) for row in rows},
                PROTOCOL,
            )
        for row in rows:
            score = found[row.masklet_id][0]
            if score is not None:
                scores.append(score)
                share = max(row.area_px) / (row.height * row.width)
                sizes.append("small" if share < 0.01 else "medium" if share < 0.1 else "large")
    mean = protocols.pooled(scores)
    if mean is None:
        raise NothingHeldOut(f"release {release.name} has no masklet of a held-out video")
    slices = {}
    for size in sorted(set(sizes)):
        part = protocols.pooled([score for score, of in zip(scores, sizes, strict=True) if of == size])
        assert part is not None
        slices[f"size={size}"] = (part.j + part.f) / 2
    return gate.Metrics(jf=(mean.j + mean.f) / 2, masklets=mean.count, slices=slices)


def decide(s: Services, round_id: str) -> Outcome:
    """Lets the gate decide, records the round in the registry, and promotes the checkpoint if it passed."""
    begun = start_of(s, round_id)
    figures = _read(s, round_id, "evaluation")
    if figures is None:
        raise NoSuchRound(f"round {round_id} has not been evaluated")
    before, after = gate.Metrics(**figures["before"]), gate.Metrics(**figures["after"])
    rule = gate.PromotionRule(min_gain=s.settings.rounds.min_gain / 100)
    decision = gate.promote(before, after, rule)
    outcome = Outcome(round_id, decision.passed, decision.reasons, before.jf, after.jf, after.masklets)
    metrics = {"jf_before": before.jf, "jf_after": after.jf, "promoted": float(decision.passed)}
    run_id = s.registry.record(round_id, asdict(begun) | {"rule": json.dumps(asdict(rule))}, metrics)
    if decision.passed:
        key = f"checkpoints/{round_id}"
        s.registry.promote(Checkpoint(round_id, begun.number, key), s.blobs.uri_of(key), run_id)
    s.blobs.create(f"rounds/{round_id}/decision.json", json.dumps(asdict(outcome), indent=1).encode())
    return outcome


def ids(s: Services) -> list[str]:
    """Every round that was started, in order."""
    return sorted({key.split("/")[1] for key in s.blobs.keys("rounds/")})


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


def _train_masklets(release: Release) -> int:
    return sum(m.split == "train" for m in release.iter_masklets())


@dataclass(frozen=True)
class ReleaseClips:
    """The training videos of a release as a clip source: seed -> clip. Decodes only the frames that a clip has."""

    videos: tuple[tuple[Path, Video, tuple[Masklet, ...]], ...]
    frames: int

    @staticmethod
    def of(s: Services, release: Release, frames: int) -> ReleaseClips:
        found = []
        for video in release.videos():
            rows = tuple(release.masklets([video.video_id])) if video.split == "train" else ()
            if rows and video.frame_count > (frames - 1) * STRIDE:
                found.append((s.blobs.fetch(video.video_key), video, rows))
        if not found:
            raise NothingToTrainOn(f"release {release.name} has no training video of {frames} annotated frames")
        return ReleaseClips(tuple(found), frames)

    def __call__(self, seed: int) -> Clip:
        """A run of annotated frames in which at least one object shows on the first, where that can be found."""
        from model.clips import Clip

        rng = np.random.default_rng(seed)
        path, video, rows = self.videos[int(rng.integers(len(self.videos)))]
        last = (video.frame_count - 1) // STRIDE - self.frames + 1
        begin = int(rng.integers(0, last + 1))
        wanted = [STRIDE * (begin + i) for i in range(self.frames)]
        by_frame = [dict(zip(row.frame_idx, row.rle, strict=True)) for row in rows]
        empty = np.zeros((video.height, video.width), bool)
        masks = np.stack(
            [
                np.stack([rle.decode(of[i], video.height, video.width) if i in of else empty for of in by_frame])
                for i in wanted
            ]
        )
        with FrameReader(path) as reader:
            frames = np.stack([reader.read(i) for i in wanted])
        return Clip(frames, masks)


def _card(begun: Round) -> str:
    return (
        f"# {begun.round_id}\n\nA SAM 2 video checkpoint, fine-tuned by Masklet Engine from `{begun.parent}` on "
        f"release `{begun.release}` ({begun.masklets} training masklets, {begun.steps} steps, "
        f"learning rate {begun.lr:g}, seed {begun.seed}).\n\n"
        "Loads with `transformers.Sam2VideoModel.from_pretrained`.\n"
    )
