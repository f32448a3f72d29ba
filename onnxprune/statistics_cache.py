"""Arrays kept between runs, a file for each entry, in a folder of bounded size.

A cache only saves time: what cannot be read or written is as good as none. An entry appears whole
or not at all, is read without pickles, and every array in it has a checksum.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.array_archive import read_archive
from onnxprune.arrays import Array
from onnxprune.cache_folder import chosen_folder
from onnxprune.fingerprints import of_values

FORMAT = 1
FOLDER = "statistics"
ENDING, UNFINISHED = ".npz", ".part"
LARGEST = 0.5
"""The part of that one entry may take: a larger one would drive out all others."""
ABANDONED = 3600.0
"""Seconds after which an unfinished file is no longer being written."""

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


@dataclass(frozen=True)
class Found:
    """What an entry holds.

    Attributes:
        arrays: by name.
        age: seconds since they were made.
    """

    arrays: Mapping[str, Array]
    age: float


@dataclass(frozen=True)
class Entry:
    """An entry as a file.

    Attributes:
        path: the file.
        kind: what it holds.
        bytes: its size.
        used: when it was used last, in seconds since 1970.
    """

    path: Path
    kind: str
    bytes: int
    used: float

    def about(self) -> Mapping[str, Any] | None:
        """What the entry says of itself; None if it cannot be read."""
        try:
            head = _head(read_archive(self.path, "head"))
            return {"created": float(head["created"]), **dict(head["about"])}
        except _UNREADABLE:
            return None


class StatisticsCache:
    """Entries in a folder; those that were used longest ago make room.

    Args:
        folder: the cache folder; entries are in one within it.
        max_bytes: what all of them may take.

    Attributes:
        folder: where the entries are.
        notes: what went wrong so far, for people.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder / FOLDER
        self.notes: list[str] = []
        self._max_bytes = max_bytes

    def get(self, kind: str, key: Mapping[str, Any]) -> Found | None:
        """What is kept under a key; what is damaged is thrown away."""
        path = self._path(kind, key)
        try:
            file = read_archive(path)
            head = _head(file)
            if (head["kind"], head["key"]) != (kind, json.loads(json.dumps(key))):
                raise ValueError("it is an entry of another key")
            age = max(0.0, time.time() - float(head["created"]))
            found = Found({n: array for n, array in file.items() if n != "head"}, age)
        except FileNotFoundError:
            return None
        except _UNREADABLE as error:
            self.discard(kind, key, str(error) or type(error).__name__)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return found

    def discard(self, kind: str, key: Mapping[str, Any], reason: str) -> None:
        """Throw an entry away that is not what it should be."""
        path = self._path(kind, key)
        self.notes.append(f"a damaged entry of the cache was discarded: {path} ({reason})")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def put(
        self,
        kind: str,
        key: Mapping[str, Any],
        arrays: Mapping[str, Array],
        about: Mapping[str, Any],
    ) -> None:
        """Keep arrays under a key, and make room for them.

        Args:
            kind: what they are, a word.
            key: all that they depend on, as JSON values.
            arrays: by name; none is called "head".
            about: what to show of the entry, as JSON values.
        """
        size = sum(array.nbytes for array in arrays.values())
        if size > LARGEST * self._max_bytes:
            self.notes.append(
                f"{kind} of {size / 1e6:,.0f} MB were not kept in the cache, which may take "
                f"{self._max_bytes / 1e6:,.0f} MB; --cache-size allows more"
            )
            return
        head = {"format": FORMAT, "kind": kind, "key": key, "about": about, "created": time.time()}
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=UNFINISHED)
            try:
                with os.fdopen(handle, "wb") as file:
                    np.savez(file, head=np.array(json.dumps(head)), **arrays)  # type: ignore[arg-type]
                os.replace(name, self._path(kind, key))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            reason = error.strerror or error
            self.notes.append(f"the cache {self.folder} cannot be written ({reason})")
            return
        self.trim(self._max_bytes)

    def entries(self) -> list[Entry]:
        """All entries, those used last first."""
        found = []
        for path in _files(self.folder, ENDING):
            with contextlib.suppress(OSError):  # another process has taken it away
                state = path.stat()
                kind, _, _ = path.stem.rpartition("-")
                found.append(Entry(path, kind, state.st_size, state.st_mtime))
        return sorted(found, key=lambda entry: (-entry.used, entry.path.name))

    def trim(self, max_bytes: int) -> list[Entry]:
        """Remove what was used longest ago until the rest fits; return what was removed."""
        total, gone = 0, []
        for entry in self.entries():
            total += entry.bytes
            if total > max_bytes:
                gone.append(entry)
        self._remove(gone)
        return gone

    def clear(self, older_than: float = 0.0) -> list[Entry]:
        """Remove what was not used for so many seconds; return it."""
        before = time.time() - older_than
        gone = [entry for entry in self.entries() if not older_than or entry.used < before]
        self._remove(gone)
        return gone

    def _remove(self, entries: list[Entry]) -> None:
        for entry in entries:
            with contextlib.suppress(OSError):
                entry.path.unlink(missing_ok=True)
        for path in _files(self.folder, UNFINISHED):  # of a process that was killed
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink(missing_ok=True)

    def _path(self, kind: str, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{kind}-{of_values([FORMAT, kind, key])[:32]}{ENDING}"


def open_cache(folder: str | Path | None, max_bytes: int) -> StatisticsCache | None:
    """The cache that a run uses.

    Args:
        folder: its folder; None for the one that ``ONNXPRUNE_CACHE`` names, if it names one; empty
            for no cache whatever it names.
        max_bytes: what all entries may take.
    """
    place = chosen_folder() if folder is None else Path(folder) if str(folder) else None
    return None if place is None else StatisticsCache(place, max_bytes)


def _files(folder: Path, ending: str) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.suffix == ending)
    except OSError:
        return


def _head(file: Mapping[str, Array]) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(str(file["head"]))
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}, this version reads {FORMAT}")
    return head
