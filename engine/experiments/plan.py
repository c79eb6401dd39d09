"""How large an experiment is: clips, frames, training steps and seeds. Every step takes its sizes from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import model
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
    steps: int  # training steps of a round
    labels: tuple[tuple[int, int], ...]  # masklets to train on, and training steps
    checkpoint: str  # that every training begins with
    lr: float = 3e-4
    seed: int = 1

    def clip_seed(self, number: int) -> int:
        """The seed of a clip for training. Its number says which batch shows it: see `loops`."""
        return self.seed * SPACING + number


FULL = Plan(
    size=Size(height=240, width=320, frames=40),
    labour_clips=12,
    batch_clips=12,
    gate_clips=4,
    measured_clips=6,
    candidates=6,
    steps=150,  # as a round has by default
    labels=((10, 150), (30, 150), (100, 150), (300, 150)),
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
    labels=((10, 2), (30, 2)),
    checkpoint=str(MICRO_FOLDER),
)
