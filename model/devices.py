"""Where a model runs: the device of a name, and the CPU threads of this process."""

from __future__ import annotations

import torch


def set_threads(count: int | None) -> None:
    """CPU threads of every model in this process; None leaves torch's own choice."""
    if count is not None:
        torch.set_num_threads(count)


def pick_device(wanted: str) -> str:
    """The device of a name; "auto" is the GPU where there is one. Raises ValueError for one that is not there."""
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
