"""End to end: what a user gets from ``prune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import MODELS, accuracy, digits

from onnxprune import Options, Plan, Result, Target, Weights, apply, prune
from onnxprune.api import apply_plan
from onnxprune.errors import (
    PlanMismatchError,
    UnsupportedModelError,
    ValidationError,
)
from onnxprune.runtime import Session
from onnxprune.sensitivity import measure_sensitivity
from onnxprune.target import COSTS

NAMES = ("mlp_digits", "resnet_digits", "vgg_digits")
CALIBRATION = MODELS / "digits_calib.npz"
QUICK = Options(latency=False)
HALF = Target("macs", 0.5)


def path_of(name: str) -> Path:
    return MODELS / f"{name}.onnx"


@pytest.fixture(scope="module")
def halved() -> dict[str, Result]:
    return {name: prune(path_of(name), CALIBRATION, HALF, options=QUICK) for name in NAMES}


def counted_macs(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> int:
    """Multiply-accumulates, from the shapes that onnxruntime gives the outputs of Conv and Gemm."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    for node in nodes:
        copy.graph.output.append(helper.make_empty_tensor_value_info(node.output[0]))
    outputs = Session(copy, optimization="none").run(feed, [node.output[0] for node in nodes])
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    total = 0
    for node, output in zip(nodes, outputs, strict=True):
        shape = weights[node.input[1]]
        made = output.shape[1] if node.op_type == "Conv" else output.shape[-1]
        total += output.size * int(np.prod(shape)) // made
    return total


def counted_params(model: onnx.ModelProto) -> int:
    return sum(
        int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT
    )


@pytest.mark.parametrize("name", NAMES)
def test_half_the_macs_keep_the_accuracy(name, halved):
    before, after = accuracy(onnx.load(path_of(name))), accuracy(halved[name].model)
    assert after >= before - 0.02


@pytest.mark.parametrize("name", NAMES)
def test_recovery_is_what_keeps_it(name, halved):
    bare = prune(path_of(name), CALIBRATION, HALF, options=Options(recovery=False, latency=False))
    assert accuracy(bare.model) <= accuracy(halved[name].model)
    assert bare.report.outputs[0].relative_error > 2 * halved[name].report.outputs[0].relative_error
    assert bare.report.settings["recovery"] == "none"


@pytest.mark.parametrize("name", NAMES)
def test_the_report_counts_rightly(name, halved):
    report, feed = halved[name].report, {"input": digits()[:1]}
    original, pruned = onnx.load(path_of(name)), halved[name].model
    assert report.before.macs == counted_macs(original, feed)
    assert report.after.macs == counted_macs(pruned, feed)
    assert report.before.params == counted_params(original)
    assert report.after.params == counted_params(pruned)
    assert report.after.bytes == len(pruned.SerializeToString())
    assert 0.45 * report.before.macs < report.after.macs <= 0.5 * report.before.macs


def test_the_report_says_how_well_the_damage_laws_fit(monkeypatch):
    found = {}

    def noted(*given):
        found.update(measure_sensitivity(*given))
        return found

    monkeypatch.setattr("onnxprune.choice.measure_sensitivity", noted)
    report = prune(path_of("mlp_digits"), CALIBRATION, HALF, options=QUICK).report
    assert {g.name: g.residual for g in report.groups} == {n: w.residual for n, w in found.items()}
    assert max(law.residual for law in found.values()) > 0
    unmeasured = replace(QUICK, allocation="uniform")
    report = prune(path_of("mlp_digits"), CALIBRATION, HALF, options=unmeasured).report
    assert {g.residual for g in report.groups} == {None}


@pytest.mark.parametrize("name", NAMES)
def test_the_held_out_samples_tell_the_distance(name, halved):
    """Neither fitted nor tuned on, and near what the test images say."""
    report = halved[name].report
    assert report.samples == {"fit": 375, "tune": 75, "held_out": 50}
    feed = {"input": digits("digits_test.npz")}
    (old,) = Session(path_of(name)).run(feed)
    (new,) = Session(halved[name].model).run(feed)
    error = float(np.linalg.norm(new - old) / np.linalg.norm(old))
    assert report.outputs[0].relative_error == pytest.approx(error, rel=0.35)
    assert report.outputs[0].samples == 50


@pytest.mark.parametrize(
    ("kind", "value"), [("ratio", 0.3), ("params", 0.4), ("params", 30e3), ("macs", 20e3)]
)
def test_every_kind_of_target_is_met(kind, value):
    options = Options(latency=False, allocation="uniform")
    result = prune(path_of("mlp_digits"), CALIBRATION, Target(kind, value), options=options)
    feed = {"input": digits()[:1]}
    original = onnx.load(path_of("mlp_digits"))
    reached = {
        "ratio": 1 - sum(len(g.keep) for g in result.report.groups) / 512,
        "params": counted_params(result.model),
        "macs": counted_macs(result.model, feed),
    }[kind]
    if kind == "ratio":
        assert value <= reached <= value + 0.02
    else:
        limit = value if value > 1 else value * counted_params(original)
        assert 0.9 * limit < reached <= limit
    assert set(COSTS) - {"size", "latency"} == {"ratio", "params", "macs"}


def test_several_targets_hold_together():
    targets = [Target("macs", 0.7), Target("params", 0.4), Target("ratio", 0.3)]
    result = prune(path_of("vgg_digits"), CALIBRATION, targets, options=QUICK)
    report = result.report
    assert report.after.macs <= 0.7 * report.before.macs
    assert report.after.params <= 0.4 * report.before.params
    assert sum(len(g.keep) for g in report.groups) <= 0.7 * sum(g.size for g in report.groups)
    assert report.settings["target"] == ["macs=0.7", "params=0.4", "ratio=0.3"]


def test_without_a_target_the_outputs_stay_near():
    result = prune(path_of("mlp_digits"), CALIBRATION, options=QUICK)
    assert result.report.after.macs < 0.5 * result.report.before.macs
    assert result.report.outputs[0].relative_error < 0.15


def test_a_target_that_is_met_already_cuts_nothing():
    result = prune(path_of("mlp_digits"), CALIBRATION, Target("macs", 1.0), options=QUICK)
    assert result.plan.edits == ()
    assert result.report.after.macs == result.report.before.macs
    assert any("nothing was cut" in note for note in result.report.notes)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_bytes(halved, tmp_path):
    again = prune(path_of("resnet_digits"), CALIBRATION, HALF, options=QUICK)
    first = halved["resnet_digits"]
    assert again.plan == first.plan
    for number, result in enumerate((first, again)):
        result.save(tmp_path / f"{number}.onnx")
        result.plan.save(tmp_path / f"{number}.json")
        result.weights.save(tmp_path / f"{number}.npz")
    for kind in ("onnx", "json", "npz"):
        assert (tmp_path / f"0.{kind}").read_bytes() == (tmp_path / f"1.{kind}").read_bytes()
    when = {"started": "", "seconds": 0.0}
    runs = [replace(r.report, run=replace(r.report.run, **when)) for r in (first, again)]
    assert runs[0].to_dict() == runs[1].to_dict()


def test_another_seed_fits_on_other_samples(halved):
    other = prune(path_of("mlp_digits"), CALIBRATION, HALF, options=Options(seed=1, latency=False))
    first = halved["mlp_digits"].model.graph.SerializeToString(deterministic=True)
    assert other.model.graph.SerializeToString(deterministic=True) != first
    assert other.report.after.macs <= 0.5 * other.report.before.macs


def test_the_input_stays_as_it_is(tmp_path):
    copy = tmp_path / "in.onnx"
    copy.write_bytes(path_of("resnet_digits").read_bytes())
    model = onnx.load(copy)
    before = model.SerializeToString(deterministic=True)
    options = replace(QUICK, allocation="uniform")
    result = prune(model, CALIBRATION, HALF, options=options)
    result.save(tmp_path / "out.onnx")
    assert model.SerializeToString(deterministic=True) == before
    prune(copy, CALIBRATION, HALF, options=options)
    assert copy.read_bytes() == path_of("resnet_digits").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_stays_dynamic(name, halved):
    session = Session(halved[name].model)
    images = digits()[:3]
    (three,) = session.run({"input": images})
    ones = [session.run({"input": images[i : i + 1]})[0] for i in range(3)]
    assert three.shape == (3, 10)
    np.testing.assert_allclose(three, np.concatenate(ones), atol=1e-4)
    assert halved[name].model.graph.input == onnx.load(path_of(name)).graph.input
    assert halved[name].model.graph.output == onnx.load(path_of(name)).graph.output


def test_metadata_and_header_are_kept():
    model = onnx.load(path_of("vgg_digits"))
    model.metadata_props.add(key="names", value="{0: 'zero'}")
    model.doc_string, model.domain, model.model_version = "digits", "org.example", 7
    model.graph.doc_string = "a graph"
    pruned = prune(model, CALIBRATION, HALF, options=QUICK).model
    for field in ("doc_string", "domain", "model_version", "opset_import"):
        assert getattr(pruned, field) == getattr(model, field), field
    assert pruned.metadata_props[0] == model.metadata_props[0]
    assert all(e.key.startswith("onnxprune.") for e in pruned.metadata_props[1:])
    assert (pruned.ir_version, pruned.graph.doc_string) == (model.ir_version, "a graph")
    assert pruned.producer_name == model.producer_name
    names = {node.name for node in model.graph.node}
    assert {node.name for node in pruned.graph.node} <= names


def test_a_saved_plan_makes_the_same_model_again(halved, tmp_path):
    result = halved["resnet_digits"]
    result.save(tmp_path / "first.onnx")
    result.plan.save(tmp_path / "plan.json")
    result.weights.save(tmp_path / "plan.npz")
    plan, weights = Plan.load(tmp_path / "plan.json"), Weights.load(tmp_path / "plan.npz")
    assert plan == result.plan
    apply_plan(path_of("resnet_digits"), plan, tmp_path / "second.onnx", weights)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    apply_plan(path_of("resnet_digits"), plan, tmp_path / "sliced.onnx")
    assert accuracy(onnx.load(tmp_path / "sliced.onnx")) < accuracy(result.model)


def test_a_plan_does_not_fit_another_model(halved):
    with pytest.raises(PlanMismatchError, match="made for another model"):
        apply(onnx.load(path_of("vgg_digits")), halved["mlp_digits"].plan)


def test_saving_checks_first_and_keeps_what_was_there(halved, tmp_path):
    result = halved["mlp_digits"]
    path = tmp_path / "out.onnx"
    path.write_text("precious")
    broken = onnx.ModelProto()
    broken.CopyFrom(result.model)
    broken.graph.output[0].name = broken.graph.node[-1].output[0] = "other"
    spoilt = Result(broken, *(getattr(result, f) for f in list(Result.__dataclass_fields__)[1:]))
    with pytest.raises(ValidationError, match="graph outputs 'other' differ"):
        spoilt.save(path)
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]
    result.save(path)
    assert onnx.load(path) == result.model


@pytest.mark.parametrize("source", ["dictionary", "array", "iterable"])
def test_samples_in_memory(source, halved):
    images = digits()
    calibration = {
        "dictionary": {"input": images},
        "array": images,
        "iterable": ({"input": part} for part in np.split(images, 10)),
    }[source]
    result = prune(path_of("mlp_digits"), calibration, HALF, options=QUICK)
    first = halved["mlp_digits"].model.SerializeToString(deterministic=True)
    assert result.model.SerializeToString(deterministic=True) == first


def test_one_sample_is_enough_to_run_and_not_to_trust():
    options = Options(latency=False)
    result = prune(path_of("vgg_digits"), digits()[:1], Target("macs", 0.8), options=options)
    assert any("Only one calibration sample" in note for note in result.report.notes)
    assert any("few calibration rows" in note for note in result.report.notes)
    assert result.report.after.macs <= 0.8 * result.report.before.macs
    assert np.isfinite(Session(result.model).run({"input": digits()[:5]})[0]).all()


def test_include_and_exclude_choose_groups():
    model = path_of("mlp_digits")
    names = ["/1/Gemm", "/3/Gemm", "/5/Gemm"]
    target = Target("ratio", 0.5)
    only = prune(model, CALIBRATION, target, options=Options(include="/3/", latency=False))
    assert [(g.name, len(g.keep)) for g in only.report.groups] == [("/3/Gemm", 96)]
    without = prune(model, CALIBRATION, target, options=Options(exclude="/3/", latency=False))
    assert [edit.group for edit in without.plan.edits] == [names[0], names[2]]
    with pytest.raises(UnsupportedModelError, match="leave none of the channel groups: '/1/Gemm'"):
        prune(model, CALIBRATION, target, options=Options(include="nothing"))


def test_results_print_shortly(halved):
    assert len(repr(halved["mlp_digits"])) < 20_000


def test_weights_of_the_result_are_those_of_the_file(halved):
    """Every recovered weight is in the model, cut on its output side where that is cut."""
    result = halved["mlp_digits"]
    arrays = [numpy_helper.to_array(t) for t in result.model.graph.initializer]
    weight, bias = result.weights.arrays["/7/Gemm"]
    assert any(np.array_equal(array, weight) for array in arrays)
    assert any(np.array_equal(array, bias) for array in arrays)
