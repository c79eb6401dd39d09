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
    every_frame: bool  # each annotated frame is masked for itself
    propagates: tuple[str, ...]  # prompts that are carried through the clip; none: image mode only
    memory: bool  # clicks on a tracked frame are answered with the model's memory


PHASES: dict[str, Phase] = {
    "1": Phase("1", ("click", "box", "stroke", "mask"), every_frame=True, propagates=(), memory=False),
    "2": Phase(
        "2", ("click", "box", "stroke", "mask", "propagate"), every_frame=False, propagates=("mask",), memory=False
    ),
    "3": Phase(
        "3",
        ("click", "box", "stroke", "mask", "propagate"),
        every_frame=False,
        propagates=("click", "box", "mask"),
        memory=True,
    ),
    "auto": Phase("auto", (), every_frame=False, propagates=("mask",), memory=True),
}


def phase(name: str) -> Phase:
    """The row of a phase. Raises ValueError for a name that is not one."""
    if name not in PHASES:
        raise ValueError(f"the phases are {', '.join(PHASES)}, not {name!r}")
    return PHASES[name]


def payload(name: str) -> str:
    """What a ticket of this phase tells the queue: the prompts that it may take, as JSON."""
    return json.dumps({"prompts": list(phase(name).prompts)})
