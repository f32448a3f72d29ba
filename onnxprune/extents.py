"""The shapes of a model's inputs for which its MACs are counted, or it is run."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxprune.calibration.input_spec import format_shape
from onnxprune.errors import OnnxPruneError
from onnxprune.model import NO_NAMES

Extents = tuple[int | None, ...]
Declared = tuple[int | str | None, ...]


def input_extents(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], batch: int = 1
) -> dict[str, Extents]:
    """The shape of every input that is a tensor; None for an extent that nobody knows.

    What ``shapes`` leaves open is ``batch`` on axis 0. Extents of one name are equal.

    Args:
        model: any model.
        shapes: input name -> its shape.
        batch: extent of axis 0, where the model and ``shapes`` leave it open.

    Raises:
        OnnxPruneError: a shape belongs to no input, or contradicts what the model declares.
    """
    declared = declared_extents(model)
    for name, shape in shapes.items():
        _check(name, shape, declared)
    known: dict[str, int] = {}
    for name, shape in shapes.items():
        for extent, found in zip(declared[name], shape, strict=True):
            if isinstance(extent, str):
                known.setdefault(extent, found)
    for axes in declared.values():
        if axes and isinstance(axes[0], str):
            known.setdefault(axes[0], batch)
    return {
        name: shapes.get(name) or _resolved(axes, known, batch) for name, axes in declared.items()
    }


def declared_extents(model: onnx.ModelProto) -> dict[str, Declared]:
    """What a model says of its inputs: name -> number, name or None for each axis."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, Declared] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name not in initializers and kind.HasField("shape"):
            found[value.name] = tuple(map(_extent, kind.shape.dim))
    return found


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return None if dim.dim_param in NO_NAMES else str(dim.dim_param)


def _check(name: str, shape: tuple[int, ...], declared: Mapping[str, Declared]) -> None:
    if name not in declared:
        raise OnnxPruneError(
            f"a shape is given for '{name}', but the model's inputs are "
            f"{', '.join(repr(known) for known in declared) or '(none)'}"
        )
    axes = declared[name]
    fits = len(axes) == len(shape) and all(
        not isinstance(extent, int) or extent == given
        for extent, given in zip(axes, shape, strict=True)
    )
    if not fits:
        raise OnnxPruneError(
            f"the shape {format_shape(shape)} given for input '{name}' does not fit "
            f"{format_shape(axes)}, which the model declares"
        )


def _resolved(axes: Declared, known: Mapping[str, int], batch: int) -> Extents:
    """Names replaced by what they stand for, and an unnamed batch as well."""
    resolved = [known.get(extent) if isinstance(extent, str) else extent for extent in axes]
    if resolved and resolved[0] is None:
        resolved[0] = batch
    return tuple(resolved)
