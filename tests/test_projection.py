"""Which rows of a projection make the entries of queries and keys, and when they can be mixed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_attention import ATTEND, DIVIDE, PROJECT, SHAPES, TOKENS
from micro_attention import LINEAR as WEIGHTS
from micro_models import MICRO_MODELS, Weight, build, floats, ints, scalar
from oracles import random_feed

from onnxprune import canonical as canonical_form
from onnxprune.canonical import canonicalise
from onnxprune.concrete import shapes_in_small
from onnxprune.extract import exposed
from onnxprune.groups import find_groups
from onnxprune.linear_map import Contraction, HeadsInARow
from onnxprune.network import Network
from onnxprune.projection import Projection, Projections
from onnxprune.runtime import Session

TURNED = ("attention, rotated", "RotaryEmbedding", "com.microsoft RotaryEmbedding")
REPEATED = ("attention, grouped queries",)
ATTENTIONS = [name for name in MICRO_MODELS if "ttention" in name and "otary" not in name]


def scores_of(network: Network) -> Contraction:
    """The product of queries and keys: the one whose places are a group."""
    (name,) = {name for group in network.groups for name in group.contractions}
    return network.contractions[name]


def found(model: onnx.ModelProto, place: int) -> tuple[Network, Contraction, Projection | None]:
    canonical = canonicalise(model)
    network = find_groups(canonical)
    product = scores_of(network)
    heads = (product.heads, product.others)[place] if isinstance(product, HeadsInARow) else None
    sizes = shapes_in_small(canonical)
    return network, product, Projections(network, sizes).of(product, place, heads)


def by_head(product: Contraction, place: int, values: np.ndarray, heads: int) -> np.ndarray:
    """A factor as rows of places, shape (heads, rows, places); heads last of the leading axes."""
    axis = (product.a_axis, product.b_axis)[place]
    values = np.moveaxis(values, axis, -1)
    if isinstance(product, HeadsInARow):
        values = values.reshape(*values.shape[:-1], heads, -1)
        return np.moveaxis(values, -2, 0).reshape(heads, -1, values.shape[-1])
    values = values.reshape(-1, heads, *values.shape[-2:])
    return values.swapaxes(0, 1).reshape(heads, -1, values.shape[-1])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", [n for n in ATTENTIONS if n not in (*TURNED, *REPEATED)])
def test_the_rows_make_the_entries(name: str, place: int, rng: np.random.Generator) -> None:
    """Of what onnxruntime computes: every entry (head, place) is its row times some input row."""
    model = MICRO_MODELS[name]()
    _, product, projection = found(model, place)
    assert projection is not None
    factor = product.node.inputs[place].name
    linear_map = projection.linear_map
    canonical = canonicalise(model)
    names = [factor, linear_map.x.name]
    feed = random_feed(canonical, rng, batch=2, size=5)
    inner = [n for n in names if n not in feed]
    values = feed | dict(
        zip(inner, Session(exposed(canonical, inner)).run(feed, inner), strict=True)
    )
    x = values[linear_map.x.name].reshape(-1, values[linear_map.x.name].shape[-1])
    made = x @ linear_map.rows().T + linear_map.bias_vector() + projection.added
    wanted = made[:, projection.rows].swapaxes(0, 1)  # (heads, rows, places)
    seen = by_head(product, place, values[factor], len(projection.rows))
    for head in range(len(wanted)):
        assert rows_of(seen[head]) == rows_of(wanted[head])


def rows_of(values: np.ndarray) -> list[list[float]]:
    """Rows in an order of their own: which position is which does not matter here."""
    rounded = np.round(values.astype(np.float64), 3) + 0.0
    return sorted(rounded.tolist())


@pytest.mark.parametrize("name", TURNED)
def test_what_is_rotated_cannot_be_mixed(name: str) -> None:
    assert found(MICRO_MODELS[name](), 0)[2] is None
    assert found(MICRO_MODELS[name](), 1)[2] is None


@pytest.mark.parametrize("name", REPEATED)
def test_keys_that_are_repeated_cannot_be_mixed(name: str) -> None:
    assert found(MICRO_MODELS[name](), 1)[2] is None


def attention(
    nodes: str, weights: dict[str, Weight] | None = None, outputs: str = ""
) -> onnx.ModelProto:
    given = WEIGHTS | SHAPES | (weights or {})
    used = {name: w for name, w in given.items() if f"{name})" in nodes.replace(",", ")")}
    return build(nodes, used, inputs=TOKENS, outputs=f"float[N,7,8] y {outputs}")


WHOLE = f"{PROJECT} {DIVIDE} {ATTEND}"


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        (WHOLE.replace("qb = Add (q", "qm = Mul (q, gain) qb = Add (qm"), {"gain": (24,)}),
        (WHOLE.replace("qb = Add (q", "qm = Add (q, late) qb = Add (qm"), {"late": (24,)}),
        (WHOLE.replace("(q, bq)", "(q, places)"), {"places": (1, 7, 24)}),
        ("x3 = Concat <axis=-1> (x, x, x) " + WHOLE.replace("(q, bq)", "(q, x3)"), {}),
        (WHOLE.replace("k = MatMul (x, wk)", "k = MatMul (x, wq)"), {}),
        (WHOLE.replace("y = MatMul (m, wo)", "e = ReduceMean <axes=[2]> (qb) o = MatMul (m, wo)"
                       " y = Add (o, e)"), {}),
        (WHOLE.replace("y = MatMul (m, wo)", "qz = Slice (qb, i0, i1, i1) e = ReduceMean"
                       " <axes=[2]> (qz) o = MatMul (m, wo) y = Add (o, e)"),
         {"i0": ints(0), "i1": ints(1)}),
    ],
    ids=["a gain for every place", "two constants", "a constant for every position",
         "another activation", "tied weights", "read twice", "read twice, at one position"],
)  # fmt: skip
def test_queries_that_cannot_be_mixed(
    nodes: str, weights: dict[str, Weight], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canonical_form, "SHARED_CONSTANT_LIMIT", 100)  # weights stay tied
    canonical = canonicalise(attention(nodes, weights))
    network = find_groups(canonical)
    product = next(p for p in network.contractions.values() if "qh" in p.node.inputs[0].name)
    assert Projections(network, shapes_in_small(canonical)).of(product, 0) is None


def test_one_number_may_multiply_queries() -> None:
    nodes = WHOLE.replace("qb = Add (q, bq)", "qm = Add (q, bq) qb = Div (qm, root)")
    nodes = nodes.replace("scaled = Div (s, root)", "scaled = Div (s, eight)")
    _, _, projection = found(attention(nodes, {"eight": scalar(8)}), 0)
    assert projection is not None
    assert projection.added.any()


def test_a_gemm_with_its_own_bias() -> None:
    nodes = "flat = Reshape (x, rows) qb = Gemm (flat, wq, bq) " + WHOLE.split("(q, bq)")[1]
    model = attention(nodes, {"rows": ints(-1, 8), "divided": ints(-1, 7, 4, 6)})
    _, _, projection = found(model, 0)
    assert projection is not None
    np.testing.assert_array_equal(projection.rows, np.arange(24).reshape(4, 6))
    assert not projection.added.any()
    assert projection.linear_map.bias_vector().any()


def test_maps_of_one_by_one_convolutions() -> None:
    """Channels first: q (N, heads * places, H, W) becomes (N, heads, H * W, places)."""
    model = build(
        """
        q = Conv (x, wq, bq) k = Conv (x, wk) v = Conv (x, wv)
        q4 = Reshape (q, four) qh = Transpose <perm=[0,1,3,2]> (q4)
        kt = Reshape (k, four) v4 = Reshape (v, four) vh = Transpose <perm=[0,1,3,2]> (v4)
        s = MatMul (qh, kt) p = Softmax <axis=-1> (s) h = MatMul (p, vh)
        t = Transpose <perm=[0,1,3,2]> (h) m = Reshape (t, map) y = Conv (m, wo)
        """,
        {
            "wq": (12, 3, 1, 1), "bq": (12,), "wk": (12, 3, 1, 1), "wv": (12, 3, 1, 1),
            "wo": (4, 12, 1, 1), "four": ints(0, 2, 6, 64), "map": ints(0, 12, 8, 8),
        },
        inputs="float[N,3,8,8] x",
        outputs="float[N,4,8,8] y",
    )  # fmt: skip
    for place in (0, 1):
        _, _, projection = found(model, place)
        assert projection is not None
        np.testing.assert_array_equal(projection.rows, np.arange(12).reshape(2, 6))


def test_mixed_rows_compute_the_mixed_entries() -> None:
    rng = np.random.default_rng(0)
    _, _, projection = found(MICRO_MODELS["attention"](), 0)
    assert projection is not None
    linear_map = projection.linear_map
    mix, keep = rng.standard_normal((2, 6)), np.array([1, 4])
    bias = floats(*rng.standard_normal(24))
    weight, new_bias = projection.mixed(linear_map.weight.values, bias, {2: mix}, {2: keep})
    x = rng.standard_normal((5, 8))
    before = x @ linear_map.weight.values + bias + projection.added
    after = x @ weight + new_bias + projection.added
    np.testing.assert_allclose(after[:, [13, 16]], before[:, 12:18] @ mix.T, rtol=1e-4, atol=1e-5)
    untouched = np.setdiff1d(np.arange(24), [13, 16])
    np.testing.assert_array_equal(weight[:, untouched], linear_map.weight.values[:, untouched])
    np.testing.assert_array_equal(new_bias[untouched], bias[untouched])
