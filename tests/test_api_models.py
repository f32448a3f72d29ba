"""What ``prune`` makes of unusual models: odd interfaces, odd channels, and refusals."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import build
from onnx import TensorProto, helper
from small_networks import MODELS, convolutions, digits, perceptron, random_samples

from onnxprune import Options, Target, prune
from onnxprune.errors import CalibrationError, UnsupportedModelError, ValidationError

QUICK = Options(latency=False)
MLP = MODELS / "mlp_digits.onnx"


def test_samples_that_do_not_fit_are_refused():
    with pytest.raises(CalibrationError, match=r"expected \[1, 8, 8\]"):
        prune(MLP, digits()[:, :, :4], Target("macs", 0.5))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            build("y = Gemm (x, w)", {"w": (6, 5)}, inputs="float[N,6] x", outputs="float[N,5] y"),
            r"'Gemm_0': graph output 'y'",
        ),
        (
            build("y = Relu (x)", {}, inputs="float[N,5] x", outputs="float[N,5] y"),
            "it has no Conv, ConvTranspose, Gemm, MatMul or recurrent layer",
        ),
    ],
)
def test_nothing_prunable_is_refused_with_the_reason(model, reason):
    with pytest.raises(UnsupportedModelError, match=f"nothing in the model can be .*{reason}"):
        prune(model, random_samples(model))


def test_quantised_models_are_refused_with_advice():
    model = build(
        "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Gemm (d, w)",
        {"s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "w": (6, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    with pytest.raises(UnsupportedModelError, match="prune the float model first, then quantise"):
        prune(model, random_samples(model))


def test_a_fixed_batch_counts_the_macs_of_one_sample():
    model = onnx.load(MLP)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    result = prune(model, MODELS / "digits_calib.npz", Target("macs", 40_000), options=QUICK)
    assert result.report.before.macs == 75_008
    assert 38_000 < result.report.after.macs <= 40_000
    assert result.report.frozen[0].macs_share == pytest.approx(1280 / 75_008)


def test_nodes_without_a_rule_are_listed():
    nodes = "a = Gemm (x, w1, b1) h = Relu(a) y = Gemm (h, w2, b2)"
    nodes += ' z = Einsum <equation="ni,ij->n"> (x, w3)'
    model = perceptron(nodes=nodes, w3=(6, 4))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N"]))
    result = prune(model, random_samples(model), Target("ratio", 0.5), options=QUICK)
    (row,) = [row for row in result.report.frozen if row.name.startswith("Einsum")]
    assert "no channel rule for Einsum" in row.reason
    assert {output.name for output in result.report.outputs} == {"y", "z"}


def test_an_output_of_changing_shape_can_be_pruned_by_a_target():
    nodes = "a = Gemm (x, w1, b1) h = Relu(a) y = Gemm (h, w2, b2) p = Relu(y) f = NonZero(p)"
    model = perceptron(nodes=nodes)
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.INT64, [2, "K"]))
    result = prune(model, random_samples(model), Target("ratio", 0.4), options=QUICK)
    assert [output.name for output in result.report.outputs] == ["y", "f"]


def test_outputs_that_were_no_numbers_before_are_told():
    model = convolutions("r = Log(c) h = Relu(r)")
    with pytest.raises((ValidationError, CalibrationError), match="infinite or not a number"):
        prune(model, random_samples(model), Target("ratio", 0.3), options=QUICK)


def test_dead_and_duplicate_channels_cost_nothing():
    """A network with half of its channels repeated is halved without loss."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    weights = {"w1": np.concatenate([first, first]), "b1": (16,), "w2": (4, 16, 3, 3)}
    weights["b1"] = np.tile(rng.standard_normal(8).astype(np.float32), 2)
    model = convolutions(**weights)
    result = prune(model, random_samples(model, 200), Target("ratio", 0.5), options=QUICK)
    assert result.report.outputs[0].relative_error < 1e-3


@pytest.mark.parametrize("attributes", ["strides=[2,2]", "pads=[1,1,1,1]", "group=2"])
def test_duplicate_channels_of_a_transposed_convolution_cost_nothing(attributes):
    rng = np.random.default_rng(0)
    first = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    parts = 2 if "group" in attributes else 1
    twice = np.concatenate([first, first, 2 * first, 2 * first])  # twins in the same part
    nodes = f"c = Conv (x, w1, b1) r = Relu(c) y = ConvTranspose <{attributes}> (r, w2)"
    weights = {"w1": twice, "b1": np.zeros(16, np.float32), "w2": (16, 4 // parts, 3, 3)}
    model = build(nodes, weights)
    result = prune(model, random_samples(model, 200), Target("ratio", 0.5), options=QUICK)
    assert result.report.outputs[0].relative_error < 1e-3
    assert result.report.after.macs < 0.55 * result.report.before.macs


def test_channels_that_are_constant_go_first():
    """What they feed is all in the bias; their rounding must not pass for a signal."""
    rng = np.random.default_rng(0)
    first = rng.standard_normal((16, 3, 3, 3)).astype(np.float32)
    first[:4] = 0
    bias = np.full(16, 0.37, np.float32)
    bias[:4] = 0.811, 1.93, 0.0077, 0.2
    model = convolutions(pads=0, w1=first, b1=bias, w2=(4, 16, 3, 3))
    result = prune(model, random_samples(model, 200), Target("ratio", 0.25), options=QUICK)
    (edit,) = result.plan.edits
    assert edit.keep == tuple(range(4, 16))
    assert result.report.outputs[0].relative_error < 1e-3
