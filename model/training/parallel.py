"""Several processes that train one model: which part of a batch each takes, and how their gradients are averaged.

`torchrun --nproc-per-node N -m ...` starts them, on one machine or on several. Without it there is one process, and
everything here does nothing. gloo carries tensors on a CPU, NCCL those on GPUs. Each process runs the same steps on its
share of the samples, and draws the random numbers of the whole batch: R processes with batch b do the same as one with
batch R * b. Knows nothing of the model or the recipe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """The processes that train together, seen from this one."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def rand(self, rows: int, *columns: int, generator: torch.Generator) -> Tensor:
        """This process's share, (rows, *columns), of uniform numbers drawn for the rows of all processes."""
        of_all = torch.rand(self.size * rows, *columns, generator=generator)
        return of_all[self.rank * rows : (self.rank + 1) * rows]

    def share(self, value: Any) -> Any:
        """Sends the leading process's value to all processes, and returns it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes, without gradient. A single process gets the value itself."""
        if self.size == 1:
            return value
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    def average_gradients(self, model: nn.Module) -> None:
        """Replaces gradients by their mean over the processes. All have gradients for the same parameters."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        begin = 0
        for gradient in gradients:
            gradient.copy_(flat[begin : begin + gradient.numel()].view_as(gradient))
            begin += gradient.numel()


def leads() -> bool:
    """Whether this process writes and reports for all. Works outside of `team`, too."""
    return os.environ.get("RANK", "0") == "0"


def is_single() -> bool:
    """Whether this process trains by itself: torchrun started no other."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def local_size() -> int:
    """The number of processes that torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _backend(device: str) -> str:
    """The backends that carry tensors. Losses and objects are on the CPU even if the model is on a GPU."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Joins the processes that torchrun started, until the end of the block. Without torchrun: a team of one."""
    if is_single():
        yield Team()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(_backend(device))
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
        dist.barrier()
    finally:
        dist.destroy_process_group()
