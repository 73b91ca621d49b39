"""
Several processes train one model: `torchrun` starts them, gradients are averaged (DDP).

Every process has its own batches. The first of all writes checkpoints and speaks; the first of a
host renders. All read and write one folder, so on several hosts it has to be a shared one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """Which of how many processes this is; one alone unless `torchrun` says otherwise."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    host: int = 0
    hosts: int = 1

    def device(self, kind: str) -> torch.device:
        """Return the device of this process: each takes an accelerator of its own."""
        return torch.device(kind, self.local_rank) if kind == 'cuda' else torch.device(kind)

    def agreed(self, value: float, device: torch.device) -> float:
        """Return the first process's value in all of them."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return float(shared)

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def spread(self, trainer: nn.Module) -> nn.Module:
        """Return the module to call: gradients are averaged over all processes."""
        if self.size == 1:
            return trainer
        # Stage one leaves parts of the model alone.
        return DistributedDataParallel(trainer, find_unused_parameters=True)


@contextmanager
def joined(kind: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, if it did, for the time of the block."""
    size = int(os.environ.get('WORLD_SIZE', 1))
    if size == 1:
        yield World()
        return
    local, here = int(os.environ['LOCAL_RANK']), int(os.environ['LOCAL_WORLD_SIZE'])
    if kind == 'cuda':
        torch.cuda.set_device(local)
    dist.init_process_group('nccl' if kind == 'cuda' else 'gloo')
    try:
        yield World(dist.get_rank(), size, local, int(os.environ['GROUP_RANK']), size // here)
    finally:
        dist.destroy_process_group()
