"""Masked positions count nowhere: in no Gram, no regression and no output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from masked_networks import FEED_FORWARD, FLAT, encoder, padded_tokens
from micro_models import build, ints

from onnxprune import Options, Result, Target, prune
from onnxprune.arrays import Array, Feed
from onnxprune.calibration import load_calibration
from onnxprune.canonical import canonicalise
from onnxprune.comparison import OutputDistance
from onnxprune.errors import CalibrationError
from onnxprune.inputs import input_specs, mask_of
from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.row_layout import POSITION, SAMPLE, RowLayout
from onnxprune.row_mask import RowMask, add_counted
from onnxprune.sampling import draw_uniforms
from onnxprune.statistics import BackEnd, collect

RELATIVE = 1e-5
"""float32 sums of a hundred products, in another order."""
MASK = np.array([[1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 1]])
SENTENCES = 40


# --- which rows ---


@pytest.mark.parametrize(
    ("factors", "counted"),
    [
        ((SAMPLE, POSITION), MASK),
        ((POSITION, SAMPLE), MASK.T),
        ((SAMPLE, 2, POSITION), np.repeat(MASK, 2, axis=0)),
        ((SAMPLE, POSITION, 2), np.repeat(MASK, 2, axis=1)),
        ((2, POSITION, SAMPLE), np.concatenate([MASK.T, MASK.T])),
    ],
)
def test_rows_that_count(factors: tuple[int, ...], counted: Array) -> None:
    layout = RowLayout(factors)
    assert np.array_equal(layout.counted(MASK), counted.reshape(-1) == 1)
    every = layout.drawn(MASK, 99, draw_uniforms(0, 0, 99))
    assert np.array_equal(np.sort(every), np.flatnonzero(counted))


def test_rows_are_drawn_evenly_from_what_counts() -> None:
    """Each sample gives two rows, however long it is; over many draws all of them equally often."""
    mask = np.array([[1] * 6 + [0] * 3, [0] * 5 + [1] * 4])
    seen = np.zeros(mask.size)
    for shard in range(1000):
        rows = RowLayout((SAMPLE, POSITION)).drawn(mask, 2, draw_uniforms(0, shard, 2))
        assert np.bincount(rows // 9).tolist() == [2, 2]
        seen[rows] += 1
    expected = (mask * 2 / mask.sum(axis=1, keepdims=True)).reshape(-1) * 1000
    assert np.abs(seen - expected).max() < 5 * np.sqrt(expected.max())  # of a binomial count


def test_padding_draws_the_same_words() -> None:
    uniforms = draw_uniforms(0, 0, 3)
    layout = RowLayout((SAMPLE, POSITION))
    wide = np.pad(MASK, ((0, 0), (0, 5)))
    rows, others = (layout.drawn(mask, 2, uniforms) for mask in (MASK, wide))
    assert np.array_equal(np.divmod(rows, 4), np.divmod(others, 9))


# --- where samples and positions went in the graph ---


def mask_of_graph(nodes: str, weights: dict[str, object], extents: str = "N,L") -> RowMask:
    model = build(
        f"u = Unsqueeze (mask, last) f = Cast <to=1> (u) m = Mul (x, f) {nodes}",
        {"last": ints(2)} | weights,  # type: ignore[arg-type]
        inputs=f"float[{extents},6] x, int64[{extents}] mask",
        outputs="float[A,B,C] y",
    )
    return RowMask.of(onnx.shape_inference.infer_shapes(model), "mask")


@pytest.mark.parametrize("extents", ["N,L", "N,7", "1,7", "5,7"])
@pytest.mark.parametrize(
    ("nodes", "spec", "factors"),
    [
        ("y = MatMul (m, w)", FeatureSpec("y", 3, 2), (SAMPLE, POSITION)),
        ("y = Transpose <perm=[1,0,2]> (m)", FeatureSpec("y", 3, 2), (POSITION, SAMPLE)),
        ("t = MatMul (m, w) y = Reshape (t, flat)", FeatureSpec("y", 2, 1), (SAMPLE, POSITION)),
        (
            "t = Transpose <perm=[1,0,2]> (m) f2 = Reshape (t, flat) y = MatMul (f2, w)",
            FeatureSpec("y", 2, 1),
            (POSITION, SAMPLE),
        ),
        (
            "r = Reshape (m, heads) y = Transpose <perm=[0,2,1,3]> (r)",
            FeatureSpec("y", 4, 3),
            (SAMPLE, 2, POSITION),
        ),
        (
            "r = Reshape (m, heads) y = Transpose <perm=[0,2,1,3]> (r)",
            FeatureSpec("y", 4, 3, parts=2, apart=1),
            (SAMPLE, POSITION),
        ),
        (
            "y = Transpose <perm=[0,2,1]> (m)",
            FeatureSpec("y", 3, 1, Window((3,), (1,), (1,), (1,), (1,))),
            (SAMPLE, POSITION),
        ),
        ("y = ReduceMean <axes=[1], keepdims=0> (m)", FeatureSpec("y", 2, 1), None),
        ("y = MatMul (m, w)", FeatureSpec("y", 3, 1), None),
        (
            "y = Transpose <perm=[0,2,1]> (m)",
            FeatureSpec("y", 3, 1, Window((3,), (2,), (1,), (1,), (1,))),
            None,
        ),
    ],
)
def test_layouts(
    nodes: str, spec: FeatureSpec, factors: tuple[int, ...] | None, extents: str
) -> None:
    weights = {"w": (6, 6), "flat": ints(-1, 6), "heads": ints(0, 0, 2, 3)}
    used = {name: w for name, w in weights.items() if f" {name})" in nodes}
    layout = mask_of_graph(nodes, used, extents).layout(spec)
    if extents == "1,7" and layout is not None:  # with one sample, orders are the same
        assert factors is not None
        assert np.array_equal(
            layout.counted(np.eye(7)[:1]), RowLayout(factors).counted(np.eye(7)[:1])
        )
    else:
        assert (None if layout is None else layout.factors) == factors


# --- Grams, beside those of samples without padding ---


def layers(model: onnx.ModelProto) -> list[FeatureSpec]:
    flat = any(value.name == "flat" for value in model.graph.value_info)
    return [
        FeatureSpec("n0", 3, 2),
        FeatureSpec("qh", 4, 3, parts=4, apart=1),
        FeatureSpec("kt", 4, 2, parts=4, apart=1),
        FeatureSpec("r", 2, 1) if flat else FeatureSpec("r", 3, 2),
        FeatureSpec("s2", 3, 2),
    ]


def unpadded(feed: Feed) -> list[Feed]:
    """Every sentence by itself, without padding."""
    lengths = feed["mask"].sum(axis=1)
    return [
        {name: array[i : i + 1, :length] for name, array in feed.items()}
        for i, length in enumerate(lengths)
    ]


@pytest.mark.parametrize("back_end", ["graph", "host"])
@pytest.mark.parametrize("middle", [FEED_FORWARD, FLAT])
def test_grams_are_those_without_padding(middle: str, back_end: BackEnd) -> None:
    model = canonicalise(encoder(middle))
    specs = layers(model)
    feed = padded_tokens(9, SENTENCES)
    batches = [{name: array[i : i + 8] for name, array in feed.items()} for i in range(0, 40, 8)]
    mask = RowMask.of(model, "mask")
    found = collect(model, specs, batches, samples=SENTENCES, back_end=back_end, mask=mask)
    expected = collect(
        model, specs, unpadded(feed), samples=SENTENCES, rows_per_feature=40, back_end="host",
        mask=mask,
    )  # fmt: skip
    for spec in specs:
        assert found[spec].rows == feed["mask"].sum()
        np.testing.assert_allclose(
            found[spec].mean(), expected[spec].mean(), atol=RELATIVE * expected[spec].mean().max()
        )
    without = collect(model, specs, batches, samples=SENTENCES, back_end=back_end)
    assert not np.allclose(without[specs[0]].mean(), expected[specs[0]].mean(), rtol=0.1)


def test_convolutions_along_the_sequence() -> None:
    """Rows are windows; both back ends take those whose position counts."""
    model = build(
        "u = Unsqueeze (mask, last) f = Cast <to=1> (u) m = Mul (x, f)"
        " t = Transpose <perm=[0,2,1]> (m) y = Conv <pads=[1,1]> (t, w)",
        {"last": ints(2), "w": (4, 6, 3)},
        inputs="float[N,L,6] x, int64[N,L] mask",
        outputs="float[N,4,L] y",
    )
    model = onnx.shape_inference.infer_shapes(model)
    spec = FeatureSpec("t", 3, 1, Window((3,), (1,), (1,), (1,), (1,)), parts=2)
    rng = np.random.default_rng(0)
    feed = {"x": rng.standard_normal((3, 4, 6)).astype(np.float32), "mask": MASK}
    mask = RowMask.of(model, "mask")
    graph, host = (
        collect(model, [spec], [feed], samples=3, back_end=back_end, mask=mask)[spec]
        for back_end in ("graph", "host")
    )
    t = np.pad((feed["x"] * MASK[..., None]).transpose(0, 2, 1), ((0, 0), (0, 0), (1, 1)))
    windows = [t[n, :, p : p + 3] for n, p in np.argwhere(MASK)]
    rows = np.stack([np.append(w[:3].reshape(-1), 1.0) for w in windows])
    for found in (graph, host):
        assert found.rows == MASK.sum()
        np.testing.assert_allclose(found.sums[0], rows.T @ rows, rtol=RELATIVE, atol=RELATIVE)


# --- whole runs ---


def pruned(
    length: int,
    mask: str | None,
    middle: str = FEED_FORWARD,
    fixed: str = "L",
    allocation: str = "uniform",
) -> Result:
    options = Options(mask=mask, latency=False, allocation=allocation)
    samples = padded_tokens(length, SENTENCES)
    return prune(encoder(middle, fixed), samples, Target("params", 0.7), options=options)


def alike(one: Result, other: Result) -> bool:
    pairs = [
        (array, other.weights.arrays[name][place])
        for name, arrays in one.weights.arrays.items()
        for place, array in enumerate(arrays)
    ]
    return all(np.allclose(a, b, rtol=RELATIVE, atol=RELATIVE * np.abs(a).max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("middle", "allocation"),
    [
        pytest.param(FEED_FORWARD, "uniform", marks=pytest.mark.slow),
        pytest.param(FEED_FORWARD, "sensitivity", marks=pytest.mark.slow),
        pytest.param(FLAT, "sensitivity", marks=pytest.mark.slow),
    ],
    ids=["uniform", "default", "flat"],
)
def test_padding_changes_neither_plan_nor_weights(middle: str, allocation: str) -> None:
    tight, loose = (pruned(length, "mask", middle, allocation=allocation) for length in (7, 12))
    assert tight.plan == loose.plan
    assert tight.plan.edits
    assert alike(tight, loose)
    (one,), (other,) = tight.report.outputs, loose.report.outputs
    assert one.relative_error == pytest.approx(other.relative_error, rel=RELATIVE)
    assert one.samples == 4  # sentences, not words


@pytest.mark.slow
def test_without_the_mask_padding_changes_weights() -> None:
    tight, loose = (pruned(length, None) for length in (7, 12))
    assert tight.plan != loose.plan or not alike(tight, loose)


@pytest.mark.slow
def test_fixed_lengths() -> None:
    """Two models that take tokens of fixed lengths, as most exports do."""
    tight, loose = (pruned(length, "mask", fixed=str(length)) for length in (7, 12))
    assert [edit.keep for edit in tight.plan.edits] == [edit.keep for edit in loose.plan.edits]
    assert alike(tight, loose)


def test_only_positions_that_count_are_compared() -> None:
    mask = RowMask.of(canonicalise(encoder()), "mask")
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((3, 4, 5))
    changed = reference + (MASK[..., None] == 0)
    found, other = OutputDistance("y", scores=False), OutputDistance("y", scores=False)
    add_counted(found, reference, changed, mask, MASK)
    assert found.relative_error == 0
    assert found.samples == 3
    add_counted(other, reference, reference + (MASK[..., None] == 1), mask, MASK)
    squares = (reference[MASK == 1] ** 2).sum()
    assert other.relative_error == pytest.approx(np.sqrt(MASK.sum() * 5 / squares))


# --- refusals ---


def test_inputs_that_are_no_mask() -> None:
    model = canonicalise(encoder())
    with pytest.raises(CalibrationError, match=r"--mask pad: no such input.*'ids', 'mask'"):
        RowMask.of(model, "pad")
    image = build("y = Relu (x)", {})
    with pytest.raises(CalibrationError, match=r"has two axes, samples and positions.*has 4"):
        RowMask.of(image, "x")


def test_a_sample_that_is_all_padding_is_named() -> None:
    model = encoder()
    feed = padded_tokens(7, 5)
    feed["mask"][3] = 0
    samples = load_calibration(feed, input_specs(model))
    with pytest.raises(CalibrationError, match="all of sample 3 is masked"):
        mask_of(canonicalise(model), samples, "mask")


def test_a_mask_that_reaches_no_layer_is_refused() -> None:
    model = build(
        "p = ReduceMean <axes=[1], keepdims=0> (x) f = Cast <to=1> (mask)"
        " z = ReduceSum <keepdims=0> (f) q = Add (p, z)"
        " a = Gemm (q, w1) h = Relu (a) y = Gemm (h, w2)",
        {"w1": (6, 8), "w2": (8, 3)},
        inputs="float[N,L,6] x, int64[N,L] mask",
        outputs="float[N,3] y",
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 4, 6)).astype(np.float32)
    feed = {"x": x, "mask": np.ones((30, 4), np.int64)}
    options = Options(mask="mask", latency=False)
    with pytest.raises(CalibrationError, match="it would change nothing"):
        prune(model, feed, Target("params", 0.7), options=options)
