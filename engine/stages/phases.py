"""The phases of the data engine as one table: for the queue's tickets and for the simulated annotators.

Source: Ravi et al. 2024, section 5.1 and table 1. A phase is a row here, never a code path elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Phase:
    """What an annotator may do in a ticket, and which prompts the model propagates."""

    name: str
    prompts: tuple[str, ...]  # words of annotation_queue.rules.PROMPTS
    propagates: tuple[str, ...]  # kinds of prompt that the model propagates; (): image mode, every frame by hand


_BY_HAND = ("click", "box", "stroke", "mask")
PHASES: dict[str, Phase] = {
    "1": Phase("1", _BY_HAND, propagates=()),
    "2": Phase("2", (*_BY_HAND, "propagate"), propagates=("mask",)),
    "3": Phase("3", (*_BY_HAND, "propagate"), propagates=("click", "box", "mask")),
    "auto": Phase("auto", (), propagates=("mask",)),
}


def phase(name: str) -> Phase:
    """The row of a phase. Raises ValueError for an unknown name."""
    if name not in PHASES:
        raise ValueError(f"the phases are {', '.join(PHASES)}, not {name!r}")
    return PHASES[name]


def payload(name: str, rules: Mapping[str, object] = MappingProxyType({})) -> str:
    """The JSON that a ticket of this phase gives to the queue: the allowed prompts, and how clicks are answered.

    memory: true if the full video model answers a click, with the memory of other frames; false for image mode.
    rules: further keys, such as those of `labelling`; sorted, because an order of their own would tell gold.
    """
    row = phase(name)
    return json.dumps({"prompts": list(row.prompts), "memory": "click" in row.propagates} | dict(sorted(rules.items())))
