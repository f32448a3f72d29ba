"""Several processes that train together, as ``torchrun`` starts them.

Each takes its share of every batch; gradients are added up, so that a step is the one that a single
process would have taken with the whole batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from onnxprune.arrays import IndexArray
from onnxprune.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which of them this one is.

    Attributes:
        rank: the number of this one.
        count: how many there are.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes and shows."""
        return self.rank == 0

    def share(self, indices: IndexArray) -> IndexArray:
        """This process's share of a batch."""
        return indices[self.rank :: self.count]

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same for all."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def average(self, values: Tensor) -> Tensor:
        """The mean over all processes, the same for all."""
        return values if self.count == 1 else self.total(values) / self.count

    def agreed(self, value: float) -> float:
        """What the first process has, so that all decide alike."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, 0)
        return float(shared)

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace gradients by their sums over all processes.

        Where no process has one there is none; where some have, it counts as zero for the others.
        """
        if self.count == 1:
            return
        there = torch.tensor([p.grad is not None for p in parameters], device=self.device)
        there = self.total(there.float())
        used = [p for p, some in zip(parameters, there.tolist(), strict=True) if some]
        if not used:
            return
        zeros = (torch.zeros_like(p) if p.grad is None else p.grad for p in used)
        flat = self.total(torch.cat([gradient.reshape(-1) for gradient in zeros]))
        for parameter, part in zip(used, torch.split(flat, [p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter).clone()

    def average_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Replace running statistics by their means over all processes."""
        if self.count > 1 and buffers:
            flat = self.average(torch.cat([buffer.reshape(-1) for buffer in buffers]))
            parts = torch.split(flat, [buffer.numel() for buffer in buffers])
            for buffer, part in zip(buffers, parts, strict=True):
                buffer.copy_(part.view_as(buffer))


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The processes that ``torchrun`` has started, or this one alone.

    Args:
        device: cpu, or cuda for one device per process.

    Raises:
        TrainingError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "torch sees no CUDA device: train on the CPU, --device cpu, or install a build of "
            "torch for CUDA and its driver"
        )
    count = int(os.environ.get("WORLD_SIZE", "1"))
    place = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device("cuda", place) if device == "cuda" else torch.device("cpu")
    if device == "cuda" and place >= torch.cuda.device_count():
        raise TrainingError(
            f"process {place} has no device of its own: there are {torch.cuda.device_count()}; "
            "start as many processes, torchrun --nproc-per-node"
        )
    if count == 1:
        yield Processes(0, 1, own)
        return
    if device == "cuda":
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), count, own)
    finally:
        distributed.destroy_process_group()
