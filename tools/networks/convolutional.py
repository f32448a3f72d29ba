"""Convolutional classifiers with one trait each that the usual libraries lack."""

from __future__ import annotations

import torch
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torch.nn import functional

from networks.topology import Input, topology


def conv_norm(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, and its BatchNorm."""
    padding = kernel // 2
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def head(inputs: int, classes: int = 10) -> nn.Sequential:
    """Global average and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, added to the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.squeeze = conv_norm(channels, channels // 2, 1, groups=groups)
        self.depthwise = conv_norm(channels // 2, channels // 2, groups=channels // 2)
        self.expand = conv_norm(channels // 2, channels, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        y = functional.relu(self.squeeze(x))
        batch, channels, height, width = y.shape
        y = y.view(batch, self.groups, channels // self.groups, height, width)
        y = y.transpose(1, 2).reshape(batch, channels, height, width)
        return functional.relu(x + self.expand(self.depthwise(y)))


@topology()
def shufflenet_v1() -> nn.Module:
    """Grouped 1x1 convolutions with a channel shuffle between them."""
    return nn.Sequential(
        conv_norm(3, 48, 3, 2),
        nn.ReLU(),
        ShuffleUnit(48, 3),
        ShuffleUnit(48, 3),
        nn.MaxPool2d(2),
        conv_norm(48, 96, 1),
        nn.ReLU(),
        ShuffleUnit(96, 3),
        head(96),
    )


class PaddedShortcut(nn.Module):
    """Basic block of the CIFAR ResNet: the shortcut drops pixels and pads channels with zeros."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = 1 if inputs == outputs else 2
        self.extra = (outputs - inputs) // 2
        self.first = conv_norm(inputs, outputs, stride=self.stride)
        self.second = conv_norm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        y = self.second(functional.relu(self.first(x)))
        if self.stride == 2:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return functional.relu(x + y)


@topology()
def resnet_cifar() -> nn.Module:
    """CIFAR ResNet with shortcuts of option A."""
    blocks = [PaddedShortcut(a, b) for a, b in ((16, 16), (16, 32), (32, 32), (32, 64), (64, 64))]
    return nn.Sequential(conv_norm(3, 16), nn.ReLU(), *blocks, head(64))


class GroupNormBlock(nn.Module):
    """Two convolutions with GroupNorm, added to the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(groups, channels),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.GroupNorm(groups, 2 * channels),
            nn.SiLU(),
            nn.Conv2d(2 * channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Carry an image through."""
        return x + self.body(x)


@topology()
def groupnorm() -> nn.Module:
    """Residual blocks with GroupNorm, and one InstanceNorm."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        GroupNormBlock(32, 8),
        GroupNormBlock(32, 4),
        nn.Conv2d(32, 48, 3, 2, 1),
        nn.InstanceNorm2d(48, affine=True),
        nn.ReLU(),
        head(48),
    )


@topology()
def convnext() -> nn.Module:
    """Depthwise 7x7 in NCHW, LayerNorm and the pointwise layers in NHWC, a scale per channel."""
    return ConvNeXt(num_classes=10, depths=(1, 1, 2, 1), dims=(16, 32, 48, 64))


class Residual3d(nn.Module):
    """Two 3-D convolutions with BatchNorm, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(channels),
            nn.ReLU(),
            nn.Conv3d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm3d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Carry a clip through."""
        return torch.relu(x + self.body(x))


@topology(Input("clip", (3, 8, 24, 24)))
def conv_3d() -> nn.Module:
    """Video classifier: 3-D convolutions, and one split into space and time."""
    return nn.Sequential(
        nn.Conv3d(3, 24, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
        nn.BatchNorm3d(24),
        nn.ReLU(),
        nn.MaxPool3d(2),
        Residual3d(24),
        nn.Conv3d(24, 40, (1, 3, 3), (1, 2, 2), (0, 1, 1)),
        nn.ReLU(),
        nn.Conv3d(40, 48, (3, 1, 1), padding=(1, 0, 0)),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )
