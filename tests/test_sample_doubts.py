"""Random samples, and what is told of samples that fit the model and yet are odd."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from masked_networks import WORDS, encoder, padded_tokens
from micro_models import build
from small_networks import MODELS, digits, perceptron

from onnxprune import Options, Target, prune
from onnxprune.arrays import Array
from onnxprune.calibration import InputSpec, load_calibration
from onnxprune.errors import CalibrationError
from onnxprune.index_limits import index_limits
from onnxprune.inputs import input_specs
from onnxprune.sample_doubts import doubts

FLOAT = np.dtype(np.float32)


def told(model: onnx.ModelProto, source: Any, mask: str | None = None) -> list[str]:
    return doubts(model, load_calibration(source, input_specs(model)), mask)


# --- random samples ---


def test_random_samples_have_the_types_and_shapes_of_the_inputs() -> None:
    inputs = (
        InputSpec("x", ("N", 3, 4), FLOAT),
        InputSpec("half", ("N", 2), np.dtype(np.float16)),
        InputSpec("image", ("N", 3, "h", "w"), FLOAT),
        InputSpec("pixels", ("N", 2, 2, 3), np.dtype(np.uint8)),
        InputSpec("ids", ("N", "seq"), np.dtype(np.int64), below=50),
        InputSpec("mask", ("N", "seq"), np.dtype(np.int64)),
        InputSpec("flag", ("N",), np.dtype(bool)),
    )
    samples = load_calibration("random", inputs, num_samples=9)
    assert len(samples) == 9
    (feed,) = samples.batches(np.arange(9), 16)
    for spec in inputs:
        assert feed[spec.name].dtype == spec.dtype
        assert spec.takes(feed[spec.name].shape)
    assert feed["image"].shape == (9, 3, 224, 224)
    assert feed["ids"].shape == feed["mask"].shape
    assert 0 <= feed["ids"].min() < 5
    assert 45 < feed["ids"].max() < 50
    assert (feed["mask"] == 1).all()
    assert feed["flag"].all()
    assert abs(feed["image"].mean()) < 0.01
    assert feed["image"].std() == pytest.approx(1, abs=0.01)


def test_random_samples_depend_on_the_seed_alone() -> None:
    inputs = [InputSpec("x", ("N", 4), FLOAT)]

    def drawn(seed: int, order: list[int]) -> Array:
        samples = load_calibration("random", inputs, num_samples=5, seed=seed)
        return next(samples.batches(np.array(order), 8))["x"]

    assert np.array_equal(drawn(0, [3, 1]), drawn(0, [1, 3])[::-1])
    assert not np.array_equal(drawn(0, [1]), drawn(1, [1]))
    assert len(load_calibration("random", inputs)) == 256


def test_a_file_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("random").mkdir()
    with pytest.raises(CalibrationError, match="random: holds no samples"):
        load_calibration("random", [InputSpec("x", ("N", 4), FLOAT)])


def test_a_run_on_random_samples_warns_and_its_report_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = Options(latency=False, allocation="uniform", num_samples=40, sequential=False)
    with caplog.at_level(logging.WARNING, "onnxprune"):
        result = prune(perceptron(), "random", Target("params", 0.7), options=options)
    (warning,) = [record for record in caplog.records if "random" in record.message]
    assert warning.levelno == logging.WARNING
    assert any("the samples are random numbers" in note for note in result.report.notes)
    assert "note: the samples are random numbers" in result.report.table()
    joined = {"ids": np.ones((9, 5), np.int64), "mask": "random"}
    assert load_calibration(joined, input_specs(encoder("", "5")), num_samples=9).warning


# --- tables that whole numbers look up ---


def test_the_table_that_tokens_look_up_is_found() -> None:
    assert index_limits(encoder()) == {"ids": WORDS}
    model = build(
        "c = Cast <to=7> (ids) u = Unsqueeze (c, first) a = Gather (wide, u) s = Gather (narrow, c)"
        " t = Gather <axis=1> (wide, other) y = ReduceSum (a)",
        {"wide": (30, 8), "narrow": (20, 4), "first": np.array([1])},
        inputs="int32[N,5] ids, int64[N,5] other, float[N,5] x",
        outputs="float[A] y",
    )
    assert index_limits(model) == {"ids": 20, "other": 8}


def test_tokens_beyond_the_table_are_refused() -> None:
    feed = padded_tokens(7, 5)
    feed["ids"][3, 1] = WORDS
    with pytest.raises(CalibrationError, match=rf"sample 3, input 'ids'.*{WORDS} entries"):
        load_calibration(feed, input_specs(encoder()))
    feed["ids"][3, 1] = -WORDS  # counted from the end
    load_calibration(feed, input_specs(encoder()))


# --- doubts ---


@pytest.mark.parametrize("name", ["mlp", "resnet", "vgg", "vit"])
def test_samples_as_they_should_be_raise_none(name: str) -> None:
    model = onnx.load(MODELS / f"{name}_digits.onnx")
    assert told(model, digits()[:40]) == []


@pytest.mark.parametrize(
    ("name", "factor", "words"),
    [
        ("resnet", 255, "varies by 1"),
        ("vgg", 255, "BatchNormalization"),
        ("resnet", 1 / 255, "varies by 1/"),
        ("vit", 255, "times its bias"),
    ],
)
def test_values_of_another_scale(name: str, factor: float, words: str) -> None:
    model = onnx.load(MODELS / f"{name}_digits.onnx")
    values = (digits()[:40] * factor).astype(np.float32)
    (doubt,) = told(model, np.round(values) if factor > 1 else values)
    assert "input 'input' has values from 0 to" in doubt
    assert words in doubt
    assert "check mean, std and scale" in doubt


def test_a_model_that_scales_pixels_itself_raises_none() -> None:
    model = onnx.load(MODELS / "resnet_digits.onnx")
    first = model.graph.node[0]
    scaled = onnx.helper.make_node("Mul", ["input", "factor"], ["scaled"])
    first.input[0] = "scaled"
    nodes = [scaled, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    factor = onnx.numpy_helper.from_array(np.array(1 / 255, np.float32), "factor")
    model.graph.initializer.append(factor)
    assert told(model, np.round(digits()[:40] * 255)) == []


def test_samples_that_are_all_the_same() -> None:
    model = onnx.load(MODELS / "mlp_digits.onnx")
    same = np.repeat(digits()[:1], 9, axis=0)
    assert told(model, same) == [
        "all of 9 samples looked at are identical; check how they are read"
    ]
    assert told(model, same[:1]) == []


def test_values_that_do_not_vary() -> None:
    model = onnx.load(MODELS / "mlp_digits.onnx")
    found = told(model, np.zeros((9, 1, 8, 8), np.float32))
    assert "input 'input' is 0 throughout; check how the samples are made" in found


@pytest.mark.parametrize("batch", ["N", "1"])
def test_samples_that_the_model_has_nothing_to_say_of(batch: str) -> None:
    """Values far from zero that hardly vary, as those of a detector that sees nothing."""
    nodes = "a = Gemm (x, w1, b1) h = Relu (a) y = Gemm (h, w2, b2)"
    rng = np.random.default_rng(0)
    weights = {"w1": (6, 12), "b1": (12,), "w2": (12, 5), "b2": np.full(5, 100.0, np.float32)}
    shapes = {"inputs": f"float[{batch},6] x", "outputs": f"float[{batch},5] y"}
    samples = rng.standard_normal((20, 6)).astype(np.float32)
    (said,) = told(build(nodes, weights, **shapes), samples)
    assert said.startswith("the samples make hardly a difference to y: constants would be within ")
    assert "--target drop and --eval" in said
    other = weights | {"b2": np.zeros(5, np.float32)}
    assert told(build(nodes, other, **shapes), samples) == []


def test_a_mask_that_nobody_has_named() -> None:
    feed = padded_tokens(12, 30)
    (doubt,) = told(encoder(), feed)
    share = (feed["mask"] == 0).mean()
    assert doubt.startswith(f"input 'mask' is 0 at {share:.0%} of the positions")
    assert "--mask mask" in doubt
    assert told(encoder(), feed, mask="mask") == []
    feed["mask"][:] = 1
    assert told(encoder(), feed) == []
