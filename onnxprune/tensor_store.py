"""Activations of many batches, in memory up to a limit and in files beyond it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from onnxprune.arrays import Array

Key = TypeVar("Key", bound=Hashable)


class TensorStore(Generic[Key]):
    """Holds arrays by batch number and key.

    An array that does not fit the limit is written to a file of its own, which is mapped to memory
    when it is read. The files live as long as the store, which is a context manager.

    Args:
        max_bytes: how much may lie in memory; None for no limit.

    Attributes:
        bytes_held: bytes of the arrays that lie in memory.
        bytes_spilled: bytes that were ever written to files.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._limit = max_bytes
        self._arrays: dict[int, dict[Key, Array]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
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
        if self._folder is not None:
            self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, batch: int) -> Mapping[Key, Array]:
        """The arrays of a batch; those from files are read-only."""
        return self._arrays.get(batch, {})

    def replace(self, batch: int, keep: Collection[Key], new: Mapping[Key, Array]) -> None:
        """Forgets all arrays of a batch but some, and adds new ones."""
        held = self._arrays.setdefault(batch, {})
        for key in [key for key in held if key not in keep]:
            self._forget(held.pop(key))
        for key, array in new.items():
            if self._limit is not None and self.bytes_held + array.nbytes > self._limit:
                held[key] = self._spilled(array)
            else:
                held[key] = array
                self.bytes_held += array.nbytes

    def _forget(self, array: Array) -> None:
        if isinstance(array, np.memmap):
            path = Path(str(array.filename))
            del array
            path.unlink(missing_ok=True)  # the space comes back when nobody maps it any more
        else:
            self.bytes_held -= array.nbytes

    def _spilled(self, array: Array) -> Array:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(
                prefix="onnxprune-", ignore_cleanup_errors=True
            )
        path = Path(self._folder.name, f"{self._files}.npy")
        np.save(path, array)
        self._files += 1
        self.bytes_spilled += array.nbytes
        mapped: Array = np.load(path, mmap_mode="r")
        return mapped
