"""Samples held in arrays: a list of stacks, wherever each of them lives.

A *stack* holds the arrays of one file, one yielded dictionary, or one dictionary in memory: every
input's samples along axis 0, or one sample without that axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.input_spec import (
    InputSpec,
    check_names,
    convert,
    count_samples,
    same_count,
)
from onnxprune.calibration.items import as_array, is_array, items_of, named_item
from onnxprune.errors import CalibrationError


class Stack(Protocol):
    """Some samples of every input, not necessarily in memory."""

    @property
    def where(self) -> str:
        """What the samples were read from, for messages."""

    @property
    def count(self) -> int:
        """How many samples the stack holds."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Input name -> shape of its array, with or without the sample axis."""

    def load(self) -> Mapping[str, Array]:
        """Input name -> array, with or without the sample axis; memory-mapped where possible."""


@dataclass(frozen=True)
class MemoryStack:
    """A stack that is in memory already.

    Attributes:
        where: what the samples were read from.
        count: number of samples.
        arrays: input name -> array, with or without the sample axis.
    """

    where: str
    count: int
    arrays: Mapping[str, Array]

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Input name -> shape of its array."""
        return {name: array.shape for name, array in self.arrays.items()}

    def load(self) -> Mapping[str, Array]:
        """The arrays themselves."""
        return self.arrays


class StackStore:
    """Single samples out of a list of stacks; at most one stack that lives in a file is open.

    Args:
        stacks: at least one stack; their shapes and types have been checked.
        inputs: the model's inputs.
        name: what to call the whole, for people.
    """

    def __init__(self, stacks: Sequence[Stack], inputs: Sequence[InputSpec], name: str) -> None:
        self._stacks = stacks
        self._inputs = inputs
        self._name = name
        self._ends = np.cumsum([stack.count for stack in stacks])
        self._open: tuple[int, Mapping[str, Array]] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> Feed:
        """Sample ``index``: input name -> array without the sample axis, in the input's type."""
        position = self._position(index)
        stack = self._stacks[position]
        row = index - int(self._ends[position]) + stack.count
        where = f"{stack.where}, sample {row}" if stack.count > 1 else stack.where
        if self._open is None or self._open[0] != position:
            self._open = None  # let go of the last file before the next one is read
            self._open = (position, stack.load())
        arrays = self._open[1]
        return {
            spec.name: convert(spec, _sample(arrays[spec.name], row, spec), where)
            for spec in self._inputs
        }

    def shapes(self, index: int) -> Shapes:
        """The shapes of sample ``index``; nothing is read."""
        shapes = self._stacks[self._position(index)].shapes
        return tuple(
            shapes[spec.name][-len(spec.shape) + 1 :] if len(spec.shape) > 1 else ()
            for spec in self._inputs
        )

    @property
    def images(self) -> bool:
        """They are arrays."""
        return False

    def check(self, indices: IndexArray) -> None:
        """Read every sample once, so that a bad value is reported now, not after an hour."""
        for index in indices:
            self.read(int(index))

    def describe(self) -> str:
        """What the samples are, for people."""
        return f"arrays of {self._name}"

    def _position(self, index: int) -> int:
        """Which stack a sample is in."""
        return int(np.searchsorted(self._ends, index, side="right"))


def _own_shape(shape: tuple[int, ...], spec: InputSpec) -> tuple[int, ...]:
    return shape[1:] if len(shape) == len(spec.shape) else shape


def _sample(array: Array, row: int, spec: InputSpec) -> Array:
    return np.asarray(array[row] if array.ndim == len(spec.shape) else array)


def stacks_from_python(
    source: object, inputs: Sequence[InputSpec], where: str, most: int | None = None
) -> list[MemoryStack]:
    """The stacks of a Python object.

    Args:
        source: an array (for a model with one input), a dictionary of arrays, or a stream of
            samples (see ``items``), which is kept in memory.
        inputs: the model's inputs.
        where: what to call the source in messages.
        most: a stream is read until it has given so many samples; None for its end.
    """
    if is_array(source):
        return [_array_stack(as_array(source, inputs[0], where), inputs, where)]
    if isinstance(source, Mapping):
        check_names(source, inputs, where)
        return [_mapping_stack(source, inputs, where)]
    if isinstance(source, list):  # it is in memory as a whole, whatever is taken of it
        most = None
    return stacks_of_items(items_of(source, where), inputs, where, most)


def stacks_of_items(
    items: Iterable[object], inputs: Sequence[InputSpec], where: str, most: int | None = None
) -> list[MemoryStack]:
    """The stacks of a stream of samples; see ``stacks_from_python``."""
    stacks: list[MemoryStack] = []
    count = 0
    for number, item in enumerate(items):
        here = f"{where}, item {number}"
        stack = _mapping_stack(named_item(item, inputs, here), inputs, here)
        # Copied, since generators like to fill and yield the same buffer again and again.
        arrays = {
            spec.name: np.array(convert(spec, stack.arrays[spec.name], here)) for spec in inputs
        }
        stacks.append(MemoryStack(here, stack.count, arrays))
        count += stack.count
        if most is not None and count >= most:
            break
    if not stacks:
        raise CalibrationError(
            f"{where}: yielded no samples (a generator yields only once; has it been used "
            "before?); at least one is needed."
        )
    return stacks


def _array_stack(array: Array, inputs: Sequence[InputSpec], where: str) -> MemoryStack:
    spec = only_input(inputs, where)
    count = count_samples(spec, array.shape, array.dtype, where)
    return MemoryStack(where, count, {spec.name: array})


def _mapping_stack(
    source: Mapping[str, object], inputs: Sequence[InputSpec], where: str
) -> MemoryStack:
    arrays = {spec.name: as_array(source[spec.name], spec, where) for spec in inputs}
    counts = {
        spec.name: count_samples(spec, arrays[spec.name].shape, arrays[spec.name].dtype, where)
        for spec in inputs
    }
    return MemoryStack(where, same_count(counts, where), arrays)


def only_input(inputs: Sequence[InputSpec], where: str) -> InputSpec:
    """The one input of a model whose samples come without a name."""
    if len(inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in inputs)
        raise CalibrationError(
            f"{where}: holds one array, but the model has {len(inputs)} inputs ({names}); give "
            "every input by name: an .npz file or a dictionary with these keys."
        )
    return inputs[0]
