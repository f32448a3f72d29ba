"""What the record says of a layer before recovery is what its old weights do there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import MODELS, digits

from onnxprune import Options, Target
from onnxprune.api import Pruner, Result
from onnxprune.extract import exposed
from onnxprune.runtime import Session

QUICK = {"allocation": "uniform", "criterion": "l2", "latency": False}
ORIGINAL = onnx.load(MODELS / "mlp_digits.onnx")
READERS = {"/3/Gemm": "/2/Relu_output_0", "/5/Gemm": "/4/Relu_output_0"}


def pruned(**settings: object) -> tuple[Pruner, Result]:
    pruner = Pruner(ORIGINAL, {"input": digits()[:240]}, Options(**QUICK, **settings))
    return pruner, pruner.prune([Target("macs", 0.4)])


def activations(model: onnx.ModelProto, samples: np.ndarray, tensor: str) -> np.ndarray:
    (found,) = Session(exposed(model, [tensor])).run({"input": samples})
    return found.astype(np.float64)


def sliced_error(x: np.ndarray, y: np.ndarray, name: str, keep: np.ndarray) -> float:
    """Squared error of the old weights of the kept inputs, over the variance of y."""
    values = {t.name: onnx.numpy_helper.to_array(t) for t in ORIGINAL.graph.initializer}
    number = name[1]
    weight, bias = (values[f"{number}.{what}"].astype(np.float64) for what in ("weight", "bias"))
    made = x @ weight[:, keep].T + bias
    return float(((y - made) ** 2).sum() / ((y - y.mean(axis=0)) ** 2).sum())


@pytest.mark.parametrize("sequential", [True, False])
def test_it_is_the_error_of_the_old_weights(sequential):
    pruner, result = pruned(sequential=sequential)
    samples = digits()[:240][pruner._ground.parts.tune]
    found = {}
    for group in result.report.groups:
        for name, consumer in group.consumers.items():
            if name in READERS:
                keep = np.asarray(group.keep)
                y = activations(ORIGINAL, samples, name + "_output_0")
                x = activations(ORIGINAL, samples, READERS[name])[:, keep]
                if sequential:  # on what the pruned network feeds the layer
                    x = activations(result.model, samples, READERS[name])
                found[name] = sliced_error(x, y, name, keep)
                assert consumer.sliced == pytest.approx(found[name], rel=1e-3)
                assert consumer.error is not None
                assert consumer.error < consumer.sliced
    assert found.keys() == READERS.keys()


def test_without_recovery_it_is_the_error_that_is_left():
    _, result = pruned(recovery=False)
    errors = [c for group in result.report.groups for c in group.consumers.values()]
    assert errors
    assert all(consumer.sliced == consumer.error is not None for consumer in errors)


def test_layers_have_the_widths_of_the_pruned_model():
    _, result = pruned(recovery=False)
    widths = {}
    for model in (ORIGINAL, result.model):
        values = {t.name: t.dims for t in model.graph.initializer}
        for node in (n for n in model.graph.node if n.op_type == "Gemm"):
            widths.setdefault(node.name, []).append(values[node.input[1]][0])
    layers = result.report.layers
    assert {layer.name: [layer.size, layer.kept] for layer in layers} == widths
    assert [layer.name for layer in layers] == list(widths)
    assert sum(layer.macs_share for layer in layers) == pytest.approx(1.0)
    (first, *_) = result.report.groups
    assert (first.producers, first.macs_share) == (("/1/Gemm",), layers[0].macs_share)
