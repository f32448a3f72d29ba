"""What a model is fed with: its inputs, and samples checked against them."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.calibration import Calibration, CalibrationSource, InputSpec, load_calibration
from onnxprune.errors import CalibrationError, UnsupportedModelError
from onnxprune.index_limits import index_limits
from onnxprune.options import Options
from onnxprune.rewrite import digest
from onnxprune.row_mask import RowMask
from onnxprune.saved_moments import SavedMoments


def learnt_statistics(model: onnx.ModelProto, options: Options) -> SavedMoments | None:
    """The learnt moments that the options name.

    Raises:
        CalibrationError: they cannot be read, or belong to another model.
    """
    given = options.statistics
    if given is None:
        return None
    learnt = given if isinstance(given, SavedMoments) else SavedMoments.load(given)
    if learnt.digest != digest(model):
        where = "" if isinstance(given, SavedMoments) else f"{given}: "
        raise CalibrationError(
            f"{where}the statistics were learnt for another model, or for this one with other "
            "weights; give the model that was written in the same run"
        )
    return learnt


def open_samples(
    model: onnx.ModelProto,
    calibration: CalibrationSource | None,
    options: Options,
    learnt: SavedMoments | None = None,
) -> Calibration:
    """The calibration samples, checked against a model's inputs.

    Args:
        model: the model.
        calibration: the samples; None for those that lie beside learnt moments.
        options: settings.
        learnt: moments that were learnt in training.

    Raises:
        CalibrationError: they do not fit, or there are none.
    """
    if calibration is None:
        if learnt is None:
            raise CalibrationError("there are no samples: give some, or learnt statistics")
        if options.composition.sequential:
            raise CalibrationError(
                "refitting in order needs samples, which learnt statistics do not stand for; "
                "give --calib as well, or leave --sequential away"
            )
        if options.refine is not None:
            raise CalibrationError(
                "refining needs samples to train on, and those beside learnt statistics are too "
                "few; give --calib as well, or leave --refine away"
            )
        calibration = learnt.samples
    return load_calibration(
        calibration,
        input_specs(model),
        preprocessing=options.preprocessing,
        num_samples=options.num_samples,
        seed=options.seed,
    )


def mask_of(canonical: onnx.ModelProto, samples: Calibration, name: str | None) -> RowMask | None:
    """The mask among the inputs, checked on all samples; None where there is none.

    Raises:
        CalibrationError: it is no mask of this model, or blanks a sample out.
    """
    if name is None:
        return None
    mask = RowMask.of(canonical, name)
    for number, index in enumerate(samples.selected.tolist()):
        if not samples.store.read(index)[name].any():
            raise CalibrationError(
                f"--mask {name}: all of sample {number} is masked; leave such samples out, or "
                "check whether 0 stands for padding in this mask, as it has to"
            )
    return mask


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The graph inputs a caller has to feed: all but initializers."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    specs = []
    limits = index_limits(model)
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
        below = limits.get(value.name) if dtype.kind in "iu" else None
        specs.append(InputSpec(value.name, shape, dtype, below))
    return specs
