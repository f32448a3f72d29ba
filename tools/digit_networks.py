"""The networks that ``train_models.py`` trains: they read digits of (batch, 1, 8, 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def conv_bn(in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1) and its BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def vgg() -> nn.Module:
    """Five conv-BN-ReLU layers with two max-pools, then a hidden layer behind Flatten."""
    layers: list[nn.Module] = []
    channels = 1
    for stage, widths in enumerate(((32, 32), (64, 64), (96,))):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for width in widths:
            layers += [conv_bn(channels, width), nn.ReLU()]
            channels = width
    head = [nn.Flatten(), nn.Linear(channels * 2 * 2, 128), nn.ReLU(), nn.Linear(128, CLASSES)]
    return nn.Sequential(*layers, *head)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where shapes change."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(in_channels, out_channels, stride=stride)
        self.second = conv_bn(out_channels, out_channels)
        self.shortcut: nn.Module = nn.Identity()
        self.relu = nn.ReLU()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv_bn(in_channels, out_channels, 1, stride)
            # The two biases that meet in the sum have the same gradient: from the same start they
            # stay equal, and the exporter makes them one initializer behind an Identity.
            nn.init.normal_(self.shortcut[1].bias, std=0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output for features of shape (batch, channels, height, width)."""
        inner = self.second(self.relu(self.first(features)))
        return self.relu(inner + self.shortcut(features))


def resnet() -> nn.Module:
    """ResNet-14: three stages of two basic blocks, global average pooling, one linear layer."""
    layers: list[nn.Module] = [conv_bn(1, 16), nn.ReLU()]
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        layers += [BasicBlock(channels, width, stride), BasicBlock(width, width, 1)]
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


def mlp() -> nn.Module:
    """Multilayer perceptron with three hidden layers on the flattened image."""
    layers: list[nn.Module] = [nn.Flatten()]
    features = 8 * 8
    for width in (192, 192, 128):
        layers += [nn.Linear(features, width), nn.ReLU()]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, CLASSES))


class Product(nn.Module):
    """A product of two activations; a module of its own so that its MACs can be counted."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the product over the last axis of ``left`` and the last but one of ``right``."""
        return left @ right


class Attention(nn.Module):
    """Multi-head self-attention spelt out, with one packed layer for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.scores = Product()
        self.values = Product()
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the layer's output for tokens of shape (batch, tokens, width)."""
        batch, count, width = tokens.shape
        # split before the heads are set apart: values may then get another width than keys
        queries, keys, values = (
            part.reshape(batch, count, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(tokens).chunk(3, dim=-1)
        )
        scores = self.scores(queries * queries.shape[-1] ** -0.5, keys.transpose(-2, -1))
        mixed = self.values(scores.softmax(dim=-1), values)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))


class TransformerBlock(nn.Module):
    """Attention and a hidden layer of four times the width, each behind a LayerNorm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.hidden_norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.back = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the tokens, shape (batch, tokens, width), with both layers' outputs added."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.back(self.gelu(self.hidden(self.hidden_norm(tokens))))


class VisionTransformer(nn.Module):
    """2x2 patches as 16 tokens, learnt positions, pre-norm blocks, mean of the tokens, linear."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)
        self.positions = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of images of shape (batch, 1, 8, 8)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


def vit() -> nn.Module:
    """Vision transformer of width 64 with four blocks of four heads."""
    return VisionTransformer()
