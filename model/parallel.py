"""Several processes that train one model: who takes which part of a batch, and how their gradients become one.

`torchrun --nproc-per-node N -m ...` starts them, on one machine or on several; without it there is one process, and
everything here does nothing. gloo for what is on a CPU, NCCL for what is on GPUs. Each process runs the same steps on
its share of the samples, and draws what is random for the whole batch, so that R processes with batch b do what one
does with batch R * b.
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
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def rand(self, rows: int, *columns: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers (rows, *columns) for this process's share of a draw over all processes' rows."""
        everybodys = torch.rand(self.size * rows, *columns, generator=generator)
        return everybodys[self.rank * rows : (self.rank + 1) * rows]

    def share(self, value: Any) -> Any:
        """What the leading process has, for all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes, without gradient; on one process the value itself."""
        if self.size == 1:
            return value
        summed = value.detach().clone()
        dist.all_reduce(summed)
        return summed

    def average_gradients(self, model: nn.Module) -> None:
        """Makes every gradient the mean over the processes. All have gradients for the same parameters."""
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
    """Whether this process writes and reports for all, for who asks before the team is there or after."""
    return os.environ.get("RANK", "0") == "0"


def alone() -> bool:
    """Whether torchrun started no other process beside this one."""
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _backend(device: str) -> str:
    """What carries tensors: losses and objects are shared from the CPU also where the model is on a GPU."""
    return "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"


@contextmanager
def team(device: str) -> Iterator[Team]:
    """The processes that torchrun started, joined for the time of the block; one alone where it did not."""
    if alone():
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
