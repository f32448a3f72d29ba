"""One graph input, and whether an array fits it.

Axis 0 of every input is the sample axis. An array fits an input of rank r when it has rank r (a
*stack* of samples along axis 0) or rank r - 1 (one sample without that axis), the input's fixed
extents, and a type that converts without losing anything a model could notice: floats among each
other, signed integers among each other where the values fit. Everything else is refused, in
particular uint8 for a float input: such an array has not been preprocessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.arrays import Array
from onnxprune.errors import CalibrationError


@dataclass(frozen=True)
class InputSpec:
    """One graph input as the caller read it from the model.

    Attributes:
        name: the input's name.
        shape: one entry per axis: an int is a fixed extent, a str (symbol) or None is dynamic.
        dtype: the element type.
        below: for whole numbers that index a table of the model, how many entries that has.
    """

    name: str
    shape: tuple[int | str | None, ...]
    dtype: np.dtype[Any]
    below: int | None = None

    @property
    def extents(self) -> tuple[int | None, ...]:
        """One entry per axis: the fixed extent, or None where it is dynamic."""
        # Some exporters write 0 or -1 where they mean "any".
        return tuple(d if isinstance(d, int) and d > 0 else None for d in self.shape)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape, with the sample axis, can be fed."""
        if len(shape) != len(self.shape) or min(shape, default=1) < 1:
            return False
        return all(fixed in (None, n) for fixed, n in zip(self.extents, shape, strict=True))

    def __str__(self) -> str:
        return f"{self.dtype} {format_shape(self.shape)}"


def format_shape(shape: Sequence[int | str | None]) -> str:
    """A shape as the messages print it: '[N, 3, 224, 224]', '?' for an unnamed extent."""
    return "[" + ", ".join("?" if extent is None else str(extent) for extent in shape) + "]"


def batch_extent(inputs: Sequence[InputSpec]) -> int | None:
    """The batch size the model is fixed to, or None where any batch size will do."""
    if not inputs:
        raise CalibrationError(
            "The model has no inputs, so calibration samples cannot reach it; nothing can be "
            "measured and nothing pruned."
        )
    for spec in inputs:
        if not spec.shape:
            raise CalibrationError(
                f"Input {spec.name!r} is a scalar and has no sample axis; turn it into a constant "
                "of the model."
            )
    fixed = {spec.name: spec.extents[0] for spec in inputs if spec.extents[0] is not None}
    if len(set(fixed.values())) > 1:
        found = ", ".join(f"{name!r}: {extent}" for name, extent in fixed.items())
        raise CalibrationError(
            f"The inputs disagree on the batch size ({found}); axis 0 of every input must be the "
            "sample axis. Turn inputs that do not change from sample to sample into constants."
        )
    return next(iter(fixed.values()), None)


def check_names(found: Iterable[object], inputs: Sequence[InputSpec], where: str) -> None:
    """Refuse arrays whose names are not exactly the names of the inputs."""
    names = list(found)
    expected = [spec.name for spec in inputs]
    if set(names) == set(expected):
        return
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    advice = [f"add {_listed(missing)}"] * bool(missing) + [f"remove {_listed(extra)}"] * bool(
        extra
    )
    raise CalibrationError(
        f"{where}: found the arrays {_listed(names) or '(none)'}, but the model's inputs are "
        f"{_listed(expected)}; {' and '.join(advice)}, or rename."
    )


def check_holds(found: Iterable[object], inputs: Sequence[InputSpec], where: str) -> None:
    """Refuse arrays that lack one of the inputs; others may lie beside them."""
    names = list(found)
    if any(spec.name not in names for spec in inputs):
        check_names(names, inputs, where)


def _listed(names: Iterable[object]) -> str:
    return ", ".join(repr(name) for name in names)


def count_samples(spec: InputSpec, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> int:
    """How many samples an array holds for the input, judged by shape and type alone.

    Args:
        spec: the graph input.
        shape: the array's shape, with or without the sample axis.
        dtype: the array's type.
        where: what the array was read from, for the messages.
    """
    at = f"{where}, input {spec.name!r}"
    _check_dtype(spec, dtype, at)
    rank = len(spec.shape)
    if len(shape) not in (rank, rank - 1):
        raise CalibrationError(
            f"{at}: found an array of shape {format_shape(shape)}, expected {rank} axes "
            f"({format_shape(spec.shape)}, samples along axis 0), or {rank - 1} axes for a single "
            "sample."
        )
    count, sample = (shape[0], shape[1:]) if len(shape) == rank else (1, shape)
    if count == 0 or 0 in sample:
        raise CalibrationError(
            f"{at}: found an empty array of shape {format_shape(shape)}; at least one sample "
            f"of shape {format_shape(spec.shape[1:])} is needed."
        )
    fixed = spec.extents[1:]
    if any(want is not None and want != have for want, have in zip(fixed, sample, strict=True)):
        raise CalibrationError(
            f"{at}: found samples of shape {format_shape(sample)}, expected "
            f"{format_shape(spec.shape[1:])}; reshape, resize or transpose the samples to fit."
        )
    return count


def one_sample(spec: InputSpec, values: Array, where: str) -> Array:
    """An array that holds a single sample, without the sample axis, which may be there."""
    count = count_samples(spec, values.shape, values.dtype, where)
    if count != 1:
        raise CalibrationError(
            f"{where}, input {spec.name!r}: found {count} samples of shape "
            f"{format_shape(values.shape[1:])}, expected one; divide them."
        )
    return values[0] if values.ndim == len(spec.shape) else values


def same_count(counts: dict[str, int], where: str) -> int:
    """The number of samples all inputs agree on; counts maps input name -> samples."""
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
        raise CalibrationError(
            f"{where}: the inputs have different numbers of samples ({found}); axis 0 of every "
            "array must count the same samples."
        )
    return next(iter(counts.values()))


def _check_dtype(spec: InputSpec, found: np.dtype[Any], at: str) -> None:
    if found.hasobject:
        raise CalibrationError(
            f"{at}: found an array of Python objects, which is never loaded (it may hold "
            f"executable pickles); save it again as {spec.dtype}."
        )
    both = found.kind + spec.dtype.kind
    if both in ("ff", "ii") or found.newbyteorder("=") == spec.dtype:
        return
    advice = f"convert the array, e.g. array.astype(numpy.{spec.dtype})"
    if spec.dtype.kind == "f" and found.kind in "iu":
        advice = (
            f"preprocess it as the model expects (scale, mean, std), then save it as {spec.dtype}"
        )
    raise CalibrationError(f"{at}: found type {found}, expected {spec.dtype}; {advice}.")


def convert(spec: InputSpec, values: Array, where: str) -> Array:
    """The array in the input's own type; refused if a value is not finite or does not fit.

    Args:
        spec: the graph input; ``values`` passed ``count_samples`` for it.
        values: an array of any shape.
        where: what the array was read from, for the messages.
    """
    found = np.asarray(values)
    at = f"{where}, input {spec.name!r}"
    wanted = spec.dtype
    if wanted.kind == "i" and found.dtype.itemsize > wanted.itemsize and found.size:
        limits = np.iinfo(wanted)
        low, high = int(found.min()), int(found.max())
        if low < limits.min or high > limits.max:
            raise CalibrationError(
                f"{at}: found values from {low} to {high} of type {found.dtype}, which do not fit "
                f"the expected {wanted}; correct the values."
            )
    if spec.below is not None and found.size:
        _check_below(found, spec.below, at)
    with np.errstate(over="ignore"):  # an overflow is reported below, with its place
        result = found.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(result).all():
        raise CalibrationError(_not_finite(found, result, at))
    return result


def _check_below(found: Array, below: int, at: str) -> None:
    """Refuse whole numbers that the table they look up does not hold."""
    low, high = int(found.min()), int(found.max())
    if low < -below or high >= below:
        raise CalibrationError(
            f"{at}: found values from {low} to {high}, but the model looks them up in a table of "
            f"{below} entries; check that they are of the vocabulary that the model was made for."
        )


def _not_finite(found: Array, result: Array, at: str) -> str:
    bad = int(found.size - np.count_nonzero(np.isfinite(found)))
    if bad:
        return (
            f"{at}: {bad} of {found.size} values are NaN or Inf, expected finite values; correct "
            "the preprocessing or leave the sample out."
        )
    return (
        f"{at}: found values up to {np.abs(found).max():g} of type {found.dtype}, which overflow "
        f"the expected {result.dtype}; correct the preprocessing."
    )
