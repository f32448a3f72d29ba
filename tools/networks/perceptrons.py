"""Networks of linear layers, shared weights, and several inputs and outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.topology import IMAGE, Input, topology


@topology(Input("signal", (64,)))
def autoencoder() -> nn.Module:
    """Perceptron that narrows and widens."""
    return nn.Sequential(
        nn.Linear(64, 96),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.Linear(96, 48),
        nn.LayerNorm(48),
        nn.GELU(),
        nn.Linear(48, 12),
        nn.Linear(12, 48),
        nn.Tanh(),
        nn.Linear(48, 96),
        nn.LeakyReLU(0.1),
        nn.Linear(96, 64),
    )


class TiedAutoencoder(nn.Module):
    """The decoder's matrices are the encoder's, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 80)
        self.second = nn.Linear(80, 24)
        self.inner_bias = nn.Parameter(torch.zeros(80))
        self.outer_bias = nn.Parameter(torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        code = torch.relu(self.second(torch.relu(self.first(x))))
        y = torch.relu(functional.linear(code, self.second.weight.t(), self.inner_bias))
        return functional.linear(y, self.first.weight.t(), self.outer_bias)


@topology(Input("signal", (64,)))
def tied_autoencoder() -> nn.Module:
    """Every weight matrix is used twice, once transposed."""
    return TiedAutoencoder()


class SharedHead(nn.Module):
    """One convolutional head for all levels of a pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU())
        self.high = nn.Sequential(nn.Conv2d(24, 40, 3, 2, 1), nn.ReLU())
        self.lateral = nn.ModuleList([nn.Conv2d(24, 32, 1), nn.Conv2d(40, 32, 1)])
        self.head = nn.Sequential(nn.Conv2d(32, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 6, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions of both levels."""
        low = self.low(x)
        high = self.lateral[1](self.high(low))
        low = self.lateral[0](low) + functional.interpolate(high, scale_factor=2.0, mode="nearest")
        return self.head(low), self.head(high)


@topology()
def shared_head() -> nn.Module:
    """The same convolutions read two tensors."""
    return SharedHead()


class ManyInputs(nn.Module):
    """An image and a vector of facts in, a class, a box and an embedding out."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 40, 3, 2, 1), nn.ReLU()
        )
        self.facts = nn.Sequential(nn.Linear(12, 40), nn.ReLU())
        self.gate = nn.Linear(40, 40)
        self.joint = nn.Sequential(nn.Linear(80, 64), nn.ReLU())
        self.classes = nn.Linear(64, 7)
        self.box = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
        self.embedding = nn.Linear(64, 16)

    def forward(self, image: Tensor, facts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, box, embedding of unit length."""
        told = self.facts(facts)
        seen = self.image(image) * torch.sigmoid(self.gate(told))[:, :, None, None]
        joint = self.joint(torch.cat([seen.mean((2, 3)), told], 1))
        return self.classes(joint), self.box(joint), functional.normalize(self.embedding(joint))


@topology(IMAGE, Input("facts", (12,)))
def many_inputs() -> nn.Module:
    """Two inputs, three outputs."""
    return ManyInputs()
