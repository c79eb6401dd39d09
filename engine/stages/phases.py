"""The phases of the data engine as one table, which the queue and the simulated annotators obey.

Source: Ravi et al. 2024, section 5.1 and table 1. A phase is a row here, never a code path elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """What an annotator may do in a ticket, and what the model does with it."""

    name: str
    prompts: tuple[str, ...]  # words of annotation_queue.records.PROMPTS
    propagates: tuple[
        str, ...
    ]  # prompts that the model carries through the clip; none: image mode, every frame by hand


_BY_HAND = ("click", "box", "stroke", "mask")
PHASES: dict[str, Phase] = {
    "1": Phase("1", _BY_HAND, propagates=()),
    "2": Phase("2", (*_BY_HAND, "propagate"), propagates=("mask",)),
    "3": Phase("3", (*_BY_HAND, "propagate"), propagates=("click", "box", "mask")),
    "auto": Phase("auto", (), propagates=("mask",)),
}


def phase(name: str) -> Phase:
    """The row of a phase. Raises ValueError for a name that is not one."""
    if name not in PHASES:
        raise ValueError(f"the phases are {', '.join(PHASES)}, not {name!r}")
    return PHASES[name]


def payload(name: str) -> str:
    """What a ticket of this phase tells the queue, as JSON: the prompts that it may take, and how clicks are answered.

    memory: in the light of the frames around, by the full video model; otherwise as on a picture by itself.
    """
    row = phase(name)
    return json.dumps({"prompts": list(row.prompts), "memory": "click" in row.propagates})
