"""A trial computes what the cut network would, without a new graph."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from small_networks import QUIET, Studied, convolutions, perceptron, random_samples, studied
from test_mixed_projections import HIDDEN, TWICE

from onnxprune.canonical import canonicalise
from onnxprune.comparison import OutputDistance
from onnxprune.errors import UnsupportedModelError
from onnxprune.refit import padded, refit
from onnxprune.rewrite import apply
from onnxprune.trials import TrialNetwork
from onnxprune.validation import compare

FLOAT32 = 1e-4
"""Relative difference of two distances whose outputs differ by rounding in float32."""

MODELS = {
    "attention": MICRO_MODELS["attention"](),
    "attention, packed": MICRO_MODELS["attention, packed, five axes split"](),
    "attention, rotated": MICRO_MODELS["attention, rotated"](),
    "attention, heads in the batch": MICRO_MODELS["attention, heads in a batch of any size"](),
    "attention behind hidden units": HIDDEN,
    "attention whose keys take over": TWICE,
    "attention in one node": MICRO_MODELS["com.microsoft Attention with a mask"](),
    "attention in one node, shared keys": MICRO_MODELS["Attention, shared keys"](),
    "Conv": convolutions(),
    "Conv without bias": build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)},
    ),
    "Conv grouped": convolutions(
        "r = Relu(c) g = Conv <pads=[1,1,1,1], group=2> (r, w3, b3) h = Relu(g)",
        w3=(6, 4, 3, 3),
        b3=(6,),
        w2=(4, 6, 3, 3),
    ),
    "residual": convolutions(
        "r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w3) e = Relu(d)"
        " f = Conv <pads=[1,1,1,1]> (e, w4) h = Add(r, f)",
        w3=(6, 8, 3, 3),
        w4=(8, 6, 3, 3),
    ),
    "Gemm": perceptron(),
    "MatMul without bias": perceptron(nodes="a = MatMul (x, w1) h = Relu(a) y = MatMul (h, w2)"),
    "recurrent": MICRO_MODELS["LSTM, two bidirectional layers, samples first"](),
    "initializers as inputs": build(
        "a = Gemm (x, w1) h = Relu(a) y = Gemm (h, w2)",
        {"w1": (6, 10), "w2": (10, 5)},
        inputs="float[N,6] x, float[6,10] w1, float[10,5] w2",
        outputs="float[N,5] y",
        ir=3,
    ),
}


def half(known: Studied) -> dict[str, np.ndarray]:
    """Keep the better half of every group, of each of its parts."""
    groups = known.study.groups
    return known.study.keeps({g.name: g.size // 2 // g.part_count * g.part_count for g in groups})


def figures(found: list[OutputDistance]) -> list[tuple[float, float, float]]:
    return [(d.relative_error, d.cosine, d.divergence) for d in found]


@pytest.mark.parametrize("name", MODELS)
def test_a_trial_is_at_the_distance_of_the_cut_network(name):
    known = studied(MODELS[name])
    keeps = half(known)
    alive = known.study.survivors(keeps)
    stages = known.study
    weights = refit(
        stages.views, stages.layers, alive, stages.recovery, stages.contractions
    ).weights
    pruned = apply(known.model, known.plan(keeps), weights)
    wanted = compare(known.model, pruned, known.batches(), QUIET)
    trials = TrialNetwork(known.study.canonical, known.batches(), QUIET)
    masks = {name: view.mask(alive) for name, view in known.study.contractions.items()}
    found = trials.distances(padded(known.study.views, weights, alive), masks)
    assert [d.name for d in found] == [d.name for d in wanted]
    assert min(d.relative_error for d in wanted) > 0.01  # there is something to compare
    np.testing.assert_allclose(figures(found), figures(wanted), rtol=FLOAT32)
    assert [d.samples for d in found] == [known.parts.tune.size] * len(found)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_replaced_is_the_original(name):
    known = studied(MODELS[name])
    trials = TrialNetwork(known.study.canonical, known.batches(), QUIET)
    for distance in trials.distances({}):
        assert (distance.relative_error, distance.cosine) == (0.0, pytest.approx(1.0))


def test_the_reference_is_the_original_model():
    """Not merely the session's own outputs: the trial network must compute them rightly."""
    known = studied(MODELS["MatMul without bias"])
    trials = TrialNetwork(known.study.canonical, known.batches(), QUIET)
    zeros = {
        name: (np.zeros_like(view.linear_map.weight.values), np.ones(5, np.float32))
        for name, view in known.study.views.items()
    }
    (found,) = trials.distances(zeros)
    feed = next(iter(known.batches()))
    outputs = compare(known.model, ones_like(known.model), [feed], QUIET)
    assert found.relative_error == pytest.approx(outputs[0].relative_error, rel=FLOAT32)


def ones_like(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model of the same interface whose output is always 1."""
    return perceptron(
        nodes="a = MatMul (x, w1) z = Mul(a, w0) y = Add(z, w2)",
        w0=np.zeros(1, np.float32),
        w1=np.zeros((6, 5), np.float32),
        w2=np.ones(5, np.float32),
    )


def test_trials_do_not_disturb_each_other():
    known = studied(MODELS["residual"])
    trials = TrialNetwork(known.study.canonical, known.batches(), QUIET)
    alive = known.study.survivors(half(known))
    weights = refit(known.study.views, known.study.layers, alive, known.study.recovery).weights
    replaced = padded(known.study.views, weights, alive)
    first = figures(trials.distances(replaced))
    assert trials.distances({})[0].relative_error == 0
    assert figures(trials.distances(replaced)) == first


def test_outputs_that_are_not_numbers_are_left_out():
    text = convolutions()
    text.graph.node.add(op_type="Cast", input=["y"], output=["t"]).attribute.add(
        name="to", type=onnx.AttributeProto.INT, i=onnx.TensorProto.STRING
    )
    text.graph.output.append(
        onnx.helper.make_tensor_value_info("t", onnx.TensorProto.STRING, ["N", 4, "H", "W"])
    )
    feed = [random_samples(text, 4)]
    (found,) = TrialNetwork(canonicalise(text), feed, QUIET).distances({})
    assert found.name == "y"
    assert [d.name for d in compare(text, text, feed, QUIET)] == ["y"]
    del text.graph.output[0]
    with pytest.raises(UnsupportedModelError, match="no output of the model is an array of"):
        TrialNetwork(canonicalise(text), feed, QUIET)
