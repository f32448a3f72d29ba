"""Temporary folders that nobody has to clear away: of a killed process, the next one does.

Each folder is locked for as long as the process that made it lives. The system drops the lock with
the process, however that ends; a folder that can be locked belongs to nobody any more.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

SUFFIX = ".onnxprune"
"""Ends the names of all such folders."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder among the system's temporary files, gone when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    folder, remove = scratch_folder()
    try:
        yield folder
    finally:
        remove()


def scratch_folder(prefix: str = "", parent: Path | None = None) -> tuple[Path, Callable[[], None]]:
    """A new folder, and what removes it; those that were left behind go first.

    Args:
        prefix: what its name begins with, and those of the folders that go.
        parent: where it lies; None for the system's folder of temporary files.

    Raises:
        OSError: it cannot be made.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    sweep(prefix, place)
    folder, lock = _made(prefix, place)

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)  # Windows keeps what is mapped until later
        if lock is not None:
            os.close(lock)

    return folder, remove


def _made(prefix: str, place: Path) -> tuple[Path, int | None]:
    """A new folder and its lock, unless the file system has none.

    Another process may sweep the folder before it is locked: then it is made again.
    """
    while True:
        folder = Path(tempfile.mkdtemp(SUFFIX, prefix, place))
        try:
            lock = _locked(folder)
        except (BlockingIOError, FileNotFoundError):
            continue
        except OSError:  # a file system without locks, on which nobody sweeps
            return folder, None
        if lock is None or folder.exists():
            return folder, lock
        os.close(lock)


def sweep(prefix: str, place: Path) -> None:
    """Remove the folders of this name whose processes are gone; where none can tell, none."""
    if sys.platform == "win32":
        return
    for name in os.listdir(place):
        folder = place / name
        if not name.startswith(prefix) or not name.endswith(SUFFIX) or folder.is_symlink():
            continue
        try:
            lock = _locked(folder)
        except OSError:  # in use, gone by now, or another user's
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A handle that holds the folder's lock; None where there are no such locks.

    Raises:
        OSError: another process holds it (BlockingIOError), or it cannot be locked.
    """
    if sys.platform == "win32":
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle
