"""Samples in the rows of tables.

Rows that are used are kept, encoded images as they are, up to a bound; beyond it rows are read
again, some hundreds at a time. Arrow files are memory-mapped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.image_folder import opened
from onnxprune.calibration.image_transform import ImageTransform
from onnxprune.calibration.input_spec import InputSpec, convert, one_sample
from onnxprune.errors import CalibrationError

MAX_KEPT_BYTES = 2**30
ROWS_AT_ONCE = 256

Cells = Mapping[str, Array | bytes]
"""One row: input name -> its array, or its encoded image."""


@dataclass(frozen=True)
class Part:
    """Rows that are read together: a row group of a Parquet file, or an Arrow file.

    Attributes:
        path: the file.
        count: how many rows.
        first: the number of the first one in its file.
        group: the row group; None for an Arrow file.
    """

    path: Path
    count: int
    first: int = 0
    group: int | None = None

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """The rows in order, as record batches of these columns."""
        import pyarrow as pa
        from pyarrow import parquet

        if self.group is not None:
            with parquet.ParquetFile(self.path, memory_map=True) as file:
                yield from file.iter_batches(ROWS_AT_ONCE, [self.group], list(columns))
            return
        with pa.memory_map(str(self.path)) as source:
            for batch in record_batches(source):
                chosen = batch.select(list(columns))
                chosen.validate(full=True)
                yield chosen


class TableStore:
    """One sample per row.

    Args:
        parts: where the rows are, in order.
        columns: input name -> column.
        transforms: of the inputs whose columns hold images.
        inputs: the model's inputs.
        name: what to call the whole, for people.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        columns: Mapping[str, str],
        transforms: Mapping[str, ImageTransform],
        inputs: Sequence[InputSpec],
        name: str,
    ) -> None:
        self._parts, self._columns, self._transforms = parts, columns, transforms
        self._inputs, self._name = inputs, name
        self._ends = np.cumsum([part.count for part in parts])
        self._kept: dict[int, Cells] = {}
        self._kept_bytes = 0
        self._shapes: dict[int, Shapes] = {}
        self._cursor: _Cursor | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def images(self) -> bool:
        """Whether a column holds some."""
        return bool(self._transforms)

    def read(self, index: int) -> Feed:
        """Sample ``index``: input name -> array without the sample axis, in the input's type."""
        where, cells = self._where(index), self._cells(index)
        feed: Feed = {}
        for spec in self._inputs:
            cell = cells[spec.name]
            if isinstance(cell, bytes):
                with opened(io.BytesIO(cell), where, spec.name) as image:
                    feed[spec.name] = self._transforms[spec.name](image)
            else:
                feed[spec.name] = cell
        return feed

    def shapes(self, index: int) -> Shapes:
        """The shapes of sample ``index``."""
        if index not in self._shapes:
            cells = self._cells(index)
            found = []
            for spec in self._inputs:
                cell = cells[spec.name]
                if isinstance(cell, bytes):
                    with opened(io.BytesIO(cell), self._where(index), spec.name) as image:
                        found.append(self._transforms[spec.name].shape(image))
                else:
                    found.append(cell.shape)
            self._shapes[index] = tuple(found)
        return self._shapes[index]

    def check(self, indices: IndexArray) -> None:
        """Read every row that is used; of images only the headers."""
        for index in indices.tolist():
            self.shapes(index)

    def describe(self) -> str:
        """What the samples are, for people."""
        columns = [
            f"column {column!r} of {self._name} as {self._transforms[name].describe()}"
            for name, column in self._columns.items()
            if name in self._transforms
        ]
        return " and ".join(columns) or f"rows of {self._name}"

    def _where(self, index: int) -> str:
        part = self._parts[self._part(index)]
        return f"{part.path}, row {part.first + self._row(index)}"

    def _part(self, index: int) -> int:
        return int(np.searchsorted(self._ends, index, side="right"))

    def _row(self, index: int) -> int:
        """The place of a row in its part."""
        number = self._part(index)
        return index - int(self._ends[number]) + self._parts[number].count

    def _cells(self, index: int) -> Cells:
        if index in self._kept:
            return self._kept[index]
        part, row = self._part(index), self._row(index)
        with reading(self._parts[part].path):
            if self._cursor is None or not self._cursor.reaches(part, row):
                columns = list(self._columns.values())
                self._cursor = _Cursor(part, self._parts[part].batches(columns))
            batch, place = self._cursor.at(row)
            cells = self._of(batch.slice(place, 1), self._where(index))
        size = sum(len(c) if isinstance(c, bytes) else c.nbytes for c in cells.values())
        if self._kept_bytes + size <= MAX_KEPT_BYTES:
            self._kept[index] = cells
            self._kept_bytes += size
        return cells

    def _of(self, row: Any, where: str) -> Cells:
        """The cells of a record batch of one row."""
        from onnxprune.calibration.table_columns import CellError, image_bytes, numbers

        cells: dict[str, Array | bytes] = {}
        for spec in self._inputs:
            column = self._columns[spec.name]
            at = f"{where}, column {column!r}"
            try:
                if spec.name in self._transforms:
                    cells[spec.name] = image_bytes(row.column(column))
                    continue
                values = numbers(row.column(column))
            except CellError as error:
                raise CalibrationError(f"{at}: {error}; expected {spec}.") from error
            cells[spec.name] = convert(spec, one_sample(spec, values, at), at)
        return cells


class _Cursor:
    """A place in a part, which moves forward only."""

    def __init__(self, part: int, batches: Iterator[Any]) -> None:
        self._part, self._batches = part, batches
        self._first, self._batch = 0, next(batches)

    def reaches(self, part: int, row: int) -> bool:
        """Whether a row is here or ahead."""
        return part == self._part and row >= self._first

    def at(self, row: int) -> tuple[Any, int]:
        """The batch that a row is in, and its place there."""
        while row >= self._first + self._batch.num_rows:
            self._first += self._batch.num_rows
            self._batch = next(self._batches)
        return self._batch, row - self._first


class _FileBatches:
    """The record batches of an Arrow file with a footer, as those of a stream."""

    def __init__(self, reader: Any) -> None:
        self._reader, self.schema = reader, reader.schema

    def __iter__(self) -> Iterator[Any]:
        return map(self._reader.get_batch, range(self._reader.num_record_batches))


def record_batches(source: Any) -> Any:
    """The record batches of a stream, which `datasets` writes, or of a file with a footer."""
    import pyarrow as pa

    try:
        return _FileBatches(pa.ipc.open_file(source))
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every way a damaged file can fail into an error that names it."""
    import pyarrow as pa

    try:
        yield
    except CalibrationError:
        raise
    except (
        pa.ArrowException,
        OSError,
        ValueError,  # names that are no UTF-8, too
        LookupError,
        StopIteration,
        MemoryError,
        OverflowError,
    ) as error:
        raise CalibrationError(
            f"{path}: cannot be read as {path.suffix.lower()} ({error}); write it again."
        ) from error
