"""Vision transformers of timm and torchvision."""

from __future__ import annotations

from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import VisionTransformer as MultiheadVisionTransformer

from networks.topology import topology


def _timm(fused: bool) -> nn.Module:
    vit = VisionTransformer(32, 8, num_classes=10, embed_dim=64, depth=2, num_heads=4, mlp_ratio=2)
    for block in vit.blocks:
        block.attn.fused_attn = fused
    return vit


@topology()
def vit_fused() -> nn.Module:
    """One matrix for queries, keys and values; attention as one operator."""
    return _timm(fused=True)


@topology()
def vit_plain() -> nn.Module:
    """One matrix for queries, keys and values; attention written out."""
    return _timm(fused=False)


@topology()
def vit_multihead() -> nn.Module:
    """Attention by nn.MultiheadAttention."""
    return MultiheadVisionTransformer(32, 8, 2, 4, 64, 128, num_classes=10)


@topology()
def swin() -> nn.Module:
    """Attention in windows, every second time shifted, with a relative position bias."""
    return SwinTransformer(
        32, 2, num_classes=10, embed_dim=32, depths=(2, 2), num_heads=(2, 4), window_size=4
    )
