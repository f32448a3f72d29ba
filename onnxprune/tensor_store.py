"""Arrays by number, of batches or of layers, in memory up to a limit and in files beyond it."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np

from onnxprune.arrays import Array
from onnxprune.replacing import explained
from onnxprune.scratch import scratch_folder

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class _Spilled:
    """An array in a file of its own.

    Attributes:
        path: the file, the elements in C order.
        dtype: type of the elements, which need not be one that NumPy's own format knows.
        shape: the array's.
    """

    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def read(self) -> Array:
        """The array, mapped; no file stays open for longer than somebody holds it."""
        mapped: Array = np.memmap(self.path, self.dtype, "r", shape=self.shape)
        return mapped


class TensorStore(Generic[Key]):
    """Holds arrays by number and key.

    An array that does not fit the limit is written to a file of its own, which is mapped to memory
    whenever it is read. The files live as long as the store: until the end of its ``with`` block,
    or until nobody has the store any more; those of a killed process until the next store writes.
    Where they cannot be written, an OnnxPruneError says so.

    Args:
        max_bytes: how much may lie in memory; None for no limit.

    Attributes:
        bytes_held: bytes of the arrays that lie in memory.
        bytes_spilled: bytes that were ever written to files.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._limit = max_bytes
        self._arrays: dict[int, dict[Key, Array | _Spilled]] = {}
        self._folder: Path | None = None
        self._remove: Callable[[], object] | None = None
        self._files = 0
        self.bytes_held = 0
        self.bytes_spilled = 0

    def __enter__(self) -> TensorStore[Key]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._arrays.clear()
        self.bytes_held = 0
        if self._remove is not None:
            self._remove()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, number: int) -> dict[Key, Array]:
        """The arrays of a number; those from files are read-only."""
        return {
            key: held.read() if isinstance(held, _Spilled) else held
            for key, held in self._arrays.get(number, {}).items()
        }

    def keys(self, number: int) -> set[Key]:
        """What is held of a number."""
        return set(self._arrays.get(number, {}))

    def replace(self, number: int, keep: Collection[Key], new: Mapping[Key, Array]) -> None:
        """Forgets all arrays of a number but some, and adds new ones."""
        held = self._arrays.setdefault(number, {})
        for key in [key for key in held if key not in keep or key in new]:
            self._forget(held.pop(key))
        for key, array in new.items():
            if self._fits(array):
                held[key] = array
                self.bytes_held += array.nbytes
            else:
                held[key] = self._spilled(array)

    def _fits(self, array: Array) -> bool:
        """Whether an array stays in memory; strings and empty arrays have no bytes to write."""
        if self._limit is None or array.dtype.hasobject or not array.nbytes:
            return True
        return self.bytes_held + array.nbytes <= self._limit

    def _forget(self, held: Array | _Spilled) -> None:
        if isinstance(held, _Spilled):
            held.path.unlink(missing_ok=True)  # the space comes back when nobody maps it any more
        else:
            self.bytes_held -= held.nbytes

    def _spilled(self, array: Array) -> _Spilled:
        with explained(Path(tempfile.gettempdir()), "make room for temporary files"):
            if self._folder is None:
                self._folder, remove = scratch_folder()
                self._remove = weakref.finalize(self, remove)
            path = self._folder / str(self._files)
            np.ascontiguousarray(array).tofile(path)
        self._files += 1
        self.bytes_spilled += array.nbytes
        return _Spilled(path, array.dtype, array.shape)
