"""What trials say of targets on damage."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import MODELS, QUIET, Studied, digits, studied

from onnxprune.choice import trial_network
from onnxprune.gauges import Gauge, gauges_of
from onnxprune.metric import FunctionMetric, Metric, Predict
from onnxprune.refit import refit
from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.sensitivity import try_counts
from onnxprune.target import Target
from onnxprune.trials import TrialNetwork

COUNTS = [192, 60, 40]


@pytest.fixture(scope="module")
def mlp() -> Studied:
    return studied(onnx.load(MODELS / "mlp_digits.onnx"), {"input": digits()[:200]})


@pytest.fixture(scope="module")
def network(mlp) -> TrialNetwork:
    return trial_network(mlp.study, mlp.batches(), mlp.options, QUIET)


def named(known: Studied) -> dict[str, int]:
    return {group.name: n for group, n in zip(known.study.groups, COUNTS, strict=True)}


def gauge(known: Studied, network: TrialNetwork, target: Target, metric: Metric | None) -> Gauge:
    (found,) = gauges_of([target], known.study, lambda: network, metric)
    return found


def test_an_error_is_the_largest_of_the_outputs(mlp, network):
    found = gauge(mlp, network, Target("error", 0.05), None)
    (distance,) = try_counts(mlp.study, network, named(mlp))
    assert found.read(named(mlp)) == pytest.approx(distance.relative_error)
    assert found.limit == 0.05
    assert found.holds(named(mlp)) == (distance.relative_error <= 0.05)
    assert found.holds({})


def test_a_drop_is_what_the_metric_loses_in_the_model_of_a_trial(mlp, network):
    """The trial's model is cut for real and judged: by minus the spread of its scores."""
    images = digits()[:30]
    calls = []

    def function(predict: Predict) -> float:
        calls.append(1)
        return -float(np.std(predict({"input": images})[0]))

    found = gauge(mlp, network, Target("drop", 1.0), FunctionMetric("spread", function))
    dropped = found.read(named(mlp))
    keeps = mlp.study.keeps(named(mlp))
    alive = mlp.study.survivors(keeps)
    solved = refit(mlp.study.views, mlp.study.layers, alive, mlp.study.trial_recovery)
    pruned = apply(mlp.model, mlp.plan(keeps), solved.weights)
    before, after = (
        -float(np.std(Session(model).run({"input": images})[0])) for model in (mlp.model, pruned)
    )
    assert abs(before - after) > 1e-3
    assert dropped == pytest.approx(before - after, rel=1e-3)
    assert len(calls) == 2
    assert found.read(named(mlp)) == dropped
    assert len(calls) == 2, "a trial was made twice"
    assert found.read({}) == pytest.approx(0.0)


def test_a_drop_needs_something_that_drops(mlp, network):
    with pytest.raises(ValueError, match="needs a metric"):
        gauge(mlp, network, Target("drop", 0.01), None)
