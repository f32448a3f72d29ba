"""What peers need of torch: a graph as a module, and channels that get their moments back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import torch  # noqa: E402
from repair import repaired, survivors  # noqa: E402
from torch_graph import GraphModule  # noqa: E402

from onnxprune import Options, Target, prune  # noqa: E402
from onnxprune.errors import OnnxPruneError  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402


@pytest.fixture
def residual() -> onnx.ModelProto:
    """Two blocks, the shortcut of the second thinned out and padded with channels of zeros."""
    weights = {
        "w0": (8, 3, 3, 3),
        "w1": (12, 8, 3, 3),
        "w2": (8, 12, 3, 3),
        "w3": (16, 8, 3, 3),
        "w4": (16, 16, 3, 3),
        "w5": (5, 16),
        "b5": (5,),
        "begin": np.array([0, 0], np.int64),
        "end": np.array([99, 99], np.int64),
        "axes": np.array([2, 3], np.int64),
        "step": np.array([2, 2], np.int64),
        "pads": np.array([0, 4, 0, 0, 0, 4, 0, 0], np.int64),
    }
    nodes = """
        c0 = Conv <pads=[1,1,1,1]> (x, w0) s0 = Relu(c0)
        c1 = Conv <pads=[1,1,1,1]> (s0, w1) r1 = Relu(c1)
        c2 = Conv <pads=[1,1,1,1]> (r1, w2) a2 = Add(c2, s0) s2 = Relu(a2)
        c3 = Conv <pads=[0,0,1,1], strides=[2,2]> (s2, w3) r3 = Relu(c3)
        c4 = Conv <pads=[1,1,1,1]> (r3, w4)
        thin = Slice(s2, begin, end, axes, step) wide = Pad(thin, pads)
        a4 = Add(c4, wide) s4 = Relu(a4)
        mean = GlobalAveragePool(s4) flat = Flatten(mean)
        y = Gemm <transB=1> (flat, w5, b5)
    """
    return build(nodes, weights, inputs="float[N,3,12,12] x", outputs="float[N,5] y")


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((64, 3, 12, 12)).astype(np.float32)


def exposed(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of a model's convolutions."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return dict(zip(names, Session(copy).run({"x": x}, names), strict=True))


def test_the_module_computes_what_the_model_does(
    residual: onnx.ModelProto, images: np.ndarray
) -> None:
    module = GraphModule(residual).eval()
    (want,) = Session(residual).run({"x": images})
    with torch.no_grad():
        got = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert module.pads_channels
    assert [layer.weight.shape[0] for layer in module.joined()] == [8, 8, 16]


def test_an_unknown_operator_is_refused() -> None:
    model = build("c = Conv (x, w) y = Selu(c)", {"w": (4, 3, 3, 3)})
    with pytest.raises(OnnxPruneError, match="no torch form of Selu"):
        GraphModule(model)


def test_every_kept_channel_gets_its_moments_back(
    residual: onnx.ModelProto, images: np.ndarray
) -> None:
    options = Options(method="l1", align=1, latency=False)
    result = prune(residual, {"x": images}, Target("macs", 0.5), options=options)
    model = repaired(residual, result.model, result.plan, images)
    onnx.checker.check_model(model, full_check=True)
    before, after = exposed(residual, images), exposed(model, images)
    cut = exposed(result.model, images)
    kept = dict(zip(before, survivors(residual, result.plan), strict=True))
    assert any(keep.size < before[name].shape[1] for name, keep in kept.items())
    for name, keep in kept.items():
        for statistic in (np.mean, np.std):
            want, got = (statistic(y, axis=(0, 2, 3)) for y in (before[name], after[name]))
            np.testing.assert_allclose(got, want[keep], rtol=1e-3, atol=1e-4)
    assert not np.allclose(cut["c2"].std((0, 2, 3)), after["c2"].std((0, 2, 3)), rtol=1e-2)


@pytest.mark.parametrize("opset", [11, 13])
def test_splits_have_the_sizes_they_say(opset: int) -> None:
    """As an attribute or as an input; equal parts are another model."""
    split = {11: "Split <axis=1, split=[1, 5]> (c)", 13: "Split <axis=1> (c, sizes)"}[opset]
    model = build(
        f"c = Conv(x, w) a, b = {split} y = Concat <axis=1> (b, a)",
        {"w": (6, 3, 1, 1), "sizes": np.array([1, 5], np.int64)},
        inputs="float[N,3,4,4] x",
        outputs="float[N,6,4,4] y",
        opset=opset,
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    with torch.no_grad():
        got = GraphModule(model).eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(got, Session(model).run({"x": x})[0], rtol=1e-4, atol=1e-5)


def test_the_surviving_channels_are_those_of_the_cut_model(
    residual: onnx.ModelProto, images: np.ndarray
) -> None:
    """Where nothing is recovered, the first convolution's kept channels are what they were."""
    options = Options(method="l1", align=1, latency=False)
    result = prune(residual, {"x": images}, Target("macs", 0.5), options=options)
    before, cut = exposed(residual, images), exposed(result.model, images)
    first = survivors(residual, result.plan)[0]
    assert first.size < 8
    np.testing.assert_allclose(cut["c0"], before["c0"][:, first], rtol=1e-4, atol=1e-5)


def test_what_was_not_cut_stays_as_it_is(residual: onnx.ModelProto, images: np.ndarray) -> None:
    options = Options(latency=False)
    result = prune(residual, {"x": images}, Target("macs", 1.0), options=options)
    model = repaired(residual, result.model, result.plan, images)
    want, got = (Session(m).run({"x": images})[0] for m in (residual, model))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
