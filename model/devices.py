"""Devices: which one a name means, how many CPU threads the models of this process use, and reading flags from one.

A program that reads a value from a GPU waits until all queued work is done. Code in this folder therefore reads as
rarely as possible.
"""

from __future__ import annotations

import torch
from torch import Tensor


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


def rows_of(flags: Tensor) -> tuple[list[int], Tensor]:
    """The rows whose flag is set, ascending: as a list, and as an index on the device of the flags. Reads once.

    flags: bool (N,). `flags.nonzero()` would read once for its shape, and its `tolist` once more.
    """
    rows = [row for row, is_set in enumerate(flags.tolist()) if is_set]
    return rows, flags.byte().argsort(descending=True, stable=True)[: len(rows)]
