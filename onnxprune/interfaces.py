"""Whether two models take the same inputs and give the same outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import InputSpec
from onnxprune.calibration.input_spec import format_shape
from onnxprune.errors import InterfaceError
from onnxprune.runtime import Session, TensorType

Names = tuple[str, str]
FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""A model that was converted to another precision is compared with what it was made from."""


def check_interfaces(sessions: tuple[Session, Session], names: Names) -> None:
    """Two models have the same inputs and outputs, whatever their order and precision.

    An extent that one leaves open may be fixed in the other.

    Args:
        sessions: the models.
        names: what they are called in messages.

    Raises:
        InterfaceError: they have not.
    """
    first, second = sessions
    complaints = [
        *_differences("input", first.inputs, second.inputs, names),
        *_differences("output", first.outputs, second.outputs, names),
    ]
    if complaints:
        raise InterfaceError(
            f"{names[0]} and {names[1]} cannot be compared: {'; '.join(complaints)}"
        )


def _differences(
    kind: str, first: Mapping[str, TensorType], second: Mapping[str, TensorType], names: Names
) -> list[str]:
    found = []
    for name, own, others in ((names[0], first, second), (names[1], second, first)):
        missing = [repr(tensor) for tensor in own if tensor not in others]
        if missing:
            found.append(f"only {name} has the {kind} {', '.join(missing)}")
    for tensor, one in first.items():
        other = second.get(tensor, one)
        if not _fit(one, other):
            found.append(
                f"{kind} '{tensor}' is {_spelt(one)} in {names[0]} and {_spelt(other)} in "
                f"{names[1]}"
            )
    return found


def _fit(one: TensorType, other: TensorType) -> bool:
    same = one.dtype == other.dtype or {one.dtype, other.dtype} <= FLOATS
    extents = zip(one.shape, other.shape, strict=False)
    return (
        same
        and len(one.shape) == len(other.shape)
        and all(not _fixed(a) or not _fixed(b) or a == b for a, b in extents)
    )


def _fixed(extent: int | str | None) -> bool:
    return isinstance(extent, int) and extent > 0


def _spelt(tensor: TensorType) -> str:
    return f"{tensor.dtype} {format_shape(tensor.shape)}"


def common_inputs(specs: Sequence[InputSpec], other: Session) -> list[InputSpec]:
    """The inputs of a model, with what another one that has the same fixes and it leaves open."""
    return [
        replace(
            spec,
            shape=tuple(
                theirs if _fixed(theirs) else ours
                for ours, theirs in zip(spec.shape, other.inputs[spec.name].shape, strict=True)
            ),
        )
        for spec in specs
    ]


def fitted(feed: Feed, session: Session) -> Feed:
    """A feed in the precision that a model takes."""
    return {name: _cast(array, session.inputs[name].dtype) for name, array in feed.items()}


def _cast(array: Array, dtype: str) -> Array:
    if array.dtype.kind != "f" or dtype not in FLOATS - {"bfloat16"}:
        return array
    return array.astype(np.dtype(dtype), copy=False)
