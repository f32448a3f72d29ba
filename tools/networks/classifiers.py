"""Image classifiers of torchvision and timm, made small by their own parameters."""

from __future__ import annotations

from functools import partial

from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.googlenet import Inception
from torchvision.models.inception import BasicConv2d, InceptionA
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.squeezenet import Fire

from networks.topology import topology

CLASSES = 10
CHANNELS = (16, 32, 48, 64)


@topology()
def resnet_basic() -> nn.Module:
    """ResNet with basic blocks, one of them without a projection."""
    return ResNet(BasicBlock, (1, 2, 1, 1), CLASSES, channels=CHANNELS)


@topology()
def resnet_bottleneck() -> nn.Module:
    """ResNet with bottleneck blocks."""
    return ResNet(Bottleneck, (2, 1, 1, 1), CLASSES, channels=CHANNELS)


@topology()
def resnext() -> nn.Module:
    """Bottlenecks whose middle convolution has four groups."""
    return ResNet(Bottleneck, (2, 1, 1, 1), CLASSES, channels=CHANNELS, cardinality=4, base_width=8)


@topology()
def mobilenet_v2() -> nn.Module:
    """Inverted residuals without activation at their ends."""
    settings = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2], [6, 64, 2, 1]]
    return MobileNetV2(CLASSES, width_mult=0.5, inverted_residual_setting=settings, round_nearest=4)


@topology()
def mobilenet_v3() -> nn.Module:
    """Inverted residuals with squeeze-and-excitation and hard swish."""
    return models.mobilenet_v3_small(num_classes=CLASSES, width_mult=0.5, reduced_tail=True)


@topology()
def efficientnet() -> nn.Module:
    """Inverted residuals with squeeze-and-excitation and SiLU."""
    block = partial(MBConvConfig, width_mult=1.0, depth_mult=1.0)
    settings = [
        block(1, 3, 1, 16, 8, 1),
        block(6, 3, 2, 8, 12, 2),
        block(6, 5, 2, 12, 20, 2),
        block(6, 3, 2, 20, 32, 1),
    ]
    return EfficientNet(settings, dropout=0.2, num_classes=CLASSES, last_channel=128)


@topology()
def densenet() -> nn.Module:
    """Every layer reads the concatenation of all before it; BatchNorm comes first."""
    return DenseNet(8, (3, 3, 3), num_init_features=16, num_classes=CLASSES)


@topology()
def shufflenet_v2() -> nn.Module:
    """Channel split, depthwise branch, concatenation, shuffle."""
    return ShuffleNetV2([2, 3, 2], [24, 32, 64, 96, 128], num_classes=CLASSES)


@topology()
def squeezenet() -> nn.Module:
    """Fire modules: a squeezing convolution, two expanding ones, concatenated."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(32, 8, 32, 32),
        Fire(64, 8, 32, 32),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(64, 16, 48, 48),
        nn.Dropout(),
        nn.Conv2d(96, CLASSES, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@topology()
def inception() -> nn.Module:
    """Inception modules of two generations: four branches, concatenated."""
    return nn.Sequential(
        BasicConv2d(3, 32, kernel_size=3, stride=2, padding=1),
        Inception(32, 16, 16, 24, 8, 12, 12),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(64, 24, 24, 32, 8, 16, 16),
        InceptionA(88, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(256, CLASSES),
    )
