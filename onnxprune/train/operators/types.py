"""Element types: what a tensor of the model is in torch."""

from __future__ import annotations

import onnx
import torch

from onnxprune.errors import UnsupportedModelError

T = onnx.TensorProto
TORCH_TYPES: dict[int, torch.dtype] = {
    T.FLOAT: torch.float32,
    T.DOUBLE: torch.float64,
    T.FLOAT16: torch.float32,
    T.BFLOAT16: torch.float32,
    T.BOOL: torch.bool,
    T.INT8: torch.int8,
    T.INT16: torch.int16,
    T.INT32: torch.int32,
    T.INT64: torch.int64,
    T.UINT8: torch.uint8,
    T.UINT16: torch.int32,
    T.UINT32: torch.int64,
    T.UINT64: torch.int64,
}
"""Half precision is trained in single precision; torch knows few operations on wide unsigned."""


def torch_type(code: int, where: str) -> torch.dtype:
    """The type in torch of a type of ONNX.

    Raises:
        UnsupportedModelError: there is none, as for strings.
    """
    if code not in TORCH_TYPES:
        name = T.DataType.Name(code) if code in T.DataType.values() else str(code)
        raise UnsupportedModelError(
            f"'{where}' holds elements of type {name.lower()}, which cannot be trained through"
        )
    return TORCH_TYPES[code]
