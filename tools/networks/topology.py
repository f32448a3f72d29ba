"""What a test subject is: how to build it, what it reads, and random weights for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SEED = 0


@dataclass(frozen=True)
class Input:
    """One input of a network.

    Attributes:
        name: its name in the exported file.
        shape: its shape without the batch.
        below: for whole numbers, what they are smaller than; None for real numbers.
    """

    name: str
    shape: tuple[int, ...]
    below: int | None = None

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Random values for a batch."""
        shape = (batch, *self.shape)
        if self.below is None:
            return torch.randn(shape, generator=generator)
        return torch.randint(self.below, shape, generator=generator)


@dataclass(frozen=True)
class Topology:
    """A small network with an architecture that people deploy.

    Attributes:
        name: its name, and that of its file.
        builder: makes the module, in whatever initial state.
        inputs: what it reads.
    """

    name: str
    builder: Callable[[], nn.Module]
    inputs: tuple[Input, ...]

    def module(self) -> nn.Module:
        """The network in evaluation mode, its weights random but always the same."""
        torch.manual_seed(SEED)
        module = self.builder().eval().requires_grad_(False)
        randomise(module, torch.Generator().manual_seed(SEED))
        return module

    def samples(self, batch: int, seed: int = SEED) -> tuple[Tensor, ...]:
        """Random values for every input."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(value.sample(batch, generator) for value in self.inputs)


TOPOLOGIES: dict[str, Topology] = {}
IMAGE = Input("input", (3, 32, 32))

Builder = Callable[[], nn.Module]


def topology(*inputs: Input) -> Callable[[Builder], Builder]:
    """Enter a builder under its own name; it reads an image if nothing else is said."""

    def enter(builder: Builder) -> Builder:
        name = builder.__name__
        TOPOLOGIES[name] = Topology(name, builder, inputs or (IMAGE,))
        return builder

    return enter


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Weights as of a trained network: nothing is 0, 1 or negligible, and signals keep their size.

    Scales of normalisations and of branches lie in [0.5, 1.5], biases and running means are a
    tenth of the signal, and a weight matrix roughly keeps its input's size.
    """

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))

    def normal(tensor: Tensor, std: float) -> None:
        tensor.copy_(std * torch.randn(tensor.shape, generator=generator))

    with torch.no_grad():
        for name, tensor in module.named_parameters():
            if tensor.squeeze().dim() > 1:
                normal(tensor, 1.2 / tensor[0].numel() ** 0.5)
            elif name.endswith("bias") or name.split(".")[-1].startswith("bias_"):
                normal(tensor, 0.1)
            else:
                uniform(tensor, 0.5, 1.5)
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                normal(tensor, 0.1)
            elif name.endswith("running_var"):
                uniform(tensor, 0.5, 1.5)
