"""From a cell of an Arrow table to an array, or to the bytes of an image.

Numbers, lists of numbers nested to any depth, of fixed length or not, and Arrow's tensors are
arrays; binary cells, and structs with a field ``bytes`` as Hugging Face writes images, are images.
Extension types that pyarrow does not know arrive as what they are stored as: lists, mostly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from onnxprune.arrays import Array

IMAGE_FIELD = "bytes"


class CellError(ValueError):
    """A cell holds nothing that an input could be fed with."""


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column's cells are encoded images."""
    if pa.types.is_struct(kind):
        index = kind.get_field_index(IMAGE_FIELD)
        return index >= 0 and holds_images(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_bytes(cell: pa.Array) -> bytes:
    """The encoded image in an array of one cell.

    Raises:
        CellError: there is none.
    """
    value: Any = cell[0].as_py()
    if isinstance(value, dict):
        if value.get(IMAGE_FIELD) is None and value.get("path"):
            raise CellError(
                f"the image is not in the table, only its path {value['path']!r}, which is not "
                "followed; save the data set with its images embedded, or give their folder"
            )
        value = value.get(IMAGE_FIELD)
    if value is None:
        raise CellError("the cell is empty")
    return bytes(value)


def numbers(cell: pa.Array) -> Array:
    """The array in an array of one cell.

    Raises:
        CellError: it is empty, ragged, or holds no numbers.
    """
    if isinstance(cell, pa.FixedShapeTensorArray):
        if cell.null_count:
            raise CellError("the cell is empty")
        return np.array(cell.to_numpy_ndarray()[0])
    if isinstance(cell, pa.ExtensionArray):
        cell = cell.storage
    shape: list[int] = []
    while _is_list(cell.type):
        if cell.null_count:
            raise CellError("a list in the cell is missing")
        lengths = pc.unique(pc.list_value_length(cell)).to_pylist()
        if len(lengths) > 1:
            raise CellError(f"its lists are of different lengths ({sorted(lengths)[:2]}, ...)")
        shape.append(lengths[0] if lengths else 0)
        cell = cell.flatten()
    if pa.types.is_dictionary(cell.type):
        cell = cell.dictionary_decode()
    if not _is_number(cell.type):
        raise CellError(f"found {cell.type}, which is no number")
    if cell.null_count:
        raise CellError("a number in the cell is missing")
    return np.array(cell.to_numpy(zero_copy_only=False)).reshape(shape)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )
