"""Random inputs are such that models accept them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import build

from onnxprune.errors import OnnxPruneError
from onnxprune.random_inputs import index_limits, random_feed
from onnxprune.run_shapes import run_shapes
from onnxprune.runtime import Session


def feed_of(model: onnx.ModelProto, batch: int = 64) -> dict:
    return random_feed(model, run_shapes(model, {}, batch, "the model"))


def embedding(lookups: str, inputs: str = "int64[N,4] i", **weights: object) -> onnx.ModelProto:
    return build(lookups, {"w": (7, 3), **weights}, inputs=inputs, outputs="float[N,A,B] y")


@pytest.mark.parametrize(
    "lookups",
    [
        "y = Gather (w, i)",
        "c = Cast <to=6> (i) y = Gather (w, c)",
        "u = Unsqueeze (i, one) s = Squeeze (u, one) y = Gather (w, s)",
        "t = Transpose (i) g = Gather (w, t) y = Transpose <perm=[1,0,2]> (g)",
        "v = Transpose (w) g = Gather <axis=1> (v, i) y = Transpose <perm=[1,2,0]> (g)",
    ],
)
def test_indices_lie_in_the_table_that_they_are_looked_up_in(lookups):
    """As many rows as there are come up, so that the table is read as in use."""
    model = embedding(lookups, one=np.array([1], np.int64))
    found = feed_of(model)
    assert set(found["i"].ravel()) == set(range(7))
    assert found["i"].shape == (64, 4)
    Session(model).run(found)


def test_the_smallest_table_counts():
    model = embedding("a = Gather (w, i) b = Gather (v, i) y = Add (a, b)", v=(2, 3))
    assert index_limits(model, {"i": (1, 4)}) == {"i": 2}
    Session(model).run(feed_of(model))


def test_tables_of_half_floats_and_depths_of_one_hot():
    model = embedding(
        "h = Cast <to=10> (w) g = Gather (h, i) y = Cast <to=1> (g)",
    )
    assert index_limits(model, {"i": (1, 4)}) == {"i": 7}
    model = embedding(
        "y = OneHot (i, depth, values)",
        depth=np.array(5, np.int64),
        values=np.array([0, 1], np.float32),
    )
    assert index_limits(model, {"i": (1, 4)}) == {"i": 5}


def test_tables_inside_a_branch_count_too():
    body = "then_branch = then () => (float[N,4,3] t) { t = Gather (w, i) }"
    other = "else_branch = other () => (float[N,4,3] e) { e = Gather (w, i) }"
    model = embedding(f"y = If <{body}, {other}> (c)", inputs="bool c, int64[N,4] i")
    assert index_limits(model, {"i": (1, 4), "c": ()}) == {"i": 7}


def test_masks_cover_nothing_pixels_are_any_and_floats_are_in_range():
    model = build(
        "f = Cast <to=1> (m) p = Cast <to=1> (u) b = Cast <to=1> (k) "
        "s = Add (x, f) r = Add (s, p) y = Add (r, b)",
        {},
        inputs="float[N,8] x, int64[N,8] m, uint8[N,8] u, bool[N,8] k",
        outputs="float[N,8] y",
    )
    found = feed_of(model)
    assert found["m"].min() == found["m"].max() == 1
    assert found["k"].all()
    assert found["u"].max() > 200
    assert 0 <= found["x"].min() < 0.1 < 0.9 < found["x"].max() < 1
    assert not np.array_equal(found["x"][0], found["x"][1])
    Session(model).run(found)


def test_text_is_refused():
    model = build("y = Identity (x)", {}, inputs="string[N,8] x", outputs="string[N,8] y")
    with pytest.raises(OnnxPruneError, match="give samples with --data"):
        feed_of(model)
