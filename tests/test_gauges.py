"""What trials say of targets on damage."""

from __future__ import annotations

import onnx
import pytest
from small_networks import MODELS, Studied, digits, studied, tried_by

from onnxprune.gauges import Gauge, gauges_of
from onnxprune.metric import FunctionMetric, Metric, Predict
from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.target import Target
from onnxprune.trials import Trials

COUNTS = [192, 60, 40]


@pytest.fixture(scope="module")
def mlp() -> Studied:
    return studied(onnx.load(MODELS / "mlp_digits.onnx"), {"input": digits()[:200]})


@pytest.fixture(scope="module")
def trials(mlp) -> Trials:
    return tried_by(mlp)


def named(known: Studied) -> dict[str, int]:
    return {group.name: n for group, n in zip(known.study.groups, COUNTS, strict=True)}


def gauge(trials: Trials, target: Target, metric: Metric | None) -> Gauge:
    (found,) = gauges_of([target], lambda: trials, metric)
    return found


def test_an_error_is_the_largest_of_the_outputs(mlp, trials):
    found = gauge(trials, Target("error", 0.05), None)
    (tried,) = trials.tried([named(mlp)])
    assert found.read(named(mlp)) == pytest.approx(tried.relative_error)
    assert found.limit == 0.05
    assert found.holds(named(mlp)) == (tried.relative_error <= 0.05)
    assert found.holds({})


def test_a_drop_is_what_the_metric_loses_in_the_model_of_a_trial(mlp, trials):
    """The trial's model is cut for real and judged: by its mean top score."""
    images = digits()[:30]
    calls = []

    def function(predict: Predict) -> float:
        calls.append(1)
        return float(predict({"input": images})[0].max(axis=1).mean())

    found = gauge(trials, Target("drop", 1.0), FunctionMetric("score", function))
    dropped = found.read(named(mlp))
    (tried,) = trials.tried([named(mlp)])
    pruned = apply(mlp.model, mlp.plan(mlp.study.keeps(named(mlp))), tried.weights)
    before, after = (
        float(Session(model).run({"input": images})[0].max(axis=1).mean())
        for model in (mlp.model, pruned)
    )
    assert abs(before - after) > 1e-3
    assert dropped == pytest.approx(before - after, rel=1e-3)
    assert len(calls) == 2
    assert found.read(named(mlp)) == dropped
    assert len(calls) == 2, "a trial was made twice"
    assert found.read({}) == pytest.approx(0.0)


def test_a_drop_needs_something_that_drops(trials):
    with pytest.raises(ValueError, match="needs a metric"):
        gauge(trials, Target("drop", 0.01), None)
