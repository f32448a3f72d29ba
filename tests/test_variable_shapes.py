"""Samples of different shapes: lengths of sentences and of recordings, sizes of images."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from masked_networks import encoder, padded_tokens
from micro_models import build, ints
from micro_recurrent import layer
from PIL import Image

from onnxprune import Options, Pruner, Result, Target, prune
from onnxprune.arrays import Feed
from onnxprune.batches import Batches
from onnxprune.calibration import Preprocessing, load_calibration, split
from onnxprune.errors import TargetError
from onnxprune.inputs import input_specs
from onnxprune.runtime import Session

QUIET = Options(latency=False, allocation="uniform")
ROUNDING = 1e-4
"""Of weights near 1, least squares over float32 sums that were made in another order."""
SIZES = [(8, 8), (6, 10), (12, 7)]


def convolutional() -> onnx.ModelProto:
    """Height and width are open from the input to the output."""
    return build(
        "c = Conv <pads=[1,1,1,1]> (x, w1, b1) h = Relu (c)"
        " d = Conv <pads=[1,1,1,1], strides=[2,2]> (h, w2, b2) e = Relu (d) y = Conv (e, w3)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (10, 8, 3, 3), "b2": (10,), "w3": (4, 10, 1, 1)},
        inputs="float[N,3,H,W] x",
        outputs="float[N,4,P,Q] y",
    )


def recurrent() -> onnx.ModelProto:
    """Two LSTMs on sequences of any length."""
    return build(
        "s = Transpose <perm=[1,0,2]> (x) a = LSTM <hidden_size=8> (s, w1, r1, b1)"
        " m = Squeeze (a, one) b, last = LSTM <hidden_size=6> (m, w2, r2, b2)"
        " l = Squeeze (last, zero) y = Gemm (l, wo, bo)",
        layer("LSTM", 1)
        | layer("LSTM", 2, inputs=8, units=6)
        | {"wo": (6, 5), "bo": (5,), "zero": ints(0), "one": ints(1)},
        inputs="float[N,L,6] x",
        outputs="float[N,5] y",
    )


def images(count: int = 60) -> list[Feed]:
    rng = np.random.default_rng(0)
    sizes = [SIZES[0] if i % 2 else SIZES[i % 3] for i in range(count)]
    return [{"x": rng.standard_normal((3, *size)).astype(np.float32)} for size in sizes]


def sequences(count: int = 60) -> list[Feed]:
    rng = np.random.default_rng(0)
    lengths = rng.choice([3, 5, 9], count, p=[0.2, 0.6, 0.2])
    return [{"x": rng.standard_normal((n, 6)).astype(np.float32)} for n in lengths]


def errors(model: onnx.ModelProto, result: Result, feeds: list[Feed]) -> float:
    """Relative error of the pruned model, over samples that are fed one by one."""
    before, after = Session(model), Session(result.model)
    pairs = [
        (before.run({n: a[None] for n, a in feed.items()})[0],
         after.run({n: a[None] for n, a in feed.items()})[0])
        for feed in feeds
    ]  # fmt: skip
    missed = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    return float(np.sqrt(missed / sum(float((a**2).sum()) for a, _ in pairs)))


@pytest.mark.parametrize(
    ("model", "feeds"),
    [(convolutional(), images()), (recurrent(), sequences())],
    ids=["images", "sequences"],
)
def test_batches_are_of_one_shape_and_counted_right(
    model: onnx.ModelProto, feeds: list[Feed]
) -> None:
    samples = load_calibration(feeds, input_specs(model))
    some = Batches(samples, np.arange(5, 55), 4)
    shapes = [feed["x"].shape for feed in some]
    assert len(shapes) == len(some)
    assert max(shape[0] for shape in shapes) == 4
    assert sum(shape[0] for shape in shapes) == 50
    # no shape is spread over more batches than it fills, and the most common one comes first
    counts = Counter(feed["x"].shape for feed in feeds[5:55])
    assert len(counts) == 3
    assert len(some) == sum(-(-count // 4) for count in counts.values())
    assert shapes[0][1:] == Counter(feed["x"].shape for feed in feeds).most_common(1)[0][0]


@pytest.mark.parametrize(
    "allocation", ["uniform", pytest.param("sensitivity", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("model", "feeds"),
    [
        (convolutional(), images()),
        pytest.param(recurrent(), sequences(), marks=pytest.mark.slow),
    ],
    ids=["images", "sequences"],
)
def test_whole_runs(model: onnx.ModelProto, feeds: list[Feed], allocation: str) -> None:
    options = replace(QUIET, allocation=allocation, batch=8)
    result = prune(model, feeds, Target("params", 0.7), options=options)
    held_out = split(len(feeds), 0).held_out
    found = errors(model, result, [feeds[i] for i in held_out])
    assert result.report.outputs[0].relative_error == pytest.approx(found, rel=1e-4)
    assert result.report.outputs[0].samples == held_out.size
    sliced = prune(model, feeds, Target("params", 0.7), options=replace(options, recovery=False))
    assert found < 0.9 * sliced.report.outputs[0].relative_error


@pytest.mark.slow
def test_sentences_without_padding_are_as_those_with_it() -> None:
    """The same words, one sentence of its own length each or all padded alike."""
    padded = padded_tokens(9, 40)
    lengths = padded["mask"].sum(axis=1)
    feeds = [{n: a[i, :length] for n, a in padded.items()} for i, length in enumerate(lengths)]
    options = replace(QUIET, mask="mask", batch=8)
    one, other = (
        prune(encoder(), given, Target("params", 0.7), options=options) for given in (padded, feeds)
    )
    assert one.plan == other.plan
    for name, arrays in one.weights.arrays.items():
        for mine, yours in zip(arrays, other.weights.arrays[name], strict=True):
            np.testing.assert_allclose(mine, yours, atol=ROUNDING)


@pytest.mark.slow
def test_images_of_their_own_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        pixels = rng.integers(0, 256, (*SIZES[number % 3], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    options = replace(QUIET, preprocessing=Preprocessing(scale=1 / 255))
    assert prune(convolutional(), tmp_path, Target("params", 0.7), options=options).plan.edits


def test_a_fixed_batch_of_different_shapes_leaves_out_what_fills_none() -> None:
    model = convolutional()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    samples = load_calibration(images(9), input_specs(model))
    every = Batches(samples, np.arange(9), 32)
    assert [feed["x"].shape[0] for feed in every] == [2] * len(every)
    assert len(every) == 4  # of 6, 2 and 1 samples of a size


# --- latency ---


def test_latency_is_that_of_the_most_common_shape_or_of_the_one_asked_for() -> None:
    model, feeds = convolutional(), images()
    common = Pruner(model, feeds, QUIET)
    assert common._ground.judge.timed["x"].shape == (1, 3, 8, 8)
    stated = Pruner(model, feeds, replace(QUIET, latency_shape={"x": (2, 3, 5, 20)}))
    timed = stated._ground.judge.timed["x"]
    assert timed.shape == (2, 3, 5, 20)
    assert np.array_equal(timed[0, :, :, :8], common._ground.judge.timed["x"][0, :, :5])
    assert np.array_equal(timed[..., 8:16], timed[..., :8])  # values that the model may meet


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"z": (1, 3, 8, 8)}, "an input 'z': the model's are x"),
        ({"x": (1, 4, 8, 8)}, "x:1x4x8x8: the model takes float32"),
        ({"x": (1, 3, 8)}, "x:1x3x8: the model takes float32"),
        ({"x": (3, 3, 8, 8)}, "a batch of 2 and one of 3"),
    ],
)
def test_shapes_that_cannot_be_timed(shape: dict[str, tuple[int, ...]], words: str) -> None:
    options = replace(QUIET, latency_shape=shape, latency_batch=2)
    with pytest.raises(TargetError, match=words):
        _ = Pruner(convolutional(), images(), options)._ground.judge
