"""Functions of the user's own files: ``file.py:function``."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxprune.errors import OnnxPruneError

MODULE_NAME = "_onnxprune_user_script"


class UserFunction:
    """A function of a Python file, and what goes wrong inside it as an error that says where.

    The file's folder is importable while its code runs, as if it had been started with ``python
    file.py``; afterwards ``sys.path`` is what it was.

    Args:
        path: the Python file; it is run once.
        function: the name of the function.
        error: raised for what the user's code raises.

    Raises:
        OnnxPruneError: of the class ``error``: the file fails, or has no such function.
    """

    def __init__(self, path: Path, function: str, error: type[OnnxPruneError]) -> None:
        self.where = f"{path}:{function}"
        self._path, self._error = path, error
        self._module = ModuleType(MODULE_NAME)
        self._module.__file__ = str(path)
        with self.running():
            # Not imported: importing would leave compiled files beside the user's.
            code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
            exec(code, self._module.__dict__)
        found = getattr(self._module, function, None)
        if not callable(found):
            raise error(f"{self.where}: {path} has no function named {function!r}.")
        self._function: Callable[..., Any] = found

    def __call__(self, *arguments: object) -> Any:
        """What the function returns."""
        with self.running():
            return self._function(*arguments)

    @property
    def argument_count(self) -> int:
        """How many positional arguments it takes."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self._function).parameters.values()
        return sum(parameter.kind in kinds for parameter in parameters)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around code of the file: its imports are found, and its errors are told as its own."""
        before, shadowed = sys.path[:], sys.modules.get(MODULE_NAME)
        sys.path.insert(0, str(self._path.resolve().parent))
        sys.modules[MODULE_NAME] = self._module  # dataclasses and typing look their module up
        try:
            yield
        except self._error:  # it says where already
            raise
        except (Exception, SystemExit) as error:  # a script may call sys.exit() on loading
            raise self._error(
                f"{self.where}: raised {type(error).__name__}{self._line(error)}: {error}; "
                "correct the script."
            ) from error
        finally:
            sys.path[:] = before
            sys.modules.pop(MODULE_NAME, None)
            if shadowed is not None:
                sys.modules[MODULE_NAME] = shadowed

    def _line(self, error: BaseException) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame.lineno for frame in frames if frame.filename == str(self._path)]
        return f" in line {own[-1]}" if own else ""


def find_function(spec: str, what: str, error: type[OnnxPruneError]) -> UserFunction:
    """The function that ``file.py:function`` names.

    Args:
        spec: as the user wrote it.
        what: what the function is, for messages.
        error: raised for what is wrong with it, and for what it raises itself.

    Raises:
        OnnxPruneError: of the class ``error``: the file or the function is missing, or fails.
    """
    path, _, function = spec.rpartition(":")
    if not path.endswith(".py") or not function.isidentifier():
        raise error(f"{spec}: write {what} as file.py:function")
    if not Path(path).is_file():
        raise error(f"{path}: no such file; write {what} as file.py:function")
    return UserFunction(Path(path), function, error)
