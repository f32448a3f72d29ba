"""The appended graph computes what NumPy computes from the exposed activation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.extract import exposed, known_shapes
from onnxprune.gram import Gram
from onnxprune.host_gram import host_gram
from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.probe import probe
from onnxprune.runtime import Session
from onnxprune.sampling import GramRequest, draw_uniforms, total_positions

# The graph sums up to a few thousand float32 products for an entry: rounding errors of eps / 2
# add up to about sqrt(rows) * eps / 2 relative to the largest entry, 4e-6 for 4 000 rows.
FLOAT32_GRAM = 4e-6


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def agree(graph: np.ndarray, host: np.ndarray) -> bool:
    """Whether two Grams are the same to the rounding of float32 sums."""
    difference = np.abs(graph.astype(np.float64) - host).max()
    return bool(graph.shape == host.shape and difference <= FLOAT32_GRAM * np.abs(host).max())


def relu_model(shape: list[int | str], opset: int = 17, dtype: int = 1) -> onnx.ModelProto:
    """A model of y = Relu(x), and an output that no probe needs."""
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("z", dtype, shape)],
        value_info=[helper.make_tensor_value_info("y", dtype, shape)],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=3 if opset < 9 else 8)


def both(
    model: onnx.ModelProto, request: GramRequest, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The Gram of y = Relu(x) from the graph, features reordered, and from the host."""
    probed = probe(model, [request])
    onnx.checker.check_model(probed.model, full_check=True)
    uniforms = draw_uniforms(3, 1, probed.uniform_count)
    feed = {"x": x, probed.uniforms: uniforms}
    (result,) = Session(probed.model, threads=1, arena=False).run(feed, probed.outputs)
    order = request.from_tap_major
    return result[:, order[:, None], order], host_gram(request, np.maximum(x, 0), uniforms)


def window(
    kernel: tuple[int, ...],
    strides: int = 1,
    dilations: int = 1,
    pads: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> Window:
    rank = len(kernel)
    begin, end = pads or ((0,) * rank, (0,) * rank)
    return Window(kernel, (strides,) * rank, (dilations,) * rank, begin, end)


SAME = ((1, 1), (1, 1))
WINDOWS = {
    "1x1": (window((1, 1)), (9, 8)),
    "1x1 stride 2": (window((1, 1), strides=2), (9, 8)),
    "3x3": (window((3, 3), pads=SAME), (9, 8)),
    "3x3 stride 2": (window((3, 3), strides=2, pads=SAME), (9, 8)),
    "3x3 dilated": (window((3, 3), dilations=2, pads=((2, 2), (2, 2))), (9, 8)),
    "asymmetric": (window((2, 3), strides=2, pads=((0, 1), (1, 2))), (9, 8)),
    "mixed": (Window((3, 1), (2, 1), (1, 3), (1, 0), (0, 0)), (9, 8)),
    "1-d": (window((5,), strides=2, pads=((4,), (0,))), (23,)),
    "3-d": (window((2, 3, 1), pads=((0, 1, 0), (1, 1, 0))), (4, 5, 3)),
}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("parts", [1, 3, 6])
@pytest.mark.parametrize("name", WINDOWS)
def test_patches_agree(
    name: str, parts: int, dynamic: bool, sampled: bool, rng: np.random.Generator
) -> None:
    shape, extents = WINDOWS[name]
    spec = FeatureSpec("y", 2 + len(extents), 1, shape, parts)
    total = total_positions(spec, (None, 6, *extents))
    assert total is not None
    request = GramRequest(spec, 6, 7 if sampled else total)
    model = relu_model(["N", 6, *(["H", "W"] if dynamic and len(extents) == 2 else extents)])
    x = rng.standard_normal((4, 6, *extents)).astype(np.float32)
    graph, host = both(model, request, x)
    assert graph.shape == (parts, request.features + 1, request.features + 1)
    assert agree(graph, host)
    assert graph[0, -1, -1] == 4 * request.points


def test_patch_gram_by_hand() -> None:
    """Two channels of length 3, window of 2, one zero on the left: all six rows written out."""
    shape = window((2,), pads=((1,), (0,)))
    request = GramRequest(FeatureSpec("y", 3, 1, shape), 2, 3)
    x = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    rows = np.array([[0, 1, 0, 4, 1], [1, 2, 4, 5, 1], [2, 3, 5, 6, 1]])
    graph, host = both(relu_model([1, 2, 3]), request, x)
    np.testing.assert_array_equal(graph, [rows.T @ rows])
    np.testing.assert_array_equal(host, [rows.T @ rows])


CHANNEL_SPECS = {
    "Gemm": (FeatureSpec("y", 2, 1), (5, 12)),
    "Gemm of a column": (FeatureSpec("y", 2, 0), (12, 5)),
    "vector": (FeatureSpec("y", 1, 0), (12,)),
    "MatMul": (FeatureSpec("y", 3, 2), (3, 7, 12)),
    "MatMul rank 4": (FeatureSpec("y", 4, 3), (3, 2, 7, 12)),
    "channel mix": (FeatureSpec("y", 4, 1), (3, 12, 5, 2)),
    "channel mix, parts": (FeatureSpec("y", 4, 1, parts=4), (3, 12, 5, 2)),
    "heads apart": (FeatureSpec("y", 4, 3, parts=2, apart=1), (3, 2, 7, 6)),
    "heads apart, transposed": (FeatureSpec("y", 4, 2, parts=2, apart=1), (3, 2, 6, 7)),
    "steps before samples": (FeatureSpec("y", 3, 2, samples=1), (7, 3, 12)),
    "steps, directions, samples": (
        FeatureSpec("y", 4, 3, parts=2, apart=1, samples=2),
        (7, 2, 3, 6),
    ),
    "fold major": (FeatureSpec("y", 2, 1, fold=4), (5, 12)),
    "fold minor": (FeatureSpec("y", 2, 1, fold=4, fold_major=False), (5, 12)),
    "fold major rank 3": (FeatureSpec("y", 3, 2, fold=4), (5, 2, 12)),
    "fold minor rank 3": (FeatureSpec("y", 3, 1, fold=3, fold_major=False), (5, 12, 2)),
}


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", CHANNEL_SPECS)
def test_channel_values_agree(
    name: str, dynamic: bool, sampled: bool, rng: np.random.Generator
) -> None:
    spec, shape = CHANNEL_SPECS[name]
    total = total_positions(spec, shape)
    assert total is not None
    request = GramRequest(spec, 12, min(total, 3) if sampled else total)
    own = (spec.axis, spec.apart)
    axes = [f"d{i}" if dynamic and i not in own else n for i, n in enumerate(shape)]
    graph, host = both(relu_model(axes), request, rng.standard_normal(shape).astype(np.float32))
    assert agree(graph, host)


def test_fold_by_hand() -> None:
    values = np.arange(1.0, 7.0, dtype=np.float32)  # entry 0 .. 5
    for major, rows in ((True, [[1, 4], [2, 5], [3, 6]]), (False, [[1, 2], [3, 4], [5, 6]])):
        request = GramRequest(FeatureSpec("y", 2, 1, fold=3, fold_major=major), 6, 3)
        with_one = np.column_stack([rows, [1, 1, 1]])
        graph, host = both(relu_model([1, 6]), request, values[None])
        np.testing.assert_array_equal(graph, [with_one.T @ with_one])
        np.testing.assert_array_equal(host, [with_one.T @ with_one])


def test_heads_apart_by_hand() -> None:
    values = np.arange(1.0, 13.0, dtype=np.float32).reshape(1, 2, 3, 2)  # 2 heads, 3 positions
    request = GramRequest(FeatureSpec("y", 4, 3, parts=2, apart=1), 4, 3)
    rows = [np.column_stack([head, np.ones(3)]) for head in values[0]]
    graph, host = both(relu_model([1, 2, 3, 2]), request, values)
    np.testing.assert_array_equal(graph, [r.T @ r for r in rows])
    np.testing.assert_array_equal(host, [r.T @ r for r in rows])


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12, 13, 14, 18, 21, 23])
def test_every_opset(opset: int, rng: np.random.Generator) -> None:
    request = GramRequest(FeatureSpec("y", 4, 1, window((3, 3), pads=SAME), 2), 4, 9)
    model = relu_model(["N", 4, "H", "W"], opset)
    before = model.SerializeToString()
    x = rng.standard_normal((2, 4, 6, 5)).astype(np.float32)
    assert agree(*both(model, request, x))
    assert model.SerializeToString() == before


def test_half_precision_activations_are_summed_in_float32(rng: np.random.Generator) -> None:
    request = GramRequest(FeatureSpec("y", 4, 1, window((3, 3), pads=SAME)), 2, 30)
    x = (300 * rng.standard_normal((2, 2, 6, 5))).astype(np.float16)  # squares exceed float16
    assert agree(*both(relu_model([2, 2, 6, 5], dtype=TensorProto.FLOAT16), request, x))


@pytest.mark.parametrize(
    "wrong",
    [
        window((3, 3), pads=((0, 1), (2, 1))),
        window((3, 3), pads=((1, 1), (1, 1)), strides=2),
        window((3, 3), pads=((2, 2), (2, 2)), dilations=2),
    ],
)
def test_comparison_rejects_a_wrong_window(wrong: Window, rng: np.random.Generator) -> None:
    spec = FeatureSpec("y", 4, 1, window((3, 3), pads=SAME))
    x = rng.standard_normal((4, 6, 9, 8)).astype(np.float32)
    model = relu_model(["N", 6, 9, 8])
    graph, host = both(model, GramRequest(spec, 6, 40), x)
    other, _ = both(model, GramRequest(replace(spec, window=wrong), 6, 40), x)
    assert agree(graph, host)
    assert not agree(other, host)


def test_comparison_rejects_other_positions_and_feature_orders(rng: np.random.Generator) -> None:
    request = GramRequest(FeatureSpec("y", 4, 1, window((3, 3), pads=SAME)), 6, 10)
    x = rng.standard_normal((4, 6, 9, 8)).astype(np.float32)
    graph, host = both(relu_model(["N", 6, 9, 8]), request, x)
    elsewhere = host_gram(request, np.maximum(x, 0), draw_uniforms(3, 2, 10))
    tap_major = host[:, np.argsort(request.from_tap_major)][..., np.argsort(request.from_tap_major)]
    assert agree(graph, host)
    assert not agree(graph, elsewhere)
    assert not agree(graph, tap_major)


def test_probed_model_computes_only_what_the_grams_need() -> None:
    model = relu_model(["N", 4, 9, 8])
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "unused")
    model.graph.initializer.append(weight)
    probed = probe(model, [GramRequest(FeatureSpec("y", 4, 1), 4, 5)])
    assert [output.name for output in probed.model.graph.output] == list(probed.outputs)
    operators = [node.op_type for node in probed.model.graph.node]
    assert "Relu" in operators
    assert "Neg" not in operators
    assert weight.name not in [w.name for w in probed.model.graph.initializer]


def test_graph_input_can_be_probed(rng: np.random.Generator) -> None:
    request = GramRequest(FeatureSpec("x", 2, 1), 3, 1)
    probed = probe(relu_model(["N", 3]), [request])
    x = rng.standard_normal((6, 3)).astype(np.float32)
    feed = {"x": x, probed.uniforms: draw_uniforms(0, 0, 1)}
    (gram,) = Session(probed.model, threads=1).run(feed)
    assert agree(gram, host_gram(request, x, draw_uniforms(0, 0, 1)))


def test_names_do_not_collide(rng: np.random.Generator) -> None:
    request = GramRequest(FeatureSpec("y", 2, 1), 3, 1)
    first = probe(relu_model(["N", 3]), [request])
    second = probe(
        first.model, [replace(request, spec=FeatureSpec(first.outputs[0], 3, 2), extent=4)]
    )
    assert second.uniforms != first.uniforms
    onnx.checker.check_model(second.model, full_check=True)
    x = rng.standard_normal((6, 3)).astype(np.float32)
    u = draw_uniforms(0, 0, 1)
    (gram,) = Session(second.model, threads=1).run({"x": x, first.uniforms: u, second.uniforms: u})
    assert gram.shape == (1, 5, 5)


def test_subgraph_captures_stay_alive(rng: np.random.Generator) -> None:
    """The branches read a node and a weight that no node of the graph itself reads."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,3] x, bool c) => (float[N,3] z) <float[3] w = {1, 2, 3}> {
          a = Neg(x)
          y = If (c) <then_branch = t () => (float[N,3] p) { p = Mul(a, w) },
                      else_branch = e () => (float[N,3] q) { q = Identity(a) }>
          z = Relu(y)
        }"""
    )
    request = GramRequest(FeatureSpec("y", 2, 1), 3, 1)
    probed = probe(model, [request])
    x = rng.standard_normal((6, 3)).astype(np.float32)
    uniforms = draw_uniforms(0, 0, 1)
    feed = {"x": x, "c": np.array(True), probed.uniforms: uniforms}
    (gram,) = Session(probed.model, threads=1).run(feed)
    assert agree(gram, host_gram(request, -x * np.float32([1, 2, 3]), uniforms))


def test_exposed_outputs_the_activations(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3)).astype(np.float32)
    model = exposed(relu_model(["N", 3]), ["y"])
    (y,) = Session(model, threads=1).run({"x": x})
    np.testing.assert_array_equal(y, np.maximum(x, 0))


def test_known_shapes_are_inferred_where_they_are_not_recorded() -> None:
    model = relu_model(["N", 4, "H", 8])
    recorded = known_shapes(model, ["x", "y"])
    del model.graph.value_info[:]
    assert known_shapes(model, ["x", "y", "absent"]) == recorded
    assert recorded == {"x": (None, 4, None, 8), "y": (None, 4, None, 8)}


def test_graph_grams_of_batches_add_up(rng: np.random.Generator) -> None:
    """All positions: two half batches give the Gram of the whole."""
    request = GramRequest(FeatureSpec("y", 4, 1, window((3, 3), pads=SAME)), 3, 72)
    model = relu_model(["N", 3, 9, 8])
    x = rng.standard_normal((6, 3, 9, 8)).astype(np.float32)
    gram = Gram(1, request.features)
    for half in (x[:2], x[2:]):
        gram.add(both(model, request, half)[0])
    assert agree(both(model, request, x)[0], gram.sums)
    assert gram.rows == 6 * 72
