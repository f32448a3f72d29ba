"""The shapes of a model's inputs in a run: what is stated, the batch, and nothing left open."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnxprune.calibration.input_spec import format_shape
from onnxprune.errors import OnnxPruneError
from onnxprune.extents import Declared, declared_extents, input_extents

Shapes = dict[str, tuple[int, ...]]


def run_shapes(
    model: onnx.ModelProto,
    stated: Mapping[str, tuple[int, ...]],
    batch: int | None,
    where: str,
) -> Shapes:
    """The shape of every input.

    Args:
        model: the model.
        stated: input name -> its shape, where the model leaves extents open.
        batch: extent of axis 0 of every input that leaves it open, also in place of what is stated;
            None for what is stated, or 1.
        where: the model's name, for messages.

    Raises:
        OnnxPruneError: a shape does not fit, the model is fixed to another batch, or extents stay
            open.
    """
    declared = declared_extents(model)
    shapes = dict(stated)
    if batch is not None:
        check_batch(declared, batch, where)
        shapes = {
            name: (batch, *shape[1:]) if _is_open(declared.get(name, ())) else shape
            for name, shape in stated.items()
        }
    found = input_extents(model, shapes, batch or 1)
    return {name: _complete(name, shape, declared[name], where) for name, shape in found.items()}


def fixed_batch(declared: Mapping[str, Declared]) -> int | None:
    """The extent that axis 0 of every input has, where no input leaves it open."""
    if any(map(_is_open, declared.values())):
        return None
    return next((axes[0] for axes in declared.values() if axes and isinstance(axes[0], int)), None)


def check_batch(declared: Mapping[str, Declared], batch: int, where: str) -> None:
    """A model takes batches of a size.

    Args:
        declared: what it says of its inputs.
        batch: samples in one run.
        where: the model's name, for messages.

    Raises:
        OnnxPruneError: it is fixed to another.
    """
    fixed = fixed_batch(declared)
    if fixed not in (None, batch):
        raise OnnxPruneError(
            f"{where} takes batches of exactly {fixed}, not {batch}; leave that batch size away, "
            "or export the model with a dynamic batch axis"
        )


def _is_open(axes: Declared) -> bool:
    return bool(axes) and not isinstance(axes[0], int)


def _complete(
    name: str, shape: tuple[int | None, ...], declared: Declared, where: str
) -> tuple[int, ...]:
    if None in shape:
        example = "x".join("224" if extent is None else str(extent) for extent in shape)
        raise OnnxPruneError(
            f"{where}: input '{name}' {format_shape(declared)} has open extents; say what they "
            f"are, for example --shape {name}:{example}"
        )
    return tuple(extent for extent in shape if extent is not None)
