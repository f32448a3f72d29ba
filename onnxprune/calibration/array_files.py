"""Stacks that live in .npy and .npz files.

Headers are read first, by hand: the shapes and types of a whole folder are checked without
loading it, Python objects (pickles) are refused before anything is unpickled, and a file whose
declared size is absurd is refused before anything is allocated.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from onnxprune.arrays import Array
from onnxprune.calibration.input_spec import InputSpec, check_names, count_samples, same_count
from onnxprune.calibration.stacks import Stack, only_input
from onnxprune.errors import CalibrationError

MAX_NPZ_BYTES = 64 * 2**30
"""An .npz file is loaded as a whole; one that declares more than this is no calibration set."""

UNNAMED = "arr_0"
"""The key numpy.savez gives to an array saved without a name."""


@dataclass(frozen=True)
class NpyFile:
    """A stack in an .npy file, memory-mapped.

    Attributes:
        path: the file.
        count: number of samples.
        name: the input the array belongs to.
        shape: the array's.
    """

    path: Path
    count: int
    name: str
    shape: tuple[int, ...]

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Input name -> shape of its array."""
        return {self.name: self.shape}

    def load(self) -> Mapping[str, Array]:
        """Input name -> memory-mapped array."""
        with _reading(self.path):
            return {self.name: np.load(self.path, mmap_mode="r", allow_pickle=False)}


@dataclass(frozen=True)
class NpzFile:
    """A stack in an .npz file, read as a whole.

    Attributes:
        path: the file.
        count: number of samples.
        keys: input name -> key in the file.
        shapes: input name -> shape of its array.
    """

    path: Path
    count: int
    keys: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def where(self) -> str:
        """The file's path."""
        return str(self.path)

    def load(self) -> Mapping[str, Array]:
        """Input name -> array in memory."""
        with _reading(self.path), np.load(self.path, allow_pickle=False) as file:
            return {name: file[key] for name, key in self.keys.items()}


def open_stack(path: Path, inputs: Sequence[InputSpec]) -> Stack:
    """The stack in an .npy or .npz file; only its headers are read.

    An .npz file has the input names as keys. For a model with one input, an array that was saved
    without a name (NumPy then calls it 'arr_0') is taken too.
    """
    return _open_npz(path, inputs) if path.suffix.lower() == ".npz" else _open_npy(path, inputs)


def _open_npy(path: Path, inputs: Sequence[InputSpec]) -> NpyFile:
    spec = only_input(inputs, str(path))
    with _reading(path), path.open("rb") as stream:
        shape, dtype = _read_header(stream)
        start = stream.tell()
    count = count_samples(spec, shape, dtype, str(path))
    _check_size(path, shape, dtype, path.stat().st_size - start)
    return NpyFile(path, count, spec.name, shape)


def _open_npz(path: Path, inputs: Sequence[InputSpec]) -> NpzFile:
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        declared = sum(info.file_size for info in archive.infolist())
        if declared > MAX_NPZ_BYTES:
            raise CalibrationError(
                f"{path}: declares {declared / 2**30:.0f} GiB of arrays, more than the "
                f"{MAX_NPZ_BYTES / 2**30:.0f} GiB that are loaded at once; save the samples as a "
                "folder of smaller files, or as .npy."
            )
        if len(inputs) == 1 and list(members) == [UNNAMED]:
            keys = {inputs[0].name: UNNAMED}
        else:
            check_names(members, inputs, str(path))
            keys = {spec.name: spec.name for spec in inputs}
        shapes, counts = {}, {}
        for spec in inputs:
            member = members[keys[spec.name]]
            shapes[spec.name], counts[spec.name] = _count_member(path, archive, member, spec)
    return NpzFile(path, same_count(counts, str(path)), keys, shapes)


def _count_member(
    path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, spec: InputSpec
) -> tuple[tuple[int, ...], int]:
    """Shape of a member, and how many samples it holds."""
    with archive.open(member) as stream:
        shape, dtype = _read_header(stream)
        start = stream.tell()
    count = count_samples(spec, shape, dtype, str(path))
    _check_size(path, shape, dtype, member.file_size - start)
    return shape, count


def npy_array(content: bytes, where: str) -> Array:
    """The array in the bytes of an .npy file.

    Args:
        content: the whole file.
        where: what to call it in messages.

    Raises:
        CalibrationError: it is damaged, or holds Python objects.
    """
    stream = io.BytesIO(content)
    with _reading(where, ".npy"):
        shape, dtype = _read_header(stream)
        _check_size(where, shape, dtype, len(content) - stream.tell())
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which may be executable pickles")
        stream.seek(0)
        array: Array = np.load(stream, allow_pickle=False)
        return array


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in .npy format; the stream is left where the values start."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:  # version 3 exists for the field names of records, which no input takes
        raise ValueError(f"format version {version} is not that of a plain array")
    return shape, dtype


def _check_size(path: Path | str, shape: tuple[int, ...], dtype: np.dtype[Any], held: int) -> None:
    # Python integers: the product in a forged header must not wrap around.
    declared = dtype.itemsize
    for extent in shape:
        declared *= extent
    if declared > held:
        raise CalibrationError(
            f"{path}: the header declares {declared} bytes of values, but the file holds {held}; "
            "it is damaged or was not written to its end. Save it again."
        )


@contextmanager
def _reading(path: Path | str, suffix: str | None = None) -> Iterator[None]:
    """Turn every way a damaged file can fail into an error that names it."""
    try:
        yield
    except CalibrationError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,  # an encrypted archive
        NotImplementedError,  # an unknown compression
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,  # a header that NumPy takes for one of Python 2
    ) as error:
        raise CalibrationError(
            f"{path}: cannot be read as {suffix or Path(path).suffix.lower()} ({error}); save it "
            "again with numpy.save or numpy.savez (pickles are never loaded)."
        ) from error
