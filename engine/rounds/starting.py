"""Decides whether a round should start, and pins its inputs.

They are the release, the parent checkpoint, the budget, the gate, the general set and the seed. The round's id
follows from them, so starting the same round again finds it. The device, `rounds.launcher` and `rounds.share_batch` are
not pinned, although they change the weights a little.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

from engine.datasets import clip_sampler, layouts
from engine.datasets.clip_sampler import ClipSampler, NothingToTrainOn
from engine.protocols.truth import NothingHeldOut
from engine.rounds import campaign, recipes, record
from engine.rounds.general import MICRO
from engine.rounds.record import Round
from engine.services import Services
from model.training.parameter_groups import TrainedParts
from storage.blobs.base import Blobs
from storage.dataset import release_numbers, releases
from storage.dataset.releases import NoSuchRelease, Release
from storage.records import Masklet, content_id

log = logging.getLogger(__name__)

PERMANENT_ERRORS = (NoSuchRelease, NothingToTrainOn, NothingHeldOut)  # of `start`: a retry cannot fix them

SOME_PX = 256  # stands for the parent's image size, which is known once the parent is loaded
FRAMES = 6  # annotated frames of a training clip, as the recipe `quick` has it


@dataclass(frozen=True)
class Budget:
    """What the caller of a round chooses. None: as `rounds` in the settings says."""

    steps: int | None = None
    lr: float | None = None
    parts: TrainedParts | None = None  # which weights change
    seed: int = 1


def due(s: Services) -> str | None:
    """The release to start or continue a round with automatically; None if no round is due (see `campaign`).

    None also while a round waits for a person's approval: after the answer, another checkpoint may serve.
    A round without a decision was interrupted or is running. It is due if `start` would give the same id again;
    otherwise it is ignored. So is one that failed so often that trying again is no use: the next release counts.
    A video that is withdrawn after a round neither makes another round due nor puts it off.
    """
    decided = record.decided(s)
    open_ids = sorted(set(record.ids(s)) - {r.round_id for r in decided})
    if waiting := [round_id for round_id in open_ids if record.waiting_of(s, round_id) is not None]:
        log.info("no round starts: %s waits for a person's approval", ", ".join(waiting))
        return None
    found = (_due_of(s, project, decided) for project in s.settings.project_names)
    return next((release for release in found if release is not None), None)


def _due_of(s: Services, project: str, all_decided: Sequence[Round]) -> str | None:
    """The same for the releases of one project."""
    names = releases.names(s.blobs, project)
    if not names:
        return None
    decided = [r for r in all_decided if releases.project_of(r.release) == project]
    seen = 0
    for begun in sorted(decided, key=lambda r: releases.place(r.release), reverse=True):
        if begun.masklets > seen:  # otherwise, fewer are left
            seen = max(seen, _left(s, begun, names))
    undecided = [r for r in record.all_of(s) if r not in all_decided and releases.project_of(r.release) == project]
    undecided = [r for r in undecided if r.masklets > seen and _left(s, r, names) > seen]
    again = [r for r in undecided if _round(s, releases.load(s.blobs, r.release)).round_id == r.round_id]
    failed = {r.release for r in again if record.has_failed(s, r.round_id)}
    if going := [r for r in again if r.release not in failed]:
        return max(going, key=lambda r: _left(s, r, names)).release
    newest = releases.load(s.blobs, names[-1])
    if newest.name in failed:
        log.warning("no round starts: the one on %s failed again and again; masklets why says how", newest.name)
        return None
    if (missing := campaign.needed_for_round(s, _count(newest, "train") - seen, project)) is not None:
        log.info("no round starts: %s", missing)
        return None
    try:
        _check_release(newest)
    except (NothingToTrainOn, NothingHeldOut) as error:
        log.warning("no round starts: %s", error)
        return None
    return newest.name


def _left(s: Services, begun: Round, names: Sequence[str]) -> int:
    """How many of the training masklets of a round the newest release still has. names: of all releases.

    Reads nothing unless a video was withdrawn since the round's release; then two manifests for each such video.
    """
    since = releases.place(begun.release)
    gone = {
        (earlier, name): video_id
        for earlier, name in itertools.pairwise(names)
        if releases.place(name) > since and (video_id := release_numbers.video_left_out(name)) is not None
    }
    if not gone:
        return begun.masklets
    trained_on = releases.load(s.blobs, begun.release)
    lost = (
        _training_masklets(s.blobs, earlier) - _training_masklets(s.blobs, name)
        for (earlier, name), video_id in gone.items()
        if trained_on.holds(video_id)
    )
    return begun.masklets - sum(lost)


@lru_cache(maxsize=4096)
def _training_masklets(blobs: Blobs, release: str) -> int:
    return _count(releases.load(blobs, release), "train")


def start(s: Services, release: str, budget: Budget = Budget()) -> str:  # noqa: B008  frozen
    """Pins everything that a round depends on and returns its id. The same inputs give the same round.

    Checks everything before it writes.
    Raises NoSuchRelease, NothingToTrainOn, NothingHeldOut; ValueError for an invalid number.
    """
    trained_on = releases.load(s.blobs, release)
    begun = _round(s, trained_on, budget)
    recipes.of_round(begun, begun.image_size or SOME_PX)  # raises ValueError for an invalid number
    _check_release(trained_on)
    s.blobs.create(f"rounds/{begun.round_id}/start.json", json.dumps(asdict(begun), indent=1).encode())
    return begun.round_id


def _check_release(release: Release) -> None:
    """Checks that the release can train and measure a round. Raises NothingToTrainOn, NothingHeldOut.

    Reads the videos one after the other until it has found one of each kind, in whichever batch.
    """
    one_by_one = (layouts.of_release(release, [v]) for v in release.iter_videos() if v.split == "train")
    if not any(of.runs(FRAMES) for data in one_by_one for of in clip_sampler.index(data)):
        ClipSampler(layouts.of_release(release).only("train"), [], FRAMES)  # raises NothingToTrainOn
    if not any(_scorable(m) for v in release.iter_videos() if v.split == "val" for m in release.masklets([v.video_id])):
        raise NothingHeldOut(
            f"release {release.name} shows no object in a held-out video: a round could not be measured"
        )


def _round(s: Services, release: Release, budget: Budget = Budget()) -> Round:  # noqa: B008  frozen
    """The round that would start now."""
    parent, chosen = s.checkpoint(), s.settings.rounds
    masklets = _count(release, "train")
    of_micro = s.settings.model.checkpoint == MICRO
    pinned = Round(
        round_id="",
        number=parent.round + 1,
        release=release.name,
        parent=parent.name,
        parent_key=parent.key,
        parent_round=parent.round,
        steps=next(n for n in (budget.steps, chosen.steps, recipes.steps_for(masklets)) if n is not None),
        lr=next(float(x) for x in (budget.lr, chosen.lr, recipes.lr_for(micro=of_micro)) if x is not None),
        seed=budget.seed,
        image_size=chosen.image_size,
        masklets=masklets,
        min_gain=chosen.min_gain,
        min_masklets=chosen.min_masklets,
        min_videos=chosen.min_videos,
        max_slice_loss=chosen.max_slice_loss,
        max_forgotten=chosen.max_forgotten,
        general=chosen.general or (MICRO if of_micro else None),
        replay=chosen.replay,
        parts=budget.parts or chosen.parts,
        rejected=chosen.rejected,
    )
    return replace(pinned, round_id=f"round-{pinned.number:03d}-{content_id(repr(pinned), length=8)}")


def _count(release: Release, split: str) -> int:
    """The number of masklets of a split."""
    return int(release.counts["by_split"].get(split, {}).get("masklets", 0))


def _scorable(row: Masklet) -> bool:
    """Whether a held-out masklet can be measured: it is visible on a frame between the first and the last."""
    return any(row.area_px[1:-1])
