"""Untrained networks that ``bench_decorrelation.py`` trains, as ONNX files with random weights.

They read CIFAR-10 images of shape (batch, 3, 32, 32). BatchNorms are kept as nodes of their own.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import onnx
import torch
from digit_networks import CLASSES, BasicBlock, conv_bn
from torch import nn

WIDTHS = (8, 16, 32)
OPSET = 17


def perceptron() -> nn.Module:
    """Images averaged to 16 x 16, two hidden layers of 256, no BatchNorm."""
    return nn.Sequential(
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3 * 16 * 16, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES),
    )


def residual() -> nn.Module:
    """ResNet-8: one basic block of each width, BatchNorms."""
    layers: list[nn.Module] = [conv_bn(3, WIDTHS[0]), nn.ReLU()]
    channels = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        layers.append(BasicBlock(channels, width, 2 if stage else 1))
        channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


def plain() -> nn.Module:
    """Six 3 x 3 convolutions with two max-pools, as in a VGG, and no BatchNorm."""
    layers: list[nn.Module] = []
    channels = 3
    for stage, width in enumerate(WIDTHS):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": perceptron,
    "resnet8": residual,
    "vgg6": plain,
}


def untrained(name: str, seed: int) -> onnx.ModelProto:
    """A network with the weights that torch draws for it."""
    torch.manual_seed(seed)
    module = NETWORKS[name]().eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, 32, 32),),
            file,
            input_names=["input"],
            output_names=["scores"],
            dynamic_axes={"input": {0: "batch"}, "scores": {0: "batch"}},
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            dynamo=False,
        )
    return onnx.load_model_from_string(file.getvalue())
