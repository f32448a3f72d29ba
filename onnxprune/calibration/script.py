"""Samples that a function of the user's own file yields: ``file.py:function``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.stacks import MemoryStack, stacks_from_python
from onnxprune.errors import CalibrationError
from onnxprune.user_code import UserFunction


def stacks_from_script(path: Path, function: str, inputs: Sequence[InputSpec]) -> list[MemoryStack]:
    """Run ``function()`` of the file and take what it yields or returns.

    Args:
        path: the Python file.
        function: name of a function without required arguments that yields (or returns)
            dictionaries of arrays.
        inputs: the model's inputs.
    """
    samples = UserFunction(path, function, CalibrationError)
    result = samples()
    if isinstance(result, Iterable) and not isinstance(result, np.ndarray | Mapping | str):
        result = _guarded(result, samples)
    return stacks_from_python(result, inputs, samples.where)


def _guarded(items: Iterable[object], code: UserFunction) -> Iterator[object]:
    """The items; only what the user's code raises is reported as its failure."""
    with code.running():
        iterator = iter(items)
    end = object()
    while True:
        with code.running():
            item = next(iterator, end)
        if item is end:
            return
        yield item
