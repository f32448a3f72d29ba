"""Where a command reads and writes, checked before the work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from onnxprune.errors import OnnxPruneError
from onnxprune.replacing import require_file


def check_places(
    parser: argparse.ArgumentParser, reads: Mapping[str, Path], writes: Mapping[str, Path | None]
) -> None:
    """Refuse to write one file over another that is read or written, or where none can be.

    Args:
        parser: what reports wrong usage.
        reads: what a file is -> the file.
        writes: what a file will be -> the file; None for one that is not asked for.

    Raises:
        OnnxPruneError: a folder is missing or cannot be written, or what would be replaced is a
            device or a pipe.
    """
    asked = {what: path for what, path in writes.items() if path is not None}
    for path in (*reads.values(), *asked.values()):
        if "\0" in str(path):  # from a configuration file: no word of a command line has one
            parser.error(f"{str(path)!r} is no path")
    for path in asked.values():
        if path.is_dir():
            parser.error(f"{path} is a folder; name a file")
        require_file(path)
    taken = dict(reads)
    for what, path in asked.items():
        for other, other_path in taken.items():
            if _same(path, other_path):
                parser.error(f"{what} would overwrite {other}, {path}; name another file")
        folder = path.absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OnnxPruneError(f"{path}: the folder {folder} is missing or cannot be written")
        taken[what] = path


def _same(path: Path, other: Path) -> bool:
    linked = path.exists() and other.exists() and path.samefile(other)
    return linked or path.resolve() == other.resolve()
