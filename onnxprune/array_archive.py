"""Arrays in NumPy's own files, from which nobody need be trusted.

Headers are read before values: Python objects (pickles) are refused before anything is unpickled,
and what a header declares is held against what the file has before anything is allocated.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxprune.arrays import Array

_OLDEST_MEMORY = 8 << 30
"""Bytes of memory assumed where the system does not say how much there is."""


class ArchiveError(ValueError):
    """A file does not hold plain arrays."""


def read_archive(path: Path, only: str | None = None) -> dict[str, Array]:
    """The arrays of an .npz file by name.

    Args:
        path: the file.
        only: the name of the one array to read; None for all.

    Raises:
        OSError: the file cannot be opened.
        ArchiveError: it is no archive of plain arrays, is damaged, or declares more than there is
            memory for.
    """
    with path.open("rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                require_fitting(archive)
                return {
                    member.filename.removesuffix(".npy"): _read_member(archive, member)
                    for member in archive.infolist()
                    if only is None or member.filename == f"{only}.npy"
                }
        except ArchiveError:
            raise
        except Exception as error:  # each compression and the zip format have errors of their own
            raise ArchiveError(f"{type(error).__name__}: {error}") from error


def read_array(content: bytes) -> Array:
    """The array in the bytes of an .npy file.

    Raises:
        ArchiveError: it is no plain array, or damaged.
    """
    stream = io.BytesIO(content)
    shape, dtype = read_header(stream)
    require_held(shape, dtype, len(content) - stream.tell())
    stream.seek(0)
    values: Array = np.lib.format.read_array(stream, allow_pickle=False)
    return values


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        shape, dtype = read_header(stream)
        require_held(shape, dtype, member.file_size - stream.tell())
    with archive.open(member) as stream:
        values: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return values


def require_fitting(archive: zipfile.ZipFile) -> None:
    """Refuse an archive that unpacks to more than half of the machine's memory.

    Raises:
        ArchiveError: it does; a small file may, if its values are all alike.
    """
    declared = sum(member.file_size for member in archive.infolist())
    limit = memory() // 2
    if declared > limit:
        raise ArchiveError(
            f"it declares {declared / 2**30:.1f} GiB of arrays, more than the {limit / 2**30:.1f} "
            "GiB (half of this machine's memory) that are loaded at once"
        )


def memory() -> int:
    """Bytes of memory that the machine has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _OLDEST_MEMORY


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in .npy format; the stream is left where the values start.

    Raises:
        ArchiveError: it has none, or holds Python objects.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
        else:  # version 3 exists for the field names of records, which nothing takes
            raise ArchiveError(f"format version {version} is not that of a plain array")
    except ArchiveError:
        raise
    except Exception as error:  # whatever the tokenizer of Python says about the header
        raise ArchiveError(str(error)) from error
    if any(extent < 0 for extent in shape):
        raise ArchiveError(f"the header declares the shape {shape}")
    return shape, dtype


def require_held(shape: tuple[int, ...], dtype: np.dtype[Any], held: int) -> None:
    """Refuse Python objects, and a header that declares more values than follow it.

    Args:
        shape: of the array.
        dtype: of the array.
        held: bytes behind the header.

    Raises:
        ArchiveError: it does.
    """
    if dtype.hasobject:
        raise ArchiveError("it holds Python objects, which are never loaded")
    declared = dtype.itemsize * math.prod(shape)  # of Python integers, which do not wrap around
    if declared > held:
        raise ArchiveError(
            f"the header declares {declared} bytes of values, but the file holds {held}; "
            "it is damaged or was not written to its end. Save it again"
        )
