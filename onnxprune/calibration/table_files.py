"""Parquet files and Arrow files, those of Hugging Face ``datasets``, as samples.

A column has the name of an input; columns beside them are not read. Reading needs pyarrow and
nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.calibration.image_transform import ImageTransform, image_transform
from onnxprune.calibration.input_spec import InputSpec, check_holds
from onnxprune.calibration.preprocessing import Preprocessing
from onnxprune.calibration.table_store import Part, TableStore, reading, record_batches
from onnxprune.errors import CalibrationError, MissingLibraryError

TABLE_SUFFIXES = (".parquet", ".arrow")


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
        with reading(path):
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
            if min(counts, default=0) < 0:
                raise CalibrationError(f"{path}: damaged, it declares {min(counts)} rows")
            firsts = np.cumsum([0, *counts]).tolist()
            groups = zip(counts, firsts, strict=False)
            return file.schema_arrow, [Part(path, n, f, g) for g, (n, f) in enumerate(groups)]
    with pa.memory_map(str(path)) as source:
        reader = record_batches(source)
        return reader.schema, [Part(path, sum(batch.num_rows for batch in reader))]


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
