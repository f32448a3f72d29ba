"""Samples that a function of the user's own file yields: ``file.py:function``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.stacks import MemoryStack, stacks_from_python
from onnxprune.errors import CalibrationError

MODULE_NAME = "_onnxprune_calibration_script"


def stacks_from_script(path: Path, function: str, inputs: Sequence[InputSpec]) -> list[MemoryStack]:
    """Run ``function()`` of the file and take what it yields or returns.

    The file's folder is importable while the function runs, as if it had been started with
    ``python file.py``; afterwards ``sys.path`` is what it was.

    Args:
        path: the Python file.
        function: name of a function without required arguments that yields (or returns)
            dictionaries of arrays.
        inputs: the model's inputs.
    """
    where = f"{path}:{function}"
    with _imports_from(path) as module:
        with _reported(path, where):
            # Not imported: importing would leave compiled files beside the user's.
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
            exec(code, module.__dict__)
        samples = getattr(module, function, None)
        if not callable(samples):
            raise CalibrationError(f"{where}: {path} has no function named {function!r}.")
        with _reported(path, where):
            result = samples()
        if isinstance(result, Iterable) and not isinstance(result, np.ndarray | Mapping | str):
            result = _guarded(result, path, where)
        return stacks_from_python(result, inputs, where)


@contextmanager
def _imports_from(path: Path) -> Iterator[ModuleType]:
    module = ModuleType(MODULE_NAME)
    module.__file__ = str(path)
    before = sys.path[:]
    sys.path.insert(0, str(path.resolve().parent))
    sys.modules[MODULE_NAME] = module  # dataclasses and typing look their module up
    try:
        yield module
    finally:
        sys.path[:] = before
        sys.modules.pop(MODULE_NAME, None)


def _guarded(items: Iterable[object], path: Path, where: str) -> Iterator[object]:
    """The items; only what the user's code raises is reported as its failure."""
    with _reported(path, where):
        iterator = iter(items)
    end = object()
    while True:
        with _reported(path, where):
            item = next(iterator, end)
        if item is end:
            return
        yield item


@contextmanager
def _reported(path: Path, where: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:  # a script may call sys.exit() on loading
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)]
        files = [f.filename for f in traceback.extract_tb(error.__traceback__)]
        own = [line for line, file in zip(lines, files, strict=True) if file == str(path)]
        at = f" in line {own[-1]}" if own else ""
        raise CalibrationError(
            f"{where}: raised {type(error).__name__}{at}: {error}; correct the script."
        ) from error
