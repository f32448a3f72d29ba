"""A mask among the inputs, and which rows of the network's activations it speaks of.

The mask has the axes (samples, positions). With extents for both that divide no other one, the
inferred shape of an activation shows where they went. Rows of anything else, such as pooled
samples, all count, and so do those of an activation that holds positions in a way not known here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnxprune.arrays import Array
from onnxprune.comparison import OutputDistance, is_numeric
from onnxprune.concrete import concrete
from onnxprune.errors import CalibrationError
from onnxprune.extract import known_shapes
from onnxprune.linear_map import FeatureSpec
from onnxprune.row_layout import POSITION, SAMPLE, RowLayout
from onnxprune.sampling import window_extents

CANDIDATES = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)
"""Extents to try: small, since tables of positions are short, and prime."""
AXES = 2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowMask:
    """The mask of a model.

    Attributes:
        name: the input that is the mask.
        samples: extent of the sample axis in ``shapes``.
        positions: that of the axis of positions.
        shapes: shapes of the activations.
        makers: activation -> the activations it is made of.
    """

    name: str
    samples: int
    positions: int
    shapes: Mapping[str, tuple[int | None, ...]] = field(repr=False)
    makers: Mapping[str, Sequence[str]] = field(repr=False)

    @classmethod
    def of(cls, canonical: onnx.ModelProto, name: str) -> RowMask:
        """What a mask says of a model.

        Raises:
            CalibrationError: the model has no such input, or its shape is not that of a mask.
        """
        dims = {v.name: v.type.tensor_type.shape.dim for v in _inputs(canonical)}
        if name not in dims:
            known = ", ".join(f"'{other}'" for other in dims)
            raise CalibrationError(f"--mask {name}: no such input; the model's inputs are {known}")
        if len(dims[name]) != AXES:
            raise CalibrationError(
                f"--mask {name}: a mask has two axes, samples and positions, but this input has "
                f"{len(dims[name])}"
            )
        taken = [n for tensor in canonical.graph.initializer for n in tensor.dims if n]
        unlike = [n for n in CANDIDATES if all(extent % n for extent in taken)]
        if len(unlike) < AXES:
            unlike = list(CANDIDATES[-AXES:])
        samples, positions = (
            int(dim.dim_value) if dim.dim_value > 0 else unlike.pop(0) for dim in dims[name]
        )
        model = concrete(canonical, _input_shapes(dims, name, (samples, positions), unlike))
        tensors = {output for node in model.graph.node for output in node.output if output}
        makers = {o: list(node.input) for node in model.graph.node for o in node.output if o}
        shapes = known_shapes(model, tensors | dims.keys())
        return cls(name, samples, positions, shapes, makers)

    def layout(self, spec: FeatureSpec) -> RowLayout | None:
        """How the rows of these features follow from samples and positions; None where not."""
        shape = self.shapes.get(spec.tensor)
        if shape is None or len(shape) != spec.rank or spec.fold > 1:
            return None
        if spec.window is None:
            return self._layout(spec.tensor, [shape[axis] for axis in spec.row_axes])
        sizes = shape[2:]
        if any(size is None for size in sizes):
            return None
        pads = zip(spec.window.pads_begin, spec.window.pads_end, strict=True)
        padded = tuple((n or 0) + sum(pad) for n, pad in zip(sizes, pads, strict=True))
        windows = window_extents(spec.window, padded)
        return self._layout(spec.tensor, [shape[0], *windows]) if windows == sizes else None

    def selected(self, output: str, values: Array, mask: Array) -> Array:
        """The rows of an output that count, shape (rows, values); all of it where it has none.

        Args:
            output: the output's name.
            values: the output.
            mask: the mask of the same batch.
        """
        shape = self.shapes.get(output)
        if shape is None or len(shape) != values.ndim:
            return values
        found = [self._factors(output, extent) for extent in shape]
        axes = [axis for axis, factors in enumerate(found) if factors and min(factors) < 0]
        layout = self._layout(output, [shape[axis] for axis in axes])
        if layout is None:
            return values
        rows = np.moveaxis(values, axes, range(len(axes)))
        counted = layout.counted(mask)
        return rows.reshape(counted.size, -1)[counted]

    def check_follows(self, specs: Iterable[FeatureSpec]) -> None:
        """Log which of these features hold positions and yet have all their rows counted.

        Raises:
            CalibrationError: none of them has rows that are positions of the mask.
        """
        layouts = {spec: self.layout(spec) for spec in specs}
        if not any(layouts.values()):
            raise CalibrationError(
                f"--mask {self.name}: no layer that is pruned or refitted reads rows that are "
                "positions of this mask, so that it would change nothing; leave it away, or name "
                "another input"
            )
        names = {s.tensor for s, own in layouts.items() if own is None and self._has_positions(s)}
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            logger.info(
                "the mask is not followed in %d activations (%s), whose padding counts",
                len(names),
                some,
            )

    def _has_positions(self, spec: FeatureSpec) -> bool:
        shape = self.shapes.get(spec.tensor, ())
        others = (extent for axis, extent in enumerate(shape) if axis != spec.axis)
        return any(extent is not None and extent % self.positions == 0 for extent in others)

    def _layout(self, tensor: str, extents: Sequence[int | None]) -> RowLayout | None:
        factors: list[int] = []
        for extent in extents:
            found = self._factors(tensor, extent)
            if found is None:
                return None
            factors += found
        if self.samples == 1:  # an axis of extent 1 may be that of samples, or not be there
            factors.insert(0, SAMPLE)
        once = factors.count(SAMPLE) == factors.count(POSITION) == 1
        return RowLayout(tuple(factors)) if once else None

    def _factors(self, tensor: str, extent: int | None) -> tuple[int, ...] | None:
        """What an axis is made of; None where that is not certain."""
        if extent is None:
            return None
        if extent == self.positions:
            return (POSITION,)
        if self.samples == 1:
            return None if extent % self.positions == 0 else (extent,)
        if extent == self.samples:
            return (SAMPLE,)
        if extent == self.samples * self.positions:
            return self._merged(tensor, extent)
        if extent % self.samples == 0:
            times = extent // self.samples
            return None if times % self.positions == 0 else (SAMPLE, times)
        return None if extent % self.positions == 0 else (extent,)

    def _merged(self, tensor: str, extent: int) -> tuple[int, ...] | None:
        """In which order samples and positions were merged: that of the nearest ones apart."""
        seen, waiting = {tensor}, [tensor]
        while waiting:
            name = waiting.pop(0)
            shape = self.shapes.get(name, ())
            if shape[:2] == (self.samples, self.positions):
                return SAMPLE, POSITION
            if shape[:2] == (self.positions, self.samples):
                return POSITION, SAMPLE
            if extent in shape:
                makers = [maker for maker in self.makers.get(name, ()) if maker not in seen]
                seen.update(makers)
                waiting += makers
        return None


def add_counted(
    distance: OutputDistance,
    reference: Array,
    changed: Array,
    mask: RowMask | None,
    said: Array | None,
) -> None:
    """Add the positions of one batch that count to the distance of an output.

    Args:
        distance: what is added to.
        reference: the original's output.
        changed: the changed model's.
        mask: the mask; None if all count.
        said: its values in this batch.
    """
    if mask is None or said is None or not is_numeric(reference):
        distance.add(reference, changed)
        return
    old, new = (
        mask.selected(distance.name, values, said) if values.shape == reference.shape else values
        for values in (reference, changed)
    )
    distance.add(old, new, len(said))


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _input_shapes(
    dims: Mapping[str, Sequence[onnx.TensorShapeProto.Dimension]],
    mask: str,
    extents: tuple[int, int],
    others: Sequence[int],
) -> dict[str, tuple[int | None, ...]]:
    """Shapes of all inputs where the mask has these extents.

    Axes of the mask's names are the mask's; without names, the first axis counts samples and the
    second one positions. Axes of other names have other extents, as far as there are some.
    """
    named = {dim.dim_param: n for dim, n in zip(dims[mask], extents, strict=True) if dim.dim_param}
    later = (dim.dim_param for own in dims.values() for dim in own[1:] if dim.dim_param)
    new = (name for name in dict.fromkeys(later) if name not in named)
    named |= zip(new, others, strict=False)

    def extent(axis: int, dim: onnx.TensorShapeProto.Dimension) -> int | None:
        if dim.dim_value > 0:
            return int(dim.dim_value)
        if dim.dim_param in named:
            return named[dim.dim_param]
        unnamed = not dim.dim_param or axis == 0
        return extents[axis] if axis < AXES and unnamed else None

    return {
        name: tuple(extent(axis, dim) for axis, dim in enumerate(own)) for name, own in dims.items()
    }
