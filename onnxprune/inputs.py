"""What a model is fed with: its inputs, and samples checked against them."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.calibration import Calibration, CalibrationSource, InputSpec, load_calibration
from onnxprune.errors import UnsupportedModelError
from onnxprune.options import Options


def open_samples(
    model: onnx.ModelProto, calibration: CalibrationSource, options: Options
) -> Calibration:
    """The calibration samples, checked against a model's inputs.

    Raises:
        CalibrationError: they do not fit.
    """
    return load_calibration(
        calibration,
        input_specs(model),
        preprocessing=options.preprocessing,
        num_samples=options.num_samples,
        seed=options.seed,
    )


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The graph inputs a caller has to feed: all but initializers."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in initializers:
            continue
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            raise UnsupportedModelError(
                f"graph input '{value.name}' is not a tensor with a known number of axes"
            )
        shape = tuple(
            d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim
        )
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        if kind.elem_type == onnx.TensorProto.BFLOAT16:  # which NumPy lacks
            dtype = np.dtype(np.float32)
        specs.append(InputSpec(value.name, shape, dtype))
    return specs
