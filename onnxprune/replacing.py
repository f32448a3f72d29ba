"""New files that take the place of old ones only when they are complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxprune.errors import OnnxPruneError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what is there moves to ``path`` if the block ends without an error.

    The path lies in a temporary folder beside ``path``. Other files that the block writes into that
    folder move as well, and before it, so that a file never misses what it refers to.

    Raises:
        OnnxPruneError: the folder cannot be written.
    """
    with explained(path):
        folder = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    with folder:
        temporary = Path(folder.name) / path.name
        yield temporary
        with explained(path):
            for other in sorted(set(os.listdir(folder.name)) - {path.name}):
                os.replace(temporary.with_name(other), path.with_name(other))
            os.replace(temporary, path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OnnxPruneError(f"{path}: cannot be written ({reason})") from error
