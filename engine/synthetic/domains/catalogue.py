"""The named domains: synthetic videos with ground truth that differ from the clips `micro` was trained on.

They represent a user's own domain, on which no published model was trained. Seeds from HELD_OUT on are for measuring.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.synthetic.domains import belt, cells, pond
from engine.synthetic.domains.drawing import Size
from model.clips import Clip

HELD_OUT = 1 << 41


@dataclass(frozen=True)
class Domain:
    """A kind of video. render: the clip of a seed; the same seed and size always give the same pixels."""

    about: str
    render: Callable[[int, Size], Clip]


DOMAINS: dict[str, Domain] = {
    "cells": Domain("cells under a phase-contrast microscope: halos, transparent overlaps", cells.render),
    "belt": Domain("metal parts on a conveyor belt: look-alikes that enter and leave", belt.render),
    "pond": Domain("fish from above: dancing light, plants that hide them, fast turns", pond.render),
}
