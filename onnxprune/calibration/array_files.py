"""Stacks that live in .npy and .npz files.

Headers are read first, by hand: the shapes and types of a whole folder are checked without
loading it, Python objects (pickles) are refused before anything is unpickled, and a file whose
declared size is absurd is refused before anything is allocated.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.array_archive import (
    read_array,
    read_header,
    require_fitting,
    require_held,
)
from onnxprune.arrays import Array
from onnxprune.calibration.input_spec import InputSpec, check_names, count_samples, same_count
from onnxprune.calibration.stacks import Stack, only_input
from onnxprune.errors import CalibrationError

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
        shape, dtype = read_header(stream)
        start = stream.tell()
        count = count_samples(spec, shape, dtype, str(path))
        require_held(shape, dtype, path.stat().st_size - start)
    return NpyFile(path, count, spec.name, shape)


def _open_npz(path: Path, inputs: Sequence[InputSpec]) -> NpzFile:
    with _reading(path), zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        require_fitting(archive)
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
        shape, dtype = read_header(stream)
        start = stream.tell()
    count = count_samples(spec, shape, dtype, str(path))
    require_held(shape, dtype, member.file_size - start)
    return shape, count


def npy_array(content: bytes, where: str) -> Array:
    """The array in the bytes of an .npy file.

    Args:
        content: the whole file.
        where: what to call it in messages.

    Raises:
        CalibrationError: it is damaged, or holds Python objects.
    """
    with _reading(where, ".npy"):
        return read_array(content)


@contextmanager
def _reading(path: Path | str, suffix: str | None = None) -> Iterator[None]:
    """Turn every way a damaged file can fail into an error that names it."""
    try:
        yield
    except CalibrationError:
        raise
    except Exception as error:  # each compression and the zip format have errors of their own
        raise CalibrationError(
            f"{path}: cannot be read as {suffix or Path(path).suffix.lower()} ({error}); save it "
            "again with numpy.save or numpy.savez, in several files if it is large (pickles are "
            "never loaded)."
        ) from error
