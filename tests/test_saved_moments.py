"""Learnt moments in a file, and pruning by them without a calibration pass."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, build
from small_networks import MODELS, convolutions, digits, perceptron, random_samples

from onnxprune import Options, Pruner, Result, Target, prune, study
from onnxprune.canonical import canonicalise
from onnxprune.cli import main
from onnxprune.errors import CalibrationError
from onnxprune.model import load
from onnxprune.plain_channels import plain_specs
from onnxprune.refinement import Budget, Refine
from onnxprune.rewrite import digest
from onnxprune.saved_moments import SavedMoments
from onnxprune.statistics import collect

HALF = [Target("macs", 0.5)]
FLAT = "c = Conv (x, w1, b1) h = Relu(c) f = Flatten(h) y = MatMul(f, w2)"


def moments_of(
    model: onnx.ModelProto, samples: dict[str, np.ndarray], rows_per_feature: int = 10**6
) -> SavedMoments:
    """What a training run on these samples would have learnt, without any noise."""
    count = len(next(iter(samples.values())))
    grams = collect(
        canonicalise(model),
        plain_specs(model),
        [samples],
        samples=count,
        rows_per_feature=rows_per_feature,
    )
    few = {name: values[:20] for name, values in samples.items()}
    return SavedMoments(digest(model), grams, few)


def settings(learnt: SavedMoments | str | Path | None, method: str = "snp") -> Options:
    return Options(method=method, statistics=learnt, latency=False)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return load(MODELS / "resnet_digits.onnx")


@pytest.fixture(scope="module")
def learnt(model: onnx.ModelProto) -> SavedMoments:
    return moments_of(model, {"input": digits()[:200]})


def test_a_file_holds_what_was_learnt(learnt: SavedMoments, tmp_path: Path) -> None:
    learnt.save(tmp_path / "m.npz")
    again = SavedMoments.load(tmp_path / "m.npz")
    assert again.digest == learnt.digest
    assert list(again.grams) == list(learnt.grams)
    for spec, gram in learnt.grams.items():
        np.testing.assert_array_equal(again.grams[spec].sums, gram.sums)
    np.testing.assert_array_equal(again.samples["input"], learnt.samples["input"])


@pytest.mark.parametrize("method", ["snp", "squeeze"])
def test_pruning_by_moments_is_pruning_by_samples(
    method: str, model: onnx.ModelProto, learnt: SavedMoments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both by the same moments: nothing else is taken from the samples, and none is run."""
    sampled = Pruner(model, {"input": digits()[:200]}, Options(method=method, latency=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "observe", lambda *_: (learnt.grams, learnt.grams))
        by_samples = sampled.prune(HALF)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a calibration pass")

    monkeypatch.setattr(study, "collect", never)
    found = prune(model, None, HALF, options=settings(learnt, method))
    assert found.plan == by_samples.plan
    assert found.model.graph == by_samples.model.graph
    assert found.report.settings["statistics"] == "learnt"
    assert found.report.samples == {"fit": 15, "tune": 3, "held_out": 2}


def pruned(model: onnx.ModelProto, learnt: SavedMoments) -> Result:
    return prune(model, None, HALF, options=settings(learnt))


NETWORKS = {
    "perceptron": perceptron,
    "convolutions": convolutions,
    "grouped": lambda: convolutions(
        "d = Relu(c) e = Conv <group=2> (d, w3) h = Relu(e)", w3=(8, 4, 1, 1)
    ),
    "flattened": lambda: build(
        "c = Conv (x, w1) h = Relu(c) f = Flatten(h) y = MatMul(f, w2)",
        {"w1": (8, 3, 3, 3), "w2": (8 * 36, 4)},
        inputs="float[N,3,8,8] x", outputs="float[N,4] y",
    ),
    "attention": MICRO_MODELS["attention"],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_layer(name: str) -> None:
    model = NETWORKS[name]()
    result = pruned(model, moments_of(model, random_samples(model)))
    assert result.plan.edits


def test_moments_of_another_model_are_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    other = perceptron()
    learnt = moments_of(other, random_samples(other))
    with pytest.raises(CalibrationError, match="learnt for another model"):
        Pruner(model, None, settings(learnt))
    learnt.save(tmp_path / "m.npz")
    with pytest.raises(CalibrationError, match=r"m\.npz: the statistics were learnt for another"):
        Pruner(model, None, settings(tmp_path / "m.npz"))


def test_a_layer_whose_moments_are_missing_is_named() -> None:
    model = convolutions()
    learnt = moments_of(model, random_samples(model))
    spec = next(spec for spec in learnt.grams if spec.tensor == "h")
    lacking = SavedMoments(
        learnt.digest, {s: g for s, g in learnt.grams.items() if s != spec}, learnt.samples
    )
    with pytest.raises(CalibrationError, match=r"no moments of 'h', which layer .* reads"):
        prune(model, None, HALF, options=settings(lacking))


def test_patches_cannot_be_learnt_so() -> None:
    with pytest.raises(ValueError, match="method that knows channels: snp, squeeze"):
        Options(statistics="m.npz")


@pytest.mark.slow
def test_refitting_in_order_needs_samples(model: onnx.ModelProto, learnt: SavedMoments) -> None:
    in_order = Options(method="snp", statistics=learnt, sequential=True, latency=False)
    with pytest.raises(CalibrationError, match="refitting in order needs samples"):
        Pruner(model, None, in_order)
    result = prune(model, {"input": digits()[:200]}, HALF, options=in_order)
    one_shot = prune(model, {"input": digits()[:200]}, HALF, options=settings(learnt))
    assert result.plan == one_shot.plan
    errors = [r.report.outputs[0].relative_error for r in (result, one_shot)]
    assert errors[0] < errors[1]


def test_refining_needs_samples(model: onnx.ModelProto, learnt: SavedMoments) -> None:
    refined = replace(settings(learnt), refine=Refine(Budget(steps=2)))
    with pytest.raises(CalibrationError, match="refining needs samples"):
        Pruner(model, None, refined)


def test_no_samples_at_all_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="there are no samples"):
        Pruner(model, None, Options(method="snp"))


def test_the_command_takes_moments_for_samples(
    model: onnx.ModelProto, learnt: SavedMoments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, file = (tmp_path / name for name in ("in.onnx", "out.onnx", "m.npz"))
    onnx.save(model, source)
    learnt.save(file)
    words = [str(source), str(out), "--method", "snp", "--target", "macs=0.5"]
    assert main([*words, "--statistics", str(file), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["statistics"] == "learnt"
    assert out.exists()
    for more, message in (
        ([], "the following arguments are required: --calib"),
        (["--statistics", str(file), "--method", "onnxprune"], "moments of plain channels"),
        (["--statistics", str(file), "--report", str(file)], "would overwrite --statistics"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*words, *more])
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["text", "cut", "other", "format", "infinite"])
def test_damaged_files_are_refused(damage: str, learnt: SavedMoments, tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    learnt.save(path)
    if damage == "text":
        path.write_text("moments", encoding="utf-8")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "other":
        np.savez(path, input=digits()[:3])
    else:
        with np.load(path) as file:
            arrays = dict(file)
        if damage == "format":
            head = json.loads(str(arrays["head"]))
            arrays["head"] = np.array(json.dumps(head | {"format": 99}))
        else:
            arrays["gram.0"][0, 0, 0] = np.inf
        np.savez(path, **arrays)
    with pytest.raises(CalibrationError, match=r"m\.npz: not a readable file of learnt"):
        SavedMoments.load(path)
