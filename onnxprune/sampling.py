"""Which rows of an activation enter a Gram: how many positions, and which ones.

Neighbouring positions of a map say nearly the same, so a Gram needs a few positions of every
sample rather than all. Positions are numbered 0 .. total - 1 in row-major order. A batch of
``points`` positions is stratified: number i is uniform on the i-th of ``points`` equal intervals,

    position_i = floor((i + u_i) * total / points),    u_i uniform on [0, 1).

Every position is expected equally often, borders included (a fixed stride would favour some).
With points = total each position is taken exactly once, in order. With fewer, two draws coincide
only on a position that neighbouring intervals share: nearly a draw without replacement. With more
(where the extents are dynamic) each position is taken about points / total times.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray
from onnxprune.errors import UnsupportedModelError
from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.row_layout import RowLayout

# Bytes of one probe's rows (patches) for one batch; one probe's rows are alive at a time.
MAX_ROW_BYTES = 256 * 2**20

# float32 counts rows exactly up to here, and the constant's entry of a batch is a row count.
MAX_ROWS = 2**24

MIN_POINTS = 8  # positions of a sample: fewer would see too little of it


@dataclass(frozen=True)
class GramRequest:
    """One Gram to collect.

    Attributes:
        spec: which features.
        extent: length of the activation's channel axis, all parts together.
        points: how many positions of a sample are drawn for each batch.
        layout: where a mask says which rows count, how they follow from its positions.
        picked: the rows of one batch that are taken, in place of drawn positions.
    """

    spec: FeatureSpec
    extent: int
    points: int
    layout: RowLayout | None = None
    picked: IndexArray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.extent % (self.spec.fold * self.spec.parts):
            raise ValueError(
                f"{self.spec.tensor}: axis of {self.extent} does not divide into parts of "
                f"{self.spec.parts} with {self.spec.fold} positions"
            )

    def of_batch(self, mask: Array | None, uniforms: NDArray[np.float32]) -> GramRequest:
        """The request for one batch, with the rows that are taken if a mask says which count.

        Args:
            mask: shape (samples, positions); None where there is none.
            uniforms: the shard's numbers.
        """
        if mask is None or self.layout is None:
            return self
        return replace(self, picked=self.layout.drawn(mask, self.points, uniforms))

    @property
    def channels(self) -> int:
        """Channels of all parts together."""
        return self.extent // self.spec.fold

    @property
    def taps(self) -> int:
        """Positions in one patch."""
        return math.prod(self.spec.window.kernel) if self.spec.window else 1

    @property
    def features(self) -> int:
        """Features of one part, without the constant."""
        return self.channels // self.spec.parts * self.taps

    @property
    def from_tap_major(self) -> IndexArray:
        """Where each feature (channel, tap), and last the constant, is in the order (tap, channel).

        Shape (features + 1,).
        """
        places = np.arange(self.features).reshape(self.taps, -1).T.ravel()
        return np.append(places, self.features)


def window_extents(window: Window, padded: tuple[int, ...]) -> tuple[int, ...]:
    """How many positions a window has along each (already padded) spatial axis."""
    sizes = zip(padded, window.kernel, window.strides, window.dilations, strict=True)
    return tuple((size - d * (k - 1) - 1) // s + 1 for size, k, s, d in sizes)


def total_positions(spec: FeatureSpec, shape: tuple[int | None, ...]) -> int | None:
    """Positions of one sample, or None where the activation's shape leaves them open."""
    rows = spec.row_axes[1:] if spec.window is None else range(2, len(shape))
    others = tuple(shape[axis] for axis in rows)
    known = tuple(n for n in others if n is not None)
    if len(known) < len(others):
        return None
    if spec.window is None:
        return math.prod(known) * spec.fold
    pads = zip(spec.window.pads_begin, spec.window.pads_end, strict=True)
    padded = tuple(n + sum(pad) for n, pad in zip(known, pads, strict=True))
    return math.prod(window_extents(spec.window, padded))


def request_for(
    spec: FeatureSpec,
    shape: tuple[int | None, ...] | None,
    *,
    samples: int,
    batch: int,
    rows_per_feature: int,
    layout: RowLayout | None = None,
) -> GramRequest:
    """Chooses the number of positions: enough rows for the features, within memory.

    Args:
        spec: which features.
        shape: the activation's shape, None where dynamic; None if nothing is known of it.
        samples: how many samples will be seen in all.
        batch: how many of them at once.
        rows_per_feature: rows wanted for each feature.
        layout: how rows follow from the positions of a mask, if there is one: then how many
            positions there are does not matter, for most may be padding.

    Raises:
        UnsupportedModelError: the channels of the activation are not known.
    """
    extent = None if shape is None or len(shape) != spec.rank else shape[spec.axis]
    if shape is None or extent is None:
        raise UnsupportedModelError(
            f"activation {spec.tensor}: its shape is {shape}, but its Gram needs {spec.rank} "
            f"axes and the length of axis {spec.axis}; run shape inference on the model"
        )
    extent *= spec.parts if spec.apart is not None else 1
    features = GramRequest(spec, extent, 1).features
    wanted = max(MIN_POINTS, math.ceil(rows_per_feature * features / samples))
    row_bytes = 4 * spec.parts * (features + 1)
    affordable = max(1, min(MAX_ROW_BYTES // row_bytes, MAX_ROWS) // batch)
    total = total_positions(spec, shape) if layout is None else None
    points = min(wanted, affordable, wanted if total is None else total)
    return GramRequest(spec, extent, points, layout)


def draw_uniforms(seed: int, shard: int, count: int) -> NDArray[np.float32]:
    """The numbers u of one shard, shape (count,); they depend on nothing but the arguments.

    A smaller count is a prefix of a larger one, so a Gram does not depend on what else is
    collected. float32 numbers stay below 1 when an index is added to them in float64.
    """
    return np.random.default_rng((seed, shard)).random(count, dtype=np.float32)


def positions(uniforms: NDArray[np.float32], points: int, total: int) -> IndexArray:
    """The positions of one batch, shape (points,), from at least as many uniform numbers."""
    # The product comes first: it is (nearly always) exact, and dividing points * total by points
    # then returns i + u_i itself, so that all positions are hit when points = total.
    places = (np.arange(points) + uniforms[:points].astype(np.float64)) * total / points
    return places.astype(np.int64)
