"""What is odd about models and samples: a sound result, or a typed error that names the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import pytest
from micro_models import build
from onnx import TensorProto, helper, numpy_helper
from small_networks import convolutions, perceptron

from onnxprune import Options, Target, prune
from onnxprune.arrays import Array
from onnxprune.errors import CalibrationError, OnnxPruneError, UnsupportedModelError
from onnxprune.runtime import Session
from onnxprune.validation import check_file

OPTIONS = Options(latency=False, progress=False)
HALF = Target.parse("macs=0.6")
RESIDUAL = (
    "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w2, b2) "
    "s = Relu(b) c = Conv <pads=[1,1,1,1]> (s, w3, b1) t = Add(r, c) p = GlobalAveragePool(t) "
    "f = Flatten(p) y = Gemm(f, w4, b4)"
)
WEIGHTS = {
    "w1": (8, 3, 3, 3),
    "b1": (8,),
    "w2": (12, 8, 3, 3),
    "b2": (12,),
    "w3": (8, 12, 3, 3),
    "w4": (8, 5),
    "b4": (5,),
}


def residual(**options: object) -> onnx.ModelProto:
    """Convolutions with a residual sum, and a classifier."""
    return build(RESIDUAL, WEIGHTS, outputs="float[N,5] y", **options)


def images(count: int = 24, shape: tuple[int, ...] = (3, 8, 8)) -> Array:
    return np.random.default_rng(1).standard_normal((count, *shape)).astype(np.float32)


def weights(model: onnx.ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t).copy() for t in model.graph.initializer}


def changed(model: onnx.ModelProto, **values: Callable[[Array], object]) -> onnx.ModelProto:
    """The model with weights made of what they were."""
    for tensor in model.graph.initializer:
        if tensor.name in values:
            before = numpy_helper.to_array(tensor).copy()
            after = np.asarray(values[tensor.name](before), before.dtype)
            tensor.CopyFrom(numpy_helper.from_array(after, tensor.name))
    return model


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """In half precision throughout."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def scaled(factor: float) -> Callable[[Array], object]:
    return lambda array: array * np.float32(factor)


def constant_channels(array: Array) -> Array:
    array[:4] = 0
    return array


def ranges(array: Array) -> Array:
    """Channels over ten orders of magnitude."""
    factors = np.logspace(-5, 5, array.shape[0]).astype(np.float32)
    return array * factors.reshape(-1, *[1] * (array.ndim - 1))


def twins(array: Array) -> Array:
    """Channels that are equal in pairs."""
    array[1::2] = array[::2]
    return array


def named(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = name
    return model


def with_rest(model: onnx.ModelProto) -> onnx.ModelProto:
    """Initializers, nodes and inputs that nothing reads."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unread"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((0, 4), np.float32), "empty"))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["unread_y"]))
    return model


def with_outputs(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """Tensors that are outputs as well, inputs and initializers among them."""
    shapes = {v.name: v for v in model.graph.input}
    for name in names:
        if name in shapes:
            model.graph.output.add().CopyFrom(shapes[name])
        else:
            model.graph.output.append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 12, 8, 8])
            )
    return model


def initializers_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return model


def zero_sized() -> onnx.ModelProto:
    """A Concat with a constant of no channels."""
    nodes = RESIDUAL.replace("r = Relu(a)", "e = Concat<axis=1>(a, none) r = Relu(e)")
    return build(
        nodes, WEIGHTS | {"none": np.ones((1, 0, 8, 8), np.float32)}, outputs="float[N,5] y"
    )


def one_channel() -> onnx.ModelProto:
    """Layers of one channel beside one that can be cut."""
    return build(
        "a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w2) "
        "s = Relu(b) y = Conv(s, w3)",
        {"w1": (1, 3, 3, 3), "w2": (8, 1, 3, 3), "w3": (4, 8, 1, 1)},
    )


SOUND: dict[str, tuple[Callable[[], onnx.ModelProto], Callable[[], Array]]] = {
    "constant channels": (lambda: changed(residual(), w1=constant_channels), images),
    "dead channels": (lambda: changed(residual(), b1=lambda b: b - 100), images),
    "a layer of zeros": (
        lambda: changed(residual(), w2=lambda w: w * 0, b2=lambda b: b * 0),
        images,
    ),
    "all weights zero": (
        lambda: changed(residual(), **dict.fromkeys(WEIGHTS, lambda w: w * 0)),
        images,
    ),
    "equal channels": (lambda: changed(residual(), w1=twins, b1=twins), images),
    "ten orders between channels": (lambda: changed(residual(), w1=ranges, b1=ranges), images),
    "denormal weights": (lambda: changed(residual(), w1=scaled(1e-38), b1=scaled(1e-38)), images),
    "denormal samples": (residual, lambda: images() * np.float32(1e-40)),
    "huge samples": (residual, lambda: images() * np.float32(1e12)),
    "samples of zeros": (residual, lambda: images() * np.float32(0)),
    "equal samples": (residual, lambda: np.repeat(images(1), 24, axis=0)),
    "fewer samples than channels": (lambda: perceptron(64), lambda: images(6, (6,))),
    "two samples": (residual, lambda: images(2)),
    "one sample": (residual, lambda: images(1)),
    "half precision": (lambda: half(residual()), lambda: images().astype(np.float16)),
    "half precision near its end": (
        lambda: half(changed(residual(), w1=scaled(40000.0))),
        lambda: images().astype(np.float16),
    ),
    "one channel": (one_channel, images),
    "nodes without names": (lambda: named(residual(), ""), images),
    "unread parts": (lambda: with_rest(residual()), images),
    "initializers as inputs": (lambda: initializers_as_inputs(residual()), images),
    "a constant without elements": (zero_sized, images),
    "an input as output": (lambda: with_outputs(residual(), "x"), images),
    "an inner tensor as output": (lambda: with_outputs(residual(), "s"), images),
    "no bias": (lambda: convolutions("h = Relu(c)"), images),
}
"""Fault -> the model and the samples."""
QUICK = ("constant channels", "one sample", "half precision near its end")
"""Those that run every day."""


@pytest.mark.parametrize(
    "fault", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in SOUND]
)
def test_a_sound_result(tmp_path, fault):
    make, draw = SOUND[fault]
    model, samples = make(), draw()
    result = prune(model, samples, HALF, options=OPTIONS)
    path = tmp_path / "out.onnx"
    result.save(path)
    check_file(path, model)
    feed = {"x": samples[:2]}
    before, after = (Session(m).run(feed) for m in (model, onnx.load(path)))
    for name, a, b in zip(model.graph.output, before, after, strict=True):
        assert a.shape == b.shape, name.name
        assert np.isfinite(a).all()
        assert np.isfinite(b).all(), name.name
    assert all(np.isfinite(array).all() for array in weights(result.model).values())
    result.report.save(tmp_path / "report.json")  # refuses what is no number
    kept = result.report.after.macs / result.report.before.macs
    assert kept <= 0.6
    if "half precision" in fault:  # numbers that overflow in a trial are no reason to cut more
        assert kept > 0.5


def spoilt(value: float) -> Callable[[], Array]:
    def draw() -> Array:
        samples = images()
        samples[5, 1, 2, 3] = value
        return samples

    return draw


def divides() -> onnx.ModelProto:
    """Finite samples, activations that are not."""
    return build(
        RESIDUAL.replace("r = Relu(a)", "z = Sub(a, a) q = Div(a, z) r = Relu(q)"),
        WEIGHTS,
        outputs="float[N,5] y",
    )


REFUSED: dict[
    str, tuple[Callable[[], onnx.ModelProto], Callable[[], Array], type[OnnxPruneError], str]
] = {
    "NaN in a sample": (residual, spoilt(np.nan), CalibrationError, "sample 5"),
    "an infinite sample": (residual, spoilt(np.inf), CalibrationError, "sample 5"),
    "no sample": (residual, lambda: images(0), CalibrationError, "at least one"),
    "activations that are no numbers": (divides, images, OnnxPruneError, "infinite"),
    "half precision that overflows": (
        lambda: half(changed(residual(), w1=scaled(8000.0), w4=scaled(2000.0))),
        lambda: images().astype(np.float16),
        OnnxPruneError,
        "infinite",
    ),
    "weights that are no numbers": (
        lambda: changed(residual(), w2=scaled(np.nan)),
        images,
        OnnxPruneError,
        "infinite",
    ),
    "nodes of one name": (
        lambda: named(residual(), "same"),
        images,
        UnsupportedModelError,
        "same node name",
    ),
    "a bias of another length": (
        lambda: changed(residual(), b2=lambda b: np.ones(29)),
        images,
        OnnxPruneError,
        "bias must be a 1D tensor|a bias of 29 values",
    ),
    "a classifier of another width": (
        lambda: build(
            RESIDUAL.replace("Flatten(p)", "Flatten(t)"), WEIGHTS, outputs="float[N,5] y"
        ),
        images,
        UnsupportedModelError,
        "Gemm",
    ),
    "samples of another shape": (residual, lambda: images(8, (3, 9, 9)), CalibrationError, "9"),
    "a graph in a circle": (
        lambda: helper.make_model(
            helper.make_graph(
                [
                    helper.make_node("Relu", ["b"], ["a"], "first"),
                    helper.make_node("Relu", ["a"], ["b"], "second"),
                ],
                "g",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
                [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
            )
        ),
        images,
        UnsupportedModelError,
        "first",
    ),
}
"""Fault -> the model, the samples, and how they are refused."""


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers overflow before it is said
@pytest.mark.parametrize("fault", REFUSED)
def test_a_typed_error(fault, capfd):
    make, draw, kind, part = REFUSED[fault]
    with pytest.raises(kind, match=part):
        prune(make(), draw(), HALF, options=OPTIONS)
    assert capfd.readouterr().out == ""  # nor does a library print there


def test_layers_of_one_channel_alone_are_refused():
    shapes: Mapping[str, tuple[int, ...]] = {"w1": (1, 3, 3, 3), "w2": (4, 1, 1, 1)}
    model = build("a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) y = Conv(r, w2)", dict(shapes))
    with pytest.raises(OnnxPruneError, match=r"smallest reachable|nothing"):
        prune(model, images(), HALF, options=OPTIONS)
