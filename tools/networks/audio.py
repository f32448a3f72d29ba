"""1-D networks on waveforms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.topology import Input, topology


class TemporalBlock(nn.Module):
    """Conv-TasNet's block: 1x1, PReLU, norm, dilated depthwise, PReLU, norm, two outputs."""

    def __init__(self, channels: int, hidden: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, hidden, 1),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
            nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden),
            nn.PReLU(),
            nn.GroupNorm(1, hidden, eps=1e-8),
        )
        self.residual = nn.Conv1d(hidden, channels, 1)
        self.skip = nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The stream, and what goes to the masks directly."""
        y = self.body(x)
        return x + self.residual(y), self.skip(y)


class ConvTasNet(nn.Module):
    """Learned filter bank, temporal blocks that estimate a mask per source, transposed bank."""

    def __init__(self, filters: int = 48, channels: int = 32, sources: int = 2) -> None:
        super().__init__()
        self.sources = sources
        self.encoder = nn.Conv1d(1, filters, 16, 8, bias=False)
        self.enter = nn.Sequential(
            nn.GroupNorm(1, filters, eps=1e-8), nn.Conv1d(filters, channels, 1)
        )
        self.blocks = nn.ModuleList(TemporalBlock(channels, 64, 32, 2**i) for i in range(3))
        self.masks = nn.Sequential(nn.PReLU(), nn.Conv1d(32, sources * filters, 1), nn.Sigmoid())
        self.decoder = nn.ConvTranspose1d(filters, 1, 16, 8, bias=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """The sources, shape (batch, sources, samples)."""
        features = torch.relu(self.encoder(waveform))
        stream, total = self.enter(features), 0
        for block in self.blocks:
            stream, skip = block(stream)
            total = total + skip
        batch, filters, frames = features.shape
        masks = self.masks(total).view(batch, self.sources, filters, frames)
        masked = (masks * features.unsqueeze(1)).view(batch * self.sources, filters, frames)
        return self.decoder(masked).view(batch, self.sources, -1)


@topology(Input("waveform", (1, 640)))
def conv_tasnet() -> nn.Module:
    """Separates sources by masks on a learned filter bank."""
    return ConvTasNet()


class GatedBlock(nn.Module):
    """WaveNet's block: a dilated convolution, half of it gates the other half."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilated = nn.Conv1d(channels, 2 * channels, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Carry a signal through."""
        return x + self.out(nn.functional.glu(self.dilated(x), dim=1))


@topology(Input("waveform", (1, 1024)))
def wave_classifier() -> nn.Module:
    """Strided 1-D convolutions with BatchNorm, gated residual blocks, average, linear."""
    return nn.Sequential(
        nn.Conv1d(1, 24, 25, 4, 12, bias=False),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.MaxPool1d(4),
        GatedBlock(24, 1),
        GatedBlock(24, 2),
        nn.Conv1d(24, 48, 3, 2, 1),
        nn.ELU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
