"""Whole runs on models of kinds that exporters write and little else has."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, Weight, build
from small_networks import halved, random_samples

from onnxprune import Target, prune
from onnxprune.errors import ValidationError
from onnxprune.validation import check_file


def grouped(opset: int, parameters: int) -> onnx.ModelProto:
    weights: dict[str, Weight] = {"s": (parameters,), "t": (parameters,)}
    return build(
        f"{CONV_IN} h = GroupNormalization <num_groups=4> (c, s, t) {CONV_OUT}",
        CONVS | weights,
        opset=opset,
        ir=10,
    )


@pytest.mark.parametrize(("opset", "parameters"), [(18, 4), (20, 4), (21, 8)])
def test_group_normalization_of_every_opset_is_pruned(
    opset: int, parameters: int, tmp_path: Path
) -> None:
    """The checker of onnx calls it deprecated from 18 to 20; onnxruntime runs it."""
    model = grouped(opset, parameters)
    result = prune(model, random_samples(model), Target("ratio", 0.5))
    result.save(tmp_path / "pruned.onnx")
    sizes = {t.name: list(t.dims) for t in onnx.load(tmp_path / "pruned.onnx").graph.initializer}
    assert sizes["w1"] == [4, 3, 3, 3]


def test_a_fault_of_the_original_hides_no_other(tmp_path: Path) -> None:
    model = grouped(18, 4)
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    broken.graph.node[-1].attribute.add(name="colour", i=3, type=onnx.AttributeProto.INT)
    onnx.save(broken, tmp_path / "broken.onnx")
    onnx.save(model, tmp_path / "same.onnx")
    check_file(tmp_path / "same.onnx", model)
    with pytest.raises(ValidationError, match="not valid ONNX"):
        check_file(tmp_path / "broken.onnx", model)
    with pytest.raises(ValidationError, match="deprecated"):
        check_file(tmp_path / "same.onnx", grouped(21, 8))


# --- half precision -----------------------------------------------------------------------------


def kinds(model: onnx.ModelProto) -> set[int]:
    return {t.data_type for t in model.graph.initializer} - {onnx.TensorProto.INT64}


@pytest.mark.parametrize("name", ["BatchNormalization folded", "MatMul and bias", "shuffle"])
def test_models_of_half_precision_are_pruned(name: str, tmp_path: Path) -> None:
    model = halved(MICRO_MODELS[name](), np.float16)
    samples = {name: x.astype(np.float16) for name, x in random_samples(model).items()}
    result = prune(model, samples, Target("ratio", 0.3))
    result.save(tmp_path / "pruned.onnx")
    assert kinds(result.model) == {onnx.TensorProto.FLOAT16}
    assert result.report.outputs[0].relative_error < 0.5


@pytest.mark.parametrize("name", ["BatchNormalization folded", "MatMul and bias", "shuffle"])
def test_models_of_bfloat16_are_pruned(name: str, tmp_path: Path) -> None:
    """On a CPU onnxruntime runs none of them: samples go through them in float32."""
    model = halved(MICRO_MODELS[name](), ml_dtypes.bfloat16)
    model.opset_import[0].version = 22
    model.ir_version = 10
    wide = halved(MICRO_MODELS[name](), np.float32)
    result = prune(model, random_samples(wide), Target("ratio", 0.3))
    result.save(tmp_path / "pruned.onnx")
    assert kinds(result.model) == {onnx.TensorProto.BFLOAT16}
    assert result.report.after.macs < result.report.before.macs
    assert result.report.outputs[0].relative_error < 0.5


def test_half_precision_between_casts_is_pruned(tmp_path: Path) -> None:
    model = build(
        "i = Cast <to=10> (x) c = Conv(i, w1) h = Relu(c) d = Conv(h, w2) y = Cast <to=1> (d)",
        {
            "w1": np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float16),
            "w2": np.random.default_rng(1).standard_normal((4, 8, 1, 1)).astype(np.float16),
        },
    )
    result = prune(model, random_samples(model), Target("ratio", 0.5))
    result.save(tmp_path / "pruned.onnx")
    assert kinds(result.model) == {onnx.TensorProto.FLOAT16}
