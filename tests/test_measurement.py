"""What is promised is measured on the pruned model: counted again, weighed, run, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_networks import MODELS, QUIET, Studied, digits, studied
from test_api import counted_macs, counted_params

from onnxprune.api import Pruner
from onnxprune.errors import MetricError, TargetError, ValidationError
from onnxprune.measurement import Judge, judge_of, require_sense
from onnxprune.metadata import RESERVED
from onnxprune.model import file_bytes
from onnxprune.options import Options
from onnxprune.runtime import Session
from onnxprune.target import Target

NAMES = ("mlp_digits", "resnet_digits", "vgg_digits", "vit_digits")
SLICED = Options(latency=False, recovery=False, allocation="uniform", criterion="l2")


def judge(known: Studied, options: Options | None = None) -> Judge:
    chosen = options or known.options
    macs = round(float(known.cost.macs(known.study.sizes)))
    return judge_of(known.model, macs, known.samples, known.parts, chosen, QUIET)


@pytest.fixture(scope="module")
def mlp() -> Studied:
    return studied(onnx.load(MODELS / "mlp_digits.onnx"), {"input": digits()[:60]})


def slimmer(model: onnx.ModelProto) -> onnx.ModelProto:
    """The perceptron with 100 of the first layer's 192 units, cut by hand."""
    smaller = onnx.ModelProto()
    smaller.CopyFrom(model)
    for tensor in smaller.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.shape == (192, 64) or tensor.name == "1.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[:100], tensor.name))
        if values.shape == (192, 192):
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[:, :100], tensor.name))
    return smaller


@pytest.mark.parametrize("name", NAMES)
def test_a_pruned_model_is_counted_anew(name, tmp_path):
    path, feed = MODELS / f"{name}.onnx", {"input": digits()[:1]}
    result = Pruner(path, MODELS / "digits_calib.npz", SLICED).prune([Target("macs", 0.6)])
    after, (check,) = result.report.after, result.report.targets
    if name != "vit_digits":  # whose products of activations count as well
        assert after.macs == counted_macs(result.model, feed)
    assert after.params == counted_params(result.model)
    result.save(tmp_path / "out.onnx")
    assert after.bytes == (tmp_path / "out.onnx").stat().st_size
    assert check.reached == after.macs
    assert check.holds


def test_large_models_are_weighed_with_their_data(monkeypatch):
    model = onnx.load(MODELS / "vgg_digits.onnx")
    exact = file_bytes(model)
    monkeypatch.setattr("onnxprune.model.PROTOBUF_LIMIT", 1000)
    assert file_bytes(model) == pytest.approx(exact, rel=0.01)


def test_everything_is_measured(mlp):
    pruned = slimmer(mlp.model)
    found = judge(mlp, Options(evaluate=lambda predict: float(predict(FEED)[0].shape[1])))
    measured = found.measure(pruned, latency=False)
    removed = 92 * (64 + 192)
    assert measured.before.macs - measured.after.macs == removed
    assert measured.before.params - measured.after.params == removed + 92
    assert measured.before.bytes - measured.after.bytes == pytest.approx(4 * (removed + 92), abs=9)
    assert measured.metric == (10.0, 10.0)
    assert measured.after.latency is None
    timed = found.timed_too(measured, pruned)
    assert timed.before.latency is not None
    assert timed.after.latency is not None
    assert found.timed_too(timed, pruned) is timed


FEED = {"input": digits()[:4]}


def test_targets_are_set_beside_what_was_measured(mlp):
    pruned = slimmer(mlp.model)
    labels = Session(mlp.model).run({"input": digits()[:60]})[0].argmax(axis=1)
    found = judge(mlp, Options(labels=labels))
    measured = found.measure(pruned, latency=True)
    targets = [Target.parse(t) for t in ("macs=0.5", "size=1kB", "latency=9s", "drop=1%")]
    targets += [Target("error", 0.02), Target("ratio", 0.1), Target("params", 1.0)]
    checks = found.checks(targets, measured, 192 + 192 + 128, 100 + 192 + 128)
    values = {check.target.kind: check.reached for check in checks}
    assert values["macs"] == measured.after.macs
    assert values["size"] == measured.after.bytes + RESERVED
    assert values["latency"] == measured.after.latency.median  # type: ignore[union-attr]
    assert values["error"] == measured.outputs[0].relative_error
    held_out = mlp.parts.held_out
    same = Session(pruned).run({"input": digits()[held_out]})[0].argmax(axis=1) == labels[held_out]
    assert values["drop"] == pytest.approx(1 - same.mean())
    assert values["ratio"] == 420
    holds = {check.target.kind for check in checks if check.holds}
    assert {"params", "latency", "ratio"} <= holds
    assert "size" not in holds
    assert [check.target for check in checks] == targets


def test_a_model_that_says_no_numbers_is_refused(mlp):
    broken = onnx.ModelProto()
    broken.CopyFrom(mlp.model)
    tensor = broken.graph.initializer[0]
    values = np.full(tuple(tensor.dims), np.nan, np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ValidationError, match="infinite or not a number"):
        judge(mlp).measure(broken, latency=False)


def test_a_drop_that_says_nothing_is_refused(mlp):
    with pytest.raises(MetricError, match="needs --eval or --labels"):
        require_sense([Target("drop", 0.01)], judge(mlp))
    steady = judge(mlp, Options(evaluate=lambda _: 0.9))
    require_sense([Target("drop", 0.01), Target("macs", 0.5)], steady)
    with pytest.raises(TargetError, match=r"drop=1 allows any drop .* written drop=1%"):
        require_sense([Target("drop", 1.0)], steady)
    require_sense([Target("drop", 1.0)], judge(mlp, Options(evaluate=lambda _: 36.5)))


def test_latency_is_that_of_the_batch_asked_for(mlp, monkeypatch):
    seen = []

    def timed(models, feed, **settings):
        seen.append((len(feed["input"]), settings["threads"], len(models)))
        return [None, None]

    monkeypatch.setattr("onnxprune.measurement.interleaved_latency", timed)
    for options in (Options(), Options(latency_batch=8, threads=2)):
        judge(mlp, options).measure(mlp.model, latency=True)
    assert seen == [(1, 1, 2), (8, 2, 2)]


def test_a_fixed_batch_is_the_one_that_is_timed():
    model = onnx.load(MODELS / "mlp_digits.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    result = Pruner(model, {"input": digits()[:100]}, replace(SLICED, latency_batch=5))
    assert len(result._ground.judge.timed["input"]) == 5
    whole, smaller = (
        result.prune([Target("macs", fraction)]).report.after.macs for fraction in (1.0, 0.5)
    )
    assert whole == 64 * 192 + 192 * 192 + 192 * 128 + 128 * 10  # of one sample
    assert smaller <= whole / 2
    refused = Pruner(model, {"input": digits()[:100]}, replace(SLICED, latency_batch=8))
    with pytest.raises(TargetError, match="the model takes batches of exactly 5"):
        refused.prune([Target("macs", 0.5)])


def test_the_file_of_a_size_target_is_as_large_as_said(tmp_path):
    path = Path(tmp_path / "out.onnx")
    limit = 120_000
    result = Pruner(MODELS / "mlp_digits.onnx", MODELS / "digits_calib.npz", SLICED).prune(
        [Target("size", float(limit))]
    )
    result.save(path)
    assert 0.97 * limit < path.stat().st_size <= limit
