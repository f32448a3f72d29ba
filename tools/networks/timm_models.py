"""Less common architectures, of timm: each has a way of joining channels that others lack."""

from __future__ import annotations

import timm
from timm.layers import GatedMlp
from timm.models.dpn import DPN
from timm.models.levit import Levit
from timm.models.mlp_mixer import MlpMixer, SpatialGatingBlock
from timm.models.res2net import Bottle2neck
from timm.models.resnest import ResNestBottleneck
from timm.models.resnet import ResNet
from timm.models.sknet import SelectiveKernelBasic
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from networks.topology import Input, topology

CLASSES = 10
CHANNELS = (16, 32, 48, 64)
DEPTHS = (2, 1, 1, 1)
LARGER = Input("input", (3, 64, 64))


@topology()
def res2net() -> nn.Module:
    """The middle of a bottleneck in four parts, each of which reads the one before."""
    arguments = {"scale": 4}
    return ResNet(
        Bottle2neck, DEPTHS, CLASSES, channels=CHANNELS, base_width=16, block_args=arguments
    )


@topology()
def resnest() -> nn.Module:
    """Attention over two halves of the channels, softmax between them."""
    arguments = {"radix": 2, "avd": True, "avd_first": False}
    return ResNet(ResNestBottleneck, DEPTHS, CLASSES, channels=CHANNELS, block_args=arguments)


@topology()
def sknet() -> nn.Module:
    """Attention over two kernels, stacked on an axis of their own."""
    return ResNet(SelectiveKernelBasic, DEPTHS, CLASSES, channels=CHANNELS)


@topology()
def ghostnet() -> nn.Module:
    """Half of the channels are made from the other half; their concatenation is cut short."""
    return timm.create_model("ghostnet_050", num_classes=CLASSES)


@topology()
def dpn() -> nn.Module:
    """A residual and a dense path side by side, as slices of one tensor."""
    return DPN(
        k_sec=(1, 1, 1, 1),
        inc_sec=(8, 8, 8, 8),
        k_r=16,
        groups=4,
        num_classes=CLASSES,
        num_init_features=16,
        b=True,
        small=True,
    )


@topology()
def nfnet() -> nn.Module:
    """Convolutions with standardised weights, no BatchNorm, a scale per branch."""
    return timm.create_model("nf_resnet26", num_classes=CLASSES, width_factor=0.125)


@topology()
def mixer() -> nn.Module:
    """Perceptrons over the patches and over the channels in turn."""
    return MlpMixer(CLASSES, 32, 3, 8, 2, 48)


@topology()
def gmlp() -> nn.Module:
    """Half of the channels gate the other half, across patches."""
    return MlpMixer(CLASSES, 32, 3, 8, 2, 48, 4, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp)


@topology(LARGER)
def levit() -> nn.Module:
    """Attention with BatchNorm and values wider than keys, between strided convolutions."""
    return Levit(
        img_size=64,
        num_classes=CLASSES,
        embed_dim=(32, 48, 64),
        key_dim=8,
        depth=(1, 1, 1),
        num_heads=(2, 3, 4),
    )


@topology(LARGER)
def twins() -> nn.Module:
    """Attention in windows and to a coarser grid in turn, positions from depthwise convolutions."""
    return timm.create_model(
        "twins_svt_small",
        num_classes=CLASSES,
        img_size=64,
        embed_dims=CHANNELS,
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 3, 4),
    )


@topology()
def pvt() -> nn.Module:
    """Attention to fewer keys, a depthwise convolution in the perceptron."""
    return timm.create_model(
        "pvt_v2_b0",
        num_classes=CLASSES,
        depths=(1, 1, 1, 1),
        embed_dims=CHANNELS,
        num_heads=(1, 2, 3, 4),
    )


@topology()
def xcit() -> nn.Module:
    """Attention between channels instead of patches."""
    return timm.create_model(
        "xcit_nano_12_p8_224",
        num_classes=CLASSES,
        img_size=32,
        embed_dim=32,
        depth=2,
        num_heads=2,
        cls_attn_layers=1,
    )


@topology()
def cait() -> nn.Module:
    """Heads that talk before and after the softmax, a scale per channel and branch."""
    return timm.create_model(
        "cait_xxs24_224",
        num_classes=CLASSES,
        img_size=32,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=4,
        depth_token_only=1,
    )


@topology()
def eva() -> nn.Module:
    """Rotary positions in two dimensions, SwiGLU with a norm inside."""
    return timm.create_model(
        "eva02_tiny_patch14_224",
        num_classes=CLASSES,
        img_size=32,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=4,
    )


@topology()
def vit_qk_norm() -> nn.Module:
    """ViT that normalises queries and keys, averages its patches and scales its branches."""
    return VisionTransformer(
        32,
        8,
        num_classes=CLASSES,
        embed_dim=64,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        qk_norm=True,
        init_values=0.1,
        class_token=False,
        global_pool="avg",
    )


@topology(LARGER)
def mobilevit() -> nn.Module:
    """Convolutions; attention between the pixels that lie at the same place of their patch."""
    return timm.create_model("mobilevit_xxs", num_classes=CLASSES)


@topology()
def mobilenet_v4() -> nn.Module:
    """Universal inverted bottlenecks, depthwise convolutions at both ends."""
    return timm.create_model("mobilenetv4_conv_small_035", num_classes=CLASSES)
