"""Devices: which one a name means, and how many CPU threads the models of this process use."""

from __future__ import annotations

import torch


def set_threads(count: int | None) -> None:
    """Sets the CPU threads of all models in this process; None keeps torch's own choice."""
    if count is not None:
        torch.set_num_threads(count)


def pick_device(wanted: str) -> str:
    """The device of a name. "auto" is the GPU if there is one, else the CPU. Raises ValueError for a missing device."""
    there = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if there else "cpu"
    try:
        kind = torch.device(wanted).type
    except RuntimeError as error:
        raise ValueError(f"no device {wanted!r}: auto, cpu, cuda or cuda:N") from error
    if kind == "cuda" and not there:
        raise ValueError(f"no device {wanted!r}: torch {torch.__version__} sees no GPU here")
    return wanted
