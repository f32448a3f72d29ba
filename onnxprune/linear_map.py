"""What Conv, Gemm and MatMul are, once: features, weight <-> matrix, bias slot, MACs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution, one number per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]


@dataclass(frozen=True)
class FeatureSpec:
    """Which features of an activation a consumer's weight multiplies.

    Attributes:
        tensor: name of the activation.
        rank: number of axes of the activation.
        axis: its channel axis (non-negative).
        window: the patch taken at every output position; axes from 2 on are spatial and the
            channel axis is 1. Features are ordered (channel, tap), taps row-major over the kernel.
            None: every position of the other axes is one row of channel values.
        parts: into how many equal contiguous parts the channel axis is divided, with a Gram each.
        fold: for window None, positions per channel when the axis holds flattened maps
            (entry = channel * fold + position if ``fold_major`` else position * channels +
            channel) and a row is one position's channel values. 1: the axis is taken whole.
        fold_major: see ``fold``.
    """

    tensor: str
    rank: int
    axis: int
    window: Window | None = None
    parts: int = 1
    fold: int = 1
    fold_major: bool = True
