"""Samples in the rows of Parquet files and of Arrow files, those of Hugging Face ``datasets``.

A column has the name of an input; columns beside them are not read. Rows that are used are kept,
encoded images as they are, up to a bound; beyond it rows are read again, some hundreds at a time.
Arrow files are memory-mapped. Reading needs pyarrow and nothing else.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.image_folder import opened
from onnxprune.calibration.image_transform import ImageTransform, image_transform
from onnxprune.calibration.input_spec import InputSpec, check_holds, convert, one_sample
from onnxprune.calibration.preprocessing import Preprocessing
from onnxprune.errors import CalibrationError, MissingLibraryError

TABLE_SUFFIXES = (".parquet", ".arrow")
MAX_KEPT_BYTES = 2**30
ROWS_AT_ONCE = 256
SPLITS = ("train", "training", "test", "validation", "valid", "val", "dev", "eval")
_SHARD = re.compile(r"[-_.]\d+-of-\d+$")

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
            for batch in _record_batches(source):
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
        with _reading(self._parts[part].path):
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


def open_tables(
    files: Sequence[Path],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    where: str,
) -> TableStore:
    """The rows of some files, whose columns are the model's inputs.

    Args:
        files: Parquet or Arrow files, in order.
        inputs: the model's inputs. The only one takes the only column, or the only one of images,
            where none has its name.
        preprocessing: how the pixels of images become values.
        where: what to call the whole.

    Raises:
        CalibrationError: a file is damaged, or its columns do not fit.
        MissingLibraryError: pyarrow is not installed.
    """
    _require_pyarrow()
    parts: list[Part] = []
    columns: Mapping[str, str] = {}
    transforms: Mapping[str, ImageTransform] = {}
    for path in files:
        with _reading(path):
            schema, own = _opened(path)
            found = _columns(schema, inputs, str(path))
            kinds = _transforms(schema, found, inputs, preprocessing, where)
        if parts and (found, kinds.keys()) != (columns, transforms.keys()):
            raise CalibrationError(
                f"{path}: its columns are not those of {files[0]}; give files of one data set."
            )
        columns, transforms = found, kinds
        parts += [part for part in own if part.count]
    if not parts:
        raise CalibrationError(f"{where}: holds no rows; at least one sample is needed.")
    return TableStore(parts, columns, transforms, inputs, where)


def table_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Those of the files in a folder that make one data set.

    A folder that ``datasets`` saved says itself what belongs to it; results it keeps beside its
    files (``cache-*.arrow``) do not.

    Raises:
        CalibrationError: the folder holds several splits.
    """
    state = folder / "state.json"
    if state.is_file():
        return _saved(state)
    chosen = [path for path in files if not path.name.startswith("cache-")] or list(files)
    splits = {split: path for path in reversed(chosen) if (split := _split(folder, path))}
    if len(splits) > 1:
        some = ", ".join(sorted(splits))
        named = " or ".join(f"'{_one_split(folder, splits[split])}'" for split in sorted(splits))
        raise CalibrationError(f"{folder}: holds the splits {some}; name one of them: {named}.")
    return chosen


def _split(folder: Path, path: Path) -> str | None:
    """The split that a file belongs to by its name, or by that of its folder."""
    names = (_SHARD.sub("", path.stem), *path.relative_to(folder).parts[:-1])
    return next((split for name in names if (split := _split_in(name))), None)


def _split_in(name: str) -> str | None:
    return next((word for word in re.split(r"[-_.]", name.lower()) if word in SPLITS), None)


def _one_split(folder: Path, path: Path) -> Path:
    """What to write for the split of a file: a pattern of its shards, or their folder."""
    stem = _SHARD.sub("", path.stem)
    if _split_in(stem):
        return path if stem == path.stem else path.with_name(f"{stem}-*{path.suffix}")
    parts = path.relative_to(folder).parts
    return folder.joinpath(*parts[: 1 + [bool(_split_in(part)) for part in parts].index(True)])


def _saved(state: Path) -> list[Path]:
    """The files that ``save_to_disk`` lists."""
    try:
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        names = [str(entry["filename"]) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(
            f"{state}: not what `datasets` writes ({error}); save the data set again."
        ) from error
    if any(Path(name).name != name for name in names):
        raise CalibrationError(f"{state}: names files outside its folder; save the data set again.")
    if not names:
        raise CalibrationError(f"{state}: the data set is empty; at least one sample is needed.")
    return [state.parent / name for name in names]


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            "Parquet and Arrow files are read with pyarrow, which is not installed: "
            "pip install 'onnxprune[data]'"
        ) from error


def _opened(path: Path) -> tuple[Any, list[Part]]:
    """The schema of a file and its parts; no values are read."""
    import pyarrow as pa
    from pyarrow import parquet

    if path.suffix.lower() == ".parquet":
        with parquet.ParquetFile(path, memory_map=True) as file:
            counts = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            firsts = np.cumsum([0, *counts]).tolist()
            groups = zip(counts, firsts, strict=False)
            return file.schema_arrow, [Part(path, n, f, g) for g, (n, f) in enumerate(groups)]
    with pa.memory_map(str(path)) as source:
        reader = _record_batches(source)
        return reader.schema, [Part(path, sum(batch.num_rows for batch in reader))]


class _FileBatches:
    """The record batches of an Arrow file with a footer, as those of a stream."""

    def __init__(self, reader: Any) -> None:
        self._reader, self.schema = reader, reader.schema

    def __iter__(self) -> Iterator[Any]:
        return map(self._reader.get_batch, range(self._reader.num_record_batches))


def _record_batches(source: Any) -> Any:
    """The record batches of a stream, which `datasets` writes, or of a file with a footer."""
    import pyarrow as pa

    try:
        return _FileBatches(pa.ipc.open_file(source))
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source)


def _columns(schema: Any, inputs: Sequence[InputSpec], where: str) -> dict[str, str]:
    """Input name -> column."""
    from onnxprune.calibration.table_columns import holds_images

    names = list(schema.names)
    if len(inputs) == 1 and inputs[0].name not in names:
        images = [field.name for field in schema if holds_images(field.type)]
        for only in (names, images):
            if len(only) == 1:
                return {inputs[0].name: only[0]}
    check_holds(names, inputs, where)
    return {spec.name: spec.name for spec in inputs}


def _transforms(
    schema: Any,
    columns: Mapping[str, str],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    where: str,
) -> dict[str, ImageTransform]:
    """Input name -> what makes its array of an image."""
    from onnxprune.calibration.table_columns import holds_images

    return {
        spec.name: image_transform(preprocessing, [spec], f"{where}, column {columns[spec.name]!r}")
        for spec in inputs
        if holds_images(schema.field(columns[spec.name]).type)
    }


@contextmanager
def _reading(path: Path) -> Iterator[None]:
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
