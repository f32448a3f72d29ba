"""A trial computes what the cut network would, without a new graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from small_networks import (
    MODELS as TRAINED,
)
from small_networks import (
    QUIET,
    Studied,
    behind_a_cut,
    convolutions,
    digits,
    one_shot,
    perceptron,
    random_samples,
    studied,
    tried_by,
)
from test_mixed_projections import HIDDEN, TWICE

from onnxprune.allocation import fit_damage
from onnxprune.batches import Batches
from onnxprune.comparison import OutputDistance
from onnxprune.errors import UnsupportedModelError
from onnxprune.options import Options
from onnxprune.plan import Weights
from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.side_by_side import SideBySide
from onnxprune.trials import (
    BROKEN,
    JUDGED,
    MAX_TRIAL_SAMPLES,
    MIN_TRIAL_SAMPLES,
    TRIAL_PASSES,
    Trials,
    Tried,
)
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


ORDERS = {"one-shot": False, "in order": True}
"""Whether trials refit in order."""


def half(known: Studied, places: slice = slice(None)) -> dict[str, int]:
    """Half of the channels of these groups, in whole parts."""
    groups = known.study.groups[places]
    return {g.name: g.size // 2 // g.part_count * g.part_count for g in groups}


def figures(found: list[OutputDistance]) -> list[tuple[float, float, float, int]]:
    return [(d.relative_error, d.cosine, d.divergence, d.samples) for d in found]


def cut(known: Studied, counts: dict[str, int], weights: Weights) -> onnx.ModelProto:
    """The model, really cut."""
    return apply(known.model, known.plan(known.study.keeps(counts)), weights)


def same(left: Tried, right: Tried) -> bool:
    """Whether two trials have the same weights, to the last bit, and the same distances."""
    a, b = left.weights.arrays, right.weights.arrays
    return (
        a.keys() == b.keys()
        and all(x.tobytes() == y.tobytes() for n in a for x, y in zip(a[n], b[n], strict=True))
        and figures(left.distances) == figures(right.distances)
    )


@pytest.fixture(scope="module")
def tower() -> Studied:
    """A residual block behind a cut: trials in order have something to solve."""
    return studied(behind_a_cut(MODELS["residual"]), options=Options(batch=16))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MODELS)
def test_a_trial_is_at_the_distance_of_the_cut_network(name, order):
    known = studied(MODELS[name], options=Options(sequential=ORDERS[order]))
    trials = tried_by(known)
    (found,) = trials.tried([half(known)])
    pruned = cut(known, half(known), found.weights)
    wanted = compare(known.model, pruned, known.batches(), QUIET)
    assert [d.name for d in found.distances] == [d.name for d in wanted]
    assert min(d.relative_error for d in wanted) > 0.01  # there is something to compare
    np.testing.assert_allclose(figures(found.distances), figures(wanted), rtol=FLOAT32)
    assert [d.samples for d in wanted] == [known.parts.tune.size] * len(wanted)
    feed = next(iter(known.batches(known.parts.held_out)))
    outputs = zip(trials.predict(feed, found), Session(pruned).run(feed), strict=True)
    for predicted, real in outputs:
        np.testing.assert_allclose(predicted, real, rtol=FLOAT32, atol=1e-4 * np.abs(real).max())


@pytest.mark.parametrize("name", MODELS)
def test_nothing_cut_is_the_original(name):
    known = studied(MODELS[name])
    trials = tried_by(known)
    (found,) = trials.tried([{}])
    assert dict(found.weights.arrays) == {}
    for distance in found.distances:
        assert (distance.relative_error, distance.cosine) == (0.0, pytest.approx(1.0))
    feed = next(iter(known.batches()))
    for predicted, real in zip(
        trials.predict(feed, None), Session(known.model).run(feed), strict=True
    ):
        np.testing.assert_allclose(predicted, real, rtol=FLOAT32, atol=1e-4 * np.abs(real).max())


def test_weights_of_one_shot_trials_are_those_of_the_quick_recovery(tower):
    known = replace(tower, options=Options(batch=16, sequential=False))
    (found,) = tried_by(known).tried([half(known)])
    prior = one_shot(known, known.study.keeps(half(known)), known.study.trial_recovery)
    assert same(found, Tried(prior.weights, prior, found.distances))


def test_in_order_layers_behind_a_cut_are_refitted_and_outputs_are_nearer(tower):
    plans = [half(tower, slice(1)), half(tower)]
    ordered = tried_by(tower).tried(plans)
    known = replace(tower, options=Options(batch=16, sequential=False))
    quick = tried_by(known).tried(plans)
    assert set(quick[0].weights.arrays) < set(ordered[0].weights.arrays)  # the first cut is seen
    assert ordered[1].divergence < quick[1].divergence


def test_samples_to_judge_by_are_not_fitted_on(tower):
    fit, tune = tower.batches(tower.parts.fit), tower.batches()
    few = replace(tune, indices=tune.indices[:8])
    (found,), (fewer,) = (
        Trials(tower.study, fit, judges, tower.options, QUIET).tried([half(tower)])
        for judges in (tune, few)
    )
    assert same(found, replace(fewer, distances=found.distances))
    assert fewer.distances[0].samples == 8
    assert figures(found.distances) != figures(fewer.distances)


@pytest.mark.parametrize("order", ORDERS)
def test_samples_to_fit_on_matter_in_order_only(tower, order):
    fit, tune = tower.batches(tower.parts.fit), tower.batches()
    options = Options(batch=16, sequential=ORDERS[order])
    few = replace(fit, indices=fit.indices[:16])
    (found,), (fewer,) = (
        Trials(tower.study, samples, tune, options, QUIET).tried([half(tower)])
        for samples in (fit, few)
    )
    assert same(found, fewer) is not ORDERS[order]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("at_once", [2, 12])
def test_trials_do_not_disturb_each_other(tower, order, at_once, monkeypatch):
    """Whether tried together, in several lots, or each alone and after others."""
    monkeypatch.setattr("onnxprune.trials.TRIALS_AT_ONCE", at_once)
    known = replace(tower, options=Options(batch=16, sequential=ORDERS[order]))
    places = [slice(None), slice(0), slice(1), slice(1, None), slice(None)]
    plans = [half(known, place) for place in places]
    trials = tried_by(known)
    together = trials.tried(plans)
    assert len({tried.divergence for tried in together}) == 4
    for tried, plan in zip(together, plans, strict=True):
        (alone,) = trials.tried([plan])
        assert same(tried, alone)


def test_trials_together_share_the_work_of_the_original(tower, monkeypatch):
    networks = []

    class Seen(SideBySide):
        def __init__(self, *settings: object) -> None:
            super().__init__(*settings)  # type: ignore[arg-type]
            networks.append(self)

    monkeypatch.setattr("onnxprune.variant_distances.SideBySide", Seen)
    trials = tried_by(tower)
    plans = [half(tower, slice(place, place + 1)) for place in range(len(tower.study.groups))]
    for lot in ([{}], *([plan] for plan in plans), plans):
        trials.tried(lot)
    original, *alone, together = (network.node_runs for network in networks)
    batches = len(tower.batches(tower.parts.tune))
    assert original == len(tower.study.canonical.graph.node) * batches
    assert together - original == sum(runs - original for runs in alone)
    first, last = alone[0] - original, alone[-1] - original
    assert 0 < last < first <= original  # a trial costs what lies behind its cut


def test_several_outputs_are_the_worst_error_and_the_mean_divergence():
    model = convolutions()
    model.graph.node.add(op_type="Relu", input=["y"], output=["z"])
    shape = ["N", 4, "H", "W"]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, shape)
    )
    known = studied(model)
    (found,) = tried_by(known).tried([half(known)])
    y, z = found.distances
    assert [y.name, z.name] == ["y", "z"]
    assert y.relative_error != z.relative_error
    assert found.relative_error == max(y.relative_error, z.relative_error)
    assert found.divergence == pytest.approx((y.divergence + z.divergence) / 2)


def test_outputs_that_are_not_numbers_are_left_out():
    text = convolutions()
    text.graph.node.add(op_type="Cast", input=["y"], output=["t"]).attribute.add(
        name="to", type=onnx.AttributeProto.INT, i=onnx.TensorProto.STRING
    )
    text.graph.output.append(
        onnx.helper.make_tensor_value_info("t", onnx.TensorProto.STRING, ["N", 4, "H", "W"])
    )
    known = studied(text)
    (found,) = tried_by(known).tried([half(known)])
    assert [d.name for d in found.distances] == ["y"]
    feed = [random_samples(text, 4)]
    assert [d.name for d in compare(text, text, feed, QUIET)] == ["y"]
    del text.graph.output[0]
    known = studied(text)
    with pytest.raises(UnsupportedModelError, match="no output of the model is an array of"):
        tried_by(known).tried([half(known)])


@dataclass(frozen=True)
class Counted(Batches):
    """Batches that remember how many samples each batch had."""

    seen: list[int] = field(default_factory=list)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for feed in super().__iter__():
            self.seen.append(len(next(iter(feed.values()))))
            yield feed


def within_budget(known: Studied, trials: int) -> tuple[list[int], int]:
    """Batches to fit on, and samples to judge by, when so many trials are planned."""
    fit, tune = (
        Counted(known.samples, indices, known.options.batch)
        for indices in (known.parts.fit, known.parts.tune)
    )
    planned = Trials.within_budget(known.study, fit, tune, known.options, QUIET, trials=trials)
    (found,) = planned.tried([half(known)])
    return fit.seen, found.distances[0].samples


@pytest.mark.parametrize("trials", [1, 20, 40, 1000])
def test_many_trials_take_fewer_samples_each(trials):
    """The last layer of three sees a change of the first, and so is refitted on samples."""
    nodes = "a = Gemm (x, w1) h = Relu(a) b = Gemm (h, w2) i = Relu(b) y = Gemm (i, w3)"
    model = perceptron(nodes=nodes, w2=(10, 9), w3=(9, 5))
    known = studied(model, random_samples(model, 600))
    sizes = known.parts.fit.size, known.parts.tune.size
    assert MIN_TRIAL_SAMPLES < sizes[1] < MAX_TRIAL_SAMPLES < sizes[0]
    fit, judged = within_budget(known, trials)
    affordable = int(TRIAL_PASSES * sum(sizes) / trials)
    assert sum(fit) == min(max(affordable, MIN_TRIAL_SAMPLES), MAX_TRIAL_SAMPLES)
    assert judged == min(JUDGED * sum(fit), sizes[1])


def test_only_samples_to_tune_on_judge():
    known = studied(perceptron(), random_samples(perceptron(), 600))
    fit, tune = (known.batches(indices) for indices in (known.parts.fit, known.parts.tune))
    planned = Trials.within_budget(known.study, fit, tune, known.options, QUIET, trials=40)
    np.testing.assert_array_equal(planned._tune.indices, tune.indices)
    few = Trials.within_budget(known.study, fit, fit, known.options, QUIET, trials=1000)
    assert len(few._tune.indices) == JUDGED * len(few._fit.indices) < len(fit.indices)


def test_a_fixed_batch_is_filled():
    model = onnx.load(TRAINED / "mlp_digits.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    known = studied(model, {"input": digits()[:250]})
    parts = replace(known.parts, fit=np.arange(100), tune=np.arange(100, 250))
    fit, judged = within_budget(replace(known, parts=parts), 1000)
    assert set(fit) == {5}
    assert sum(fit) == 35  # the first multiple of 5 that reaches the least number
    assert judged == -(-JUDGED * MIN_TRIAL_SAMPLES // 5) * 5


@pytest.mark.parametrize("worst", [np.nan, np.inf, 1e30])
def test_a_trial_whose_outputs_are_no_numbers_is_worse_than_any(worst):
    """Half precision overflows in some trials; what they say is a number all the same."""
    reference, changed = np.ones((4, 3)), np.ones((4, 3))
    changed[1, 2] = worst
    distance = OutputDistance("y", scores=False)
    with np.errstate(invalid="ignore", over="ignore"):
        distance.add(reference, changed)
        tried = Tried(Weights({}), mock.Mock(), [distance])
        assert np.isfinite([tried.divergence, tried.relative_error]).all()
    assert tried.divergence >= BROKEN
    law = fit_damage([0.1, 0.2, 0.4], [0.001, 0.004, tried.divergence])
    assert law(np.array(0.4)) > law(np.array(0.1)) > 0
