"""Samples that a function of the user's own file yields: ``file.py:function``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.items import is_array, items_of
from onnxprune.calibration.stacks import MemoryStack, stacks_from_python, stacks_of_items
from onnxprune.errors import CalibrationError
from onnxprune.user_code import UserFunction


def stacks_from_script(
    path: Path, function: str, inputs: Sequence[InputSpec], most: int | None = None
) -> list[MemoryStack]:
    """Run ``function()`` of the file and take what it yields or returns.

    Args:
        path: the Python file.
        function: name of a function without required arguments that yields (or returns) samples:
            anything that ``stacks_from_python`` takes.
        inputs: the model's inputs.
        most: a stream is read until it has given so many samples; None for its end.
    """
    samples = UserFunction(path, function, CalibrationError)
    result = samples()
    if is_array(result) or isinstance(result, Mapping):
        return stacks_from_python(result, inputs, samples.where)
    with samples.running():
        items = items_of(result, samples.where)
    if isinstance(result, list):  # it is in memory as a whole, whatever is taken of it
        most = None
    return stacks_of_items(_guarded(items, samples), inputs, samples.where, most)


def _guarded(items: Iterator[object], code: UserFunction) -> Iterator[object]:
    """The items; only what the user's code raises is reported as its failure."""
    end = object()
    while True:
        with code.running():
            item = next(items, end)
        if item is end:
            return
        yield item
