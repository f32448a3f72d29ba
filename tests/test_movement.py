"""Moving entries: what onnxruntime does with them is what is done to arrays."""

from __future__ import annotations

import numpy as np
import pytest
from micro_models import Weight, build, floats, ints

from onnxprune.model import import_graph
from onnxprune.movement import NotMovedError, moved, moved_input
from onnxprune.runtime import Session

X = "float[2,6,4] x"
ANY = "float[A,B,C] y"

MOVES: dict[str, tuple[str, dict[str, Weight], int]] = {
    "Transpose": ("y = Transpose <perm=[2,0,1]> (x)", {}, 17),
    "Transpose, reversed": ("y = Transpose (x)", {}, 17),
    "Reshape": ("y = Reshape (x, s)", {"s": ints(0, -1, 8)}, 17),
    "Squeeze": ("z = Reshape (x, s) y = Squeeze (z, a)", {"s": ints(2, 1, 6, 4), "a": ints(1)}, 17),
    "Squeeze, opset 12": ("z = Reshape (x, s) y = Squeeze (z)", {"s": ints(2, 1, 6, 4)}, 12),
    "Unsqueeze": ("z = Reshape (x, s) y = Unsqueeze (z, a)", {"s": ints(12, 4), "a": ints(-1)}, 17),
    "Slice": (
        "y = Slice (x, b, e, a, s)",
        {"b": ints(-5, 1), "e": ints(1 << 40, 3), "a": ints(1, 2), "s": ints(2, 1)},
        17,
    ),
    "Slice, opset 9": ("y = Slice <starts=[1], ends=[5], axes=[1]> (x)", {}, 9),
    "Gather": ("y = Gather <axis=1> (x, i)", {"i": ints(3, -1, 0)}, 17),
    "Identity": ("y = Identity (x)", {}, 17),
}


@pytest.mark.parametrize("name", MOVES)
def test_entries_go_where_onnxruntime_sends_them(name: str) -> None:
    nodes, weights, opset = MOVES[name]
    model = build(nodes, weights, inputs=X, outputs=ANY, opset=opset)
    values = np.arange(48, dtype=np.float32).reshape(2, 6, 4)
    (wanted,) = Session(model).run({"x": values})
    for node in import_graph(model).nodes:
        (values,) = moved(node, moved_input(node), values)
    np.testing.assert_array_equal(values, wanted)


def test_every_output_of_a_split() -> None:
    model = build(
        "y, z = Split <axis=1> (x, s)", {"s": ints(2, 4)}, inputs=X, outputs=f"{ANY}, {ANY[:-1]}z"
    )
    values = np.arange(48, dtype=np.float32).reshape(2, 6, 4)
    (node,) = import_graph(model).nodes
    for found, wanted in zip(
        moved(node, node.inputs[0], values), Session(model).run({"x": values}), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("nodes", ["y = Mul (x, c)", "y = Mul (c, x)", "y = Div (x, c)"])
def test_one_number_acts_on_all_entries_alike(nodes: str) -> None:
    (node,) = import_graph(build(nodes, {"c": floats(2)}, inputs=X, outputs=ANY)).nodes
    values = np.zeros((2, 6, 4))
    np.testing.assert_array_equal(moved(node, moved_input(node), values)[0], values)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ("y = Mul (x, c)", {"c": (4,)}),
        ("y = Div (c, x)", {"c": floats(2)}),
        ("y = Relu (x)", {}),
        ("y = Mul (x, x)", {}),
        ("y = Slice (x, b, e, a, s)", {"b": ints(5), "e": ints(0), "a": ints(1), "s": ints(-1)}),
        ("y = Reshape (x, s)", {"s": ints(5, -1, 2)}),
    ],
)
def test_what_computes_moves_nothing(nodes: str, weights: dict[str, Weight]) -> None:
    (node,) = import_graph(build(nodes, weights, inputs=X, outputs=ANY)).nodes
    with pytest.raises(NotMovedError):
        moved(node, moved_input(node), np.zeros((2, 6, 4)))


def test_computed_shapes_and_indices_move_nothing() -> None:
    model = build(
        "n = Shape (x) z = Reshape (x, n) y = Gather (z, n)", {}, inputs=X, outputs="float[A,B] y"
    )
    for node in import_graph(model).nodes[1:]:
        with pytest.raises(NotMovedError, match="computed"):
            moved(node, node.inputs[0], np.zeros((2, 6, 4)))
