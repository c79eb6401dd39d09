"""How large an experiment is: clips, frames, training steps and seeds. Every step takes its sizes from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import model
from engine.rounds import recipes
from engine.synthetic.domains.drawing import Size

MICRO_FOLDER = Path(model.__path__[0]) / "micro"
SPACING = 1_000_003  # between the seeds of two experiments, as in the demo


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The sizes of an experiment on one domain. Clips are of the domain, at 24 frames a second."""

    size: Size  # of a clip
    labour_clips: int  # labelled in phase 1, in phase 2 and in phase 3
    batch_clips: int  # in each batch of the chain and of the rounds
    gate_clips: int  # held-out clips with true masklets, on which the gate measures a round
    measured_clips: int  # other held-out clips, on which every result is measured; as many of micro's
    candidates: int  # most candidates of a clip
    # training steps; None: in rounds the default for their masklets, in other trainings half of it
    steps: int | None
    chain_steps: int  # of each training of the chain: always the same, as in the paper's table 2
    labels: tuple[int, ...]  # numbers of true masklets to train on
    checkpoint: str  # that every training begins with
    lr: float = 3e-4
    seed: int = 1
    # the rule of `steps_for`, which holds where steps is None: results under another rule cannot be compared
    round_steps: tuple[int, int, int] = recipes.STEPS_RULE

    def clip_seed(self, number: int) -> int:
        """The seed of a clip for training. Its number says which batch shows it: see `loops`."""
        return self.seed * SPACING + number

    def steps_on(self, masklets: int) -> int:
        """Training steps on this many masklets, outside of rounds: half of a round's.

        Half of a round's clips are replayed or show rejected candidates.
        """
        return recipes.steps_for(masklets, self.round_steps) // 2 if self.steps is None else self.steps


FULL = Plan(
    size=Size(height=240, width=320, frames=40),
    labour_clips=12,
    batch_clips=12,
    gate_clips=12,  # with 4, the interval of a gain on pond was 50 points wide
    measured_clips=12,
    candidates=6,
    steps=None,
    chain_steps=recipes.steps_for(150) // 2,  # the chain ends with about 150 masklets
    labels=(10, 30, 100, 300),
    checkpoint="micro",
)

#: The same steps in five minutes, to see that they work. The figures mean nothing. The checkpoint is `micro` by its
#: folder, so that the rounds neither replay nor measure micro's own clips.
QUICK = Plan(
    size=Size(height=240, width=320, frames=24),
    labour_clips=1,
    batch_clips=1,
    gate_clips=1,
    measured_clips=1,
    candidates=3,
    steps=2,
    chain_steps=2,
    labels=(10, 30),
    checkpoint=str(MICRO_FOLDER),
)
