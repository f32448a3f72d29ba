"""One pass from specs to Grams, on micro models and on a trained network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune.arrays import Feed
from onnxprune.errors import CalibrationError, UnsupportedModelError
from onnxprune.extract import known_shapes
from onnxprune.gram import Gram
from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.sampling import request_for
from onnxprune.statistics import _check_finite, _few_rows, collect

RESNET20 = Path(__file__).parents[2] / "shared" / "models" / "resnet20_cifar10.onnx"

# Relative to the largest entry; float32 sums of a few thousand products (see test_probe.py).
FLOAT32_GRAM = 4e-6

PATCH = FeatureSpec("a", 4, 1, Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1)))
MIX = FeatureSpec("x", 4, 1)
FLAT = FeatureSpec("f", 2, 1, fold=4)
SPECS = [PATCH, MIX, FLAT]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def model() -> onnx.ModelProto:
    return parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N,3,8,8] x) => (float[N,4] y) <float[12,4] w>
        {
          a = Relu(x)
          p = AveragePool<kernel_shape=[4,4], strides=[4,4]>(a)
          f = Flatten(p)
          y = MatMul(f, w)
        }"""
    )


@pytest.fixture
def batches(rng: np.random.Generator) -> list[Feed]:
    return [{"x": rng.standard_normal((n, 3, 8, 8)).astype(np.float32)} for n in (4, 4, 3)]


def close(first: Gram, second: Gram) -> bool:
    scale = np.abs(second.sums).max()
    difference = np.abs(first.sums - second.sums).max()
    return bool(first.rows == second.rows and difference <= FLOAT32_GRAM * scale)


def test_back_ends_agree(model: onnx.ModelProto, batches: list[Feed]) -> None:
    before = model.SerializeToString()
    graph = collect(model, SPECS, batches, samples=11, seed=2, threads=1)
    host = collect(model, SPECS, batches, samples=11, seed=2, threads=1, back_end="host")
    assert list(graph) == list(host) == SPECS
    assert all(close(graph[spec], host[spec]) for spec in SPECS)
    assert model.SerializeToString() == before


def test_rows_that_are_few_give_the_same(
    model: onnx.ModelProto, batches: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a graph makes rows or Grams of them, and whatever waits for others."""
    settings: dict[str, Any] = {"samples": 10, "rows_per_feature": 1}
    some = [{name: array[:1] for name, array in feed.items()} for feed in batches]
    waited = collect(model, SPECS, some, **settings)
    assert _few_rows([request_for(PATCH, (None, 3, 8, 8), batch=1, **settings)], 1)
    monkeypatch.setattr("onnxprune.statistics._few_rows", lambda *_: set())
    at_once = collect(model, SPECS, some, **settings)
    assert all(close(waited[spec], at_once[spec]) for spec in SPECS)


def test_numpy_takes_over_where_onnxruntime_refuses_the_graph(
    model: onnx.ModelProto, batches: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedModelError("onnxruntime cannot load the model")

    monkeypatch.setattr("onnxprune.statistics._graph_task", refuse)
    fallen_back = collect(model, SPECS, batches, samples=11, seed=2, threads=1)
    host = collect(model, SPECS, batches, samples=11, seed=2, threads=1, back_end="host")
    assert all(np.array_equal(fallen_back[spec].sums, host[spec].sums) for spec in SPECS)


def test_seed_moves_the_positions(model: onnx.ModelProto, batches: list[Feed]) -> None:
    first, second = (collect(model, [MIX], batches, samples=11, seed=s)[MIX] for s in (0, 1))
    assert first.rows == second.rows == 11 * 8
    assert not close(first, second)


def test_features_are_channel_then_tap(model: onnx.ModelProto, batches: list[Feed]) -> None:
    gram = collect(model, [PATCH], batches, samples=11, rows_per_feature=10**6)[PATCH]
    assert gram.rows == 11 * 64
    activation = np.concatenate([np.maximum(b["x"], 0) for b in batches]).astype(np.float64)
    sums = gram.sums[0, -1, :-1].reshape(3, 3, 3)
    # the centre tap reads every position, the first one all but the last row and column
    np.testing.assert_allclose(sums[:, 1, 1], activation.sum((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(sums[:, 0, 0], activation[..., :-1, :-1].sum((0, 2, 3)), rtol=1e-5)


def test_duplicates_are_computed_once(
    model: onnx.ModelProto, batches: list[Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FeatureSpec] = []

    def counting(spec: FeatureSpec, *args: Any, **kwargs: Any) -> Any:
        asked.append(spec)
        return request_for(spec, *args, **kwargs)

    monkeypatch.setattr("onnxprune.statistics.request_for", counting)
    grams = collect(model, [MIX, PATCH, FeatureSpec("x", 4, 1)], batches, samples=11)
    assert asked == [MIX, PATCH]
    assert set(grams) == {MIX, PATCH}


def test_result_does_not_depend_on_what_else_is_collected_or_on_timing(
    model: onnx.ModelProto, batches: list[Feed]
) -> None:
    class Backwards:
        def map_reduce(
            self,
            task: Callable[[int, Any], Any],
            shards: Iterable[Any],
            merge: Callable[[Any, Any], Any],
            initial: Any,
            *,
            label: str = "",
            count: int | None = None,
        ) -> Any:
            numbered = list(enumerate(shards))
            assert count == len(numbered) == 3
            done = [task(number, shard) for number, shard in reversed(numbered)]
            for partial in reversed(done):
                initial = merge(initial, partial)
            return initial

    whole = collect(model, SPECS, batches, samples=11, threads=1, executor=Backwards())
    for spec in SPECS:
        alone = collect(model, [spec], iter(batches), samples=11, threads=1)[spec]
        assert alone.sums.tobytes() == whole[spec].sums.tobytes()


def test_host_reads_graph_inputs_without_a_session(
    model: onnx.ModelProto, batches: list[Feed]
) -> None:
    gram = collect(model, [MIX], batches, samples=11, back_end="host", rows_per_feature=1000)[MIX]
    x = np.concatenate([batch["x"] for batch in batches]).astype(np.float64)
    moments = np.einsum("nchw,ndhw->cd", x, x)
    np.testing.assert_allclose(gram.sums[0, :-1, :-1], moments, rtol=1e-12)


def test_no_specs_and_no_samples(model: onnx.ModelProto) -> None:
    assert collect(model, [], [], samples=0) == {}
    with pytest.raises(CalibrationError, match="no calibration samples"):
        collect(model, [MIX], [], samples=1)


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("back_end", ["graph", "host"])
def test_infinite_activations_name_the_batch(
    model: onnx.ModelProto, batches: list[Feed], back_end: Any, size: int
) -> None:
    batches = [{name: array[:size] for name, array in feed.items()} for feed in batches]
    batches[1]["x"][size // 2] = np.inf
    with pytest.raises(CalibrationError, match=r"activation a is infinite .* in batch 1 "):
        collect(model, [PATCH], batches, samples=11, back_end=back_end)


def test_one_infinite_value_of_a_row_is_seen() -> None:
    request = request_for(PATCH, (None, 3, 8, 8), samples=1, batch=1, rows_per_feature=1)
    rows = np.zeros((1, 4, 28), np.float32)
    _check_finite([request], [rows], 0, {0})
    for value in (np.inf, np.nan, 1e20):  # the square of the last is infinite
        rows[0, 1, 20] = value
        with pytest.raises(CalibrationError, match="activation a is infinite"):
            _check_finite([request], [rows], 0, {0})


def test_an_extent_of_minus_1_is_open(model: onnx.ModelProto, batches: list[Feed]) -> None:
    wanted = collect(model, [PATCH], batches, samples=11, seed=2)[PATCH]
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = -1
    assert known_shapes(model, ["x"]) == {"x": (None, 3, None, 8)}
    assert close(collect(model, [PATCH], batches, samples=11, seed=2)[PATCH], wanted)


def test_unknown_activation(model: onnx.ModelProto, batches: list[Feed]) -> None:
    with pytest.raises(UnsupportedModelError, match="activation absent"):
        collect(model, [FeatureSpec("absent", 4, 1)], batches, samples=11)
    with pytest.raises(UnsupportedModelError, match="needs 3 axes"):
        collect(model, [FeatureSpec("a", 3, 1)], batches, samples=11)


@pytest.mark.skipif(not RESNET20.exists(), reason=f"{RESNET20.name} is not here")
def test_trained_network(rng: np.random.Generator) -> None:
    network = onnx.load(RESNET20)
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    specs = []
    for node in (convolutions[1], convolutions[8], convolutions[-1]):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        pads = tuple(attributes["pads"])
        window = Window(
            tuple(attributes["kernel_shape"]),
            tuple(attributes["strides"]),
            tuple(attributes["dilations"]),
            pads[:2],
            pads[2:],
        )
        specs.append(FeatureSpec(node.input[0], 4, 1, window))
    feeds = [{"input": rng.standard_normal((8, 3, 32, 32)).astype(np.float32)} for _ in range(2)]
    graph = collect(network, specs, feeds, samples=16, threads=1)
    host = collect(network, specs, feeds, samples=16, threads=1, back_end="host")
    for spec in specs:
        assert spec.window is not None
        assert spec.window.kernel == (3, 3)
        assert close(graph[spec], host[spec])
