"""New files that take the place of old ones only when they are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxprune.errors import OnnxPruneError
from onnxprune.scratch import scratch_folder

_UNNAMED = getattr(os, "O_TMPFILE", None)
"""Flag that opens a file without a name; None where the system has none."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there moves to ``path`` if the block ends without an error.

    The path lies in a temporary folder beside ``path``. Other files that the block writes into that
    folder move as well, and before it, so that a file never misses what it refers to. If the
    process is killed, the folder stays until the next file is written to ``path``.

    Raises:
        OnnxPruneError: the folder cannot be written, or ``path`` is something else than a file.
    """
    require_file(path)
    with explained(path):
        folder, remove = scratch_folder(f".{path.name}.", path.parent)
    try:
        temporary = folder / path.name
        yield temporary
        with explained(path):
            for other in sorted(set(os.listdir(folder)) - {path.name}):
                os.replace(temporary.with_name(other), path.with_name(other))
            os.replace(temporary, path)
    finally:
        remove()


@contextmanager
def unnamed(path: Path) -> Iterator[Path]:
    """As ``replacing``, but of one file that has no name until it is complete.

    So it is gone with the process, however that ends. For what takes long to write and to check.
    Where the system has no such files, it is ``replacing``.

    Raises:
        OnnxPruneError: as for ``replacing``.
    """
    require_file(path)
    handle = _opened(path)
    if handle is None:
        with replacing(path) as temporary:
            yield temporary
        return
    place = Path(f"/proc/self/fd/{handle}")
    try:
        yield place
        if not _named(place, path):
            with replacing(path) as temporary, explained(path):
                if not _named(place, temporary):
                    shutil.copyfile(place, temporary)
    finally:
        os.close(handle)


def _opened(path: Path) -> int | None:
    """A handle of a new file without a name, beside ``path``; None where there is no such thing."""
    if _UNNAMED is None or not os.path.isdir("/proc/self/fd"):
        return None
    with contextlib.suppress(OSError):
        return os.open(path.parent, _UNNAMED | os.O_RDWR, 0o666)
    return None


def _named(unnamed: Path, path: Path) -> bool:
    """Give a file its name; False if that is taken, or the file system does no such thing."""
    with contextlib.suppress(OSError):
        # Only with a folder's handle does Python follow the link that leads to the file.
        os.link(unnamed, path.absolute(), src_dir_fd=int(unnamed.name), follow_symlinks=True)
        return True
    return False


def require_file(path: Path) -> None:
    """Refuse to replace what is no file: a folder, a device, a pipe.

    Raises:
        OnnxPruneError: it is none.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise OnnxPruneError(f"{path}: is {what} and would not be replaced; name a file")


@contextmanager
def explained(path: Path, advice: str = "") -> Iterator[None]:
    """Turn what the file system refuses into an error that names the file, and what to do."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        message = f"{path}: cannot be written ({reason})"
        raise OnnxPruneError(f"{message}; {advice}" if advice else message) from error
