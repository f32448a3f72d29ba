"""Micro models of what exporters write around channels: shuffles, computed shapes, layouts, caches.

They register into ``micro_models.MICRO_MODELS``, as those for single operators do.
"""

from __future__ import annotations

import numpy as np
from micro_models import (
    MICRO_MODELS,
    SCORES,
    Builder,
    Weight,
    chain,
    floats,
    ints,
    whole,
)

BEFORE = set(MICRO_MODELS)

# --- channel shuffles ---------------------------------------------------------------------------

SHUFFLED: dict[str, Weight] = {
    "w1": (4, 3, 3, 3),
    "w3": (4, 3, 3, 3),
    "w4": (4, 4, 3, 3),
    "w2": (4, 8, 1, 1),
}


def shuffled(nodes: str, weights: dict[str, Weight], **options: object) -> Builder:
    """Two branches joined to ``k``, the nodes to ``s``, and halves of it as in ShuffleNet 2."""
    return whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) b = Conv <pads=[1,1,1,1]> (x, w3)"
        f" k = Concat <axis=1> (a, b) {nodes}"
        " p, q = Split <axis=1> (s, half) d = Conv <pads=[1,1,1,1]> (q, w4) e = Relu(d)"
        " h = Concat <axis=1> (p, e) y = Conv(h, w2)",
        SHUFFLED | {"half": ints(4, 4)} | weights,
        **options,
    )


SWAP = "m = Transpose <perm=[0,2,1,3,4]> (l)"
# Batch, height and width read from the tensor itself, as TorchScript writes view(n, g, c, h, w).
VIEW = (
    " shape = Shape(k) n = Gather <axis=0> (shape, i0) g = Gather <axis=0> (shape, i2)"
    " v = Gather <axis=0> (shape, i3) nu = Unsqueeze(n, at) gu = Unsqueeze(g, at)"
    " vu = Unsqueeze(v, at)"
)
PLACES: dict[str, Weight] = {
    "i0": np.array(0, np.int64),
    "i2": np.array(2, np.int64),
    "i3": np.array(3, np.int64),
    "at": ints(0),
}

MICRO_MODELS |= {
    "shuffle": shuffled(
        f"l = Reshape(k, apart) {SWAP} s = Reshape(m, joined)",
        {"apart": ints(0, 2, 4, 8, 8), "joined": ints(0, -1, 8, 8)},
    ),
    "shuffle of four groups": shuffled(
        f"l = Reshape(k, apart) {SWAP} s = Reshape(m, joined)",
        {"apart": ints(-1, 4, 2, 8, 8), "joined": ints(-1, 8, 8, 8)},
    ),
    "shuffle of dynamic size": shuffled(
        f"{VIEW} apart = Concat <axis=0> (nu, two, four, gu, vu) l = Reshape(k, apart) {SWAP}"
        " joined = Concat <axis=0> (nu, minus, gu, vu) s = Reshape(m, joined)",
        PLACES | {"two": ints(2), "four": ints(4), "minus": ints(-1)},
        inputs="float[N,3,H,W] x",
    ),
    "shuffle of dynamic size, divided": shuffled(
        f"{VIEW} c = Gather <axis=0> (shape, i1) each = Div(c, i2) eu = Unsqueeze(each, at)"
        f" apart = Concat <axis=0> (nu, two, eu, gu, vu) l = Reshape(k, apart) {SWAP}"
        " cu = Unsqueeze(c, at) joined = Concat <axis=0> (nu, cu, gu, vu) s = Reshape(m, joined)",
        PLACES | {"two": ints(2), "i1": np.array(1, np.int64)},
        inputs="float[N,3,H,W] x",
    ),
    "shuffle flattened": shuffled(
        "l = Reshape(k, apart) m = Transpose <perm=[0,2,1,3]> (l) s = Reshape(m, joined)",
        {"apart": ints(0, 2, 4, -1), "joined": ints(0, 8, 8, 8)},
    ),
    "shuffle of series": whole(
        "a = Conv(x, w1) l = Reshape(a, apart) m = Transpose <perm=[0,2,1,3]> (l)"
        " h = Reshape(m, joined) y = Conv(h, w2)",
        {"w1": (6, 3, 3), "apart": ints(0, 3, 2, -1), "joined": ints(0, 6, -1), "w2": (4, 6, 3)},
        inputs="float[N,3,T] x",
        outputs="float[N,4,L] y",
    ),
    "shuffle of volumes": whole(
        "a = Conv(x, w1) l = Reshape(a, apart) m = Transpose <perm=[0,2,1,3,4,5]> (l)"
        " h = Reshape(m, joined) y = Conv(h, w2)",
        {
            "w1": (6, 2, 1, 1, 1),
            "apart": ints(0, 3, 2, 5, 5, 5),
            "joined": ints(-1, 6, 5, 5, 5),
            "w2": (3, 6, 2, 2, 2),
        },
        inputs="float[N,2,5,5,5] x",
        outputs="float[N,3,A,B,C] y",
    ),
    "shuffle channels last": whole(
        "a = MatMul(x, w1) l = Reshape(a, apart) m = Transpose <perm=[0,1,3,2]> (l)"
        " h = Reshape(m, joined) y = MatMul(h, w2)",
        {"w1": (6, 8), "apart": ints(0, 0, 2, 4), "joined": ints(0, 0, 8), "w2": (8, 5)},
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
    ),
    "shuffle between layouts": chain(
        "t = Transpose <perm=[0,2,3,1]> (c) l = Reshape(t, apart)"
        " m = Transpose <perm=[0,1,2,4,3]> (l) u = Reshape(m, joined)"
        " h = Transpose <perm=[0,3,1,2]> (u)",
        {"apart": ints(0, 8, 8, 2, 4), "joined": ints(0, 8, 8, 8)},
    ),
    "shuffle twice": chain(
        "l = Reshape(c, apart) m = Transpose <perm=[0,2,1,3,4]> (l) s = Reshape(m, joined)"
        " r = Relu(s) t = Reshape(r, other) u = Transpose <perm=[0,2,1,3,4]> (t)"
        " h = Reshape(u, joined)",
        {
            "apart": ints(0, 2, 4, 8, 8),
            "other": ints(0, 4, 2, 8, 8),
            "joined": ints(0, -1, 8, 8),
        },
    ),
}

# --- computed shapes ----------------------------------------------------------------------------

DYNAMIC = "float[N,3,H,W] x"
EXTENTS = (
    "s = Shape(c) hs = Gather <axis=0> (s, i2) ws = Gather <axis=0> (s, i3)"
    " hu = Unsqueeze(hs, at) wu = Unsqueeze(ws, at)"
)

MICRO_MODELS |= {
    "Resize to twice the size": chain(
        "s = Shape(c) first = Slice(s, zero, two, zero) sp = Slice(s, two, four, zero)"
        " double = Mul(sp, two) sizes = Concat <axis=0> (first, double)"
        ' h = Resize <mode="linear"> (c, , , sizes)',
        {"zero": ints(0), "two": ints(2), "four": ints(4)},
        inputs=DYNAMIC,
    ),
    "Resize to a factor of the size": chain(
        f"{EXTENTS} hf = Cast <to=1> (hu) wf = Cast <to=1> (wu) hm = Mul(hf, k) wm = Mul(wf, k)"
        " hl = Floor(hm) wl = Floor(wm) hi = Cast <to=7> (hl) wi = Cast <to=7> (wl)"
        " sp = Concat <axis=0> (hi, wi) t = Shape(c) first = Slice(t, zero, two, zero)"
        " sizes = Concat <axis=0> (first, sp) h = Resize (c, , , sizes)",
        PLACES | {"k": floats(1.5), "zero": ints(0), "two": ints(2)},
        inputs=DYNAMIC,
    ),
    "Resize to a skip connection": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) d = Conv <strides=[2,2]> (r, w3)"
        " e = Relu(d) s = Shape(r) sp = Slice(s, two, four, zero) t = Shape(e)"
        " first = Slice(t, zero, two, zero) sizes = Concat <axis=0> (first, sp)"
        " u = Resize(e, , , sizes) k = Concat <axis=1> (u, r) y = Conv(k, w2)",
        {
            "w1": (5, 3, 3, 3),
            "w3": (8, 5, 3, 3),
            "w2": (4, 13, 1, 1),
            "zero": ints(0),
            "two": ints(2),
            "four": ints(4),
        },
        inputs=DYNAMIC,
    ),
    "Resize to the shape of a tensor": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) r = Relu(a) d = Conv <strides=[2,2]> (r, w3)"
        " e = Relu(d) s = Shape(r) u = Resize(e, , , s) k = Add(u, r) y = Conv(k, w2)",
        {"w1": (6, 3, 3, 3), "w3": (6, 6, 3, 3), "w2": (4, 6, 1, 1)},
        inputs=DYNAMIC,
    ),
    "Expand by -1": chain(
        f"p = GlobalAveragePool(c) {EXTENTS} given = Concat <axis=0> (minus, minus, hu, wu)"
        " ones = ConstantOfShape <value = int64[1] {1}> (four) neg = Mul(ones, minus)"
        " which = Equal(given, neg) shape = Where(which, ones, given) h = Expand(p, shape)",
        PLACES | {"minus": ints(-1), "four": ints(4)},
        inputs=DYNAMIC,
    ),
    "Expand to the shape of a tensor": chain(
        "p = GlobalAveragePool(c) r = Relu(c) s = Shape(r) e = Expand(p, s) h = Mul(e, r)",
        inputs=DYNAMIC,
    ),
    "Expand to its own shape": chain("s = Shape(c) h = Expand(c, s)", inputs="float[M,3,H,W] x"),
    "Tile by an extent": chain(
        f"p = GlobalAveragePool(c) {EXTENTS} times = Concat <axis=0> (one, one, hu, wu)"
        " h = Tile(p, times)",
        PLACES | {"one": ints(1)},
        inputs=DYNAMIC,
    ),
    "Reshape to the product of extents": whole(
        f"c = Conv(x, w1) {EXTENTS} n = Gather <axis=0> (s, i0) nu = Unsqueeze(n, at)"
        " hw = Mul(hu, wu) shape = Concat <axis=0> (nu, eight, hw) q = Reshape(c, shape)"
        " m = ReduceMax <axes=[2], keepdims=0> (q) y = Gemm(m, w3)",
        PLACES | {"w1": (8, 3, 3, 3), "eight": ints(8), "w3": (8, 5)},
        inputs=DYNAMIC,
        outputs=SCORES,
    ),
    "Reshape to the product of known extents": whole(
        "c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1) s = Shape(c) n = Slice(s, zero, one)"
        " rest = Slice(s, one, four) size = ReduceProd <axes=[0], keepdims=1> (rest)"
        " shape = Concat <axis=0> (n, size) h = Reshape(c, shape) y = Gemm(h, w3)",
        {
            "w1": (6, 3, 3, 3),
            "zero": ints(0),
            "one": ints(1),
            "four": ints(4),
            "w3": (96, 5),
        },
        outputs=SCORES,
    ),
    "Shape read for a number": chain(
        "s = Shape(c) z = Gather <axis=0> (s, i2) f = Cast <to=1> (z) q = Sqrt(f) h = Div(c, q)",
        PLACES,
        inputs=DYNAMIC,
    ),
    "Shape read for a size": chain(
        "s = Shape(c) n = Slice(s, zero, one, zero) z = Concat <axis=0> (n, one, one, one)"
        " o = ConstantOfShape <value = float[1] {2.0}> (z) h = Mul(c, o)",
        {"zero": ints(0), "one": ints(1)},
        inputs=DYNAMIC,
    ),
}

# As PyTorch writes GroupNorm before opset 21.
NORM_OF_GROUPS = (
    "r = Reshape(c, groups) n = InstanceNormalization(r, one, none) s = Shape(c)"
    " q = Reshape(n, s) m = Mul(q, g) h = Add(m, t)"
)
FOUR: dict[str, Weight] = {
    "groups": ints(0, 4, -1),
    "one": np.ones(4, np.float32),
    "none": np.zeros(4, np.float32),
    "g": (8, 1, 1),
    "t": (8, 1, 1),
}

MICRO_MODELS |= {
    "GroupNorm": chain(NORM_OF_GROUPS, FOUR),
    "GroupNorm of dynamic size": chain(NORM_OF_GROUPS, FOUR, inputs=DYNAMIC),
}

# --- Einsum -------------------------------------------------------------------------------------


def summed(equation: str, *weight: int, reads: str = "h", opset: int = 17) -> Builder:
    """MatMul 6 -> 8 over time, an Einsum under test with weights, MatMul to 5."""
    return whole(
        f'a = MatMul(x, w1) r = Relu(a) h = Einsum <equation="{equation}"> (r, w3)'
        f" y = MatMul({reads}, w2)",
        {"w1": (6, 8), "w3": weight, "w2": (weight[-1], 5)},
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
        opset=opset,
    )


HEADS: dict[str, Weight] = {
    "w1": (6, 8),
    "wq": (8, 2, 3),
    "wk": (8, 2, 3),
    "wv": (8, 2, 4),
    "wo": (2, 4, 7),
    "w2": (7, 5),
}

MICRO_MODELS |= {
    "Einsum with a matrix": summed("bij,jk->bik", 8, 7),
    "Einsum with a matrix, implicit": summed("abc,cd", 8, 7),
    "Einsum with a matrix, ellipsis": summed("...c, cd -> ...d", 8, 7),
    "Einsum with the weights first": whole(
        'a = MatMul(x, w1) h = Einsum <equation="dk,btk->btd"> (w3, a) y = MatMul(h, w2)',
        {"w1": (6, 8), "w3": (7, 8), "w2": (7, 5)},
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
    ),
    "Einsum over channels of maps": chain(
        'h = Einsum <equation="nchw,oc->nohw"> (c, w3)', {"w3": (8, 8)}
    ),
    "Einsum that transposes": chain(
        'a = Einsum <equation="nchw->nhwc"> (c) r = Relu(a) h = Einsum <equation="nhwc->nchw"> (r)',
    ),
    "Einsum to heads and back": whole(
        'a = MatMul(x, w1) q = Einsum <equation="btd,dhe->bthe"> (a, w3) r = Relu(q)'
        ' h = Einsum <equation="bthe,hed->btd"> (r, w4) y = MatMul(h, w2)',
        {"w1": (6, 8), "w3": (8, 2, 3), "w4": (2, 3, 7), "w2": (7, 5)},
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
    ),
    "Einsum attention": whole(
        'a = MatMul(x, w1) q = Einsum <equation="btd,dhe->bthe"> (a, wq)'
        ' k = Einsum <equation="btd,dhe->bthe"> (a, wk)'
        ' v = Einsum <equation="btd,dhe->bthe"> (a, wv)'
        ' s = Einsum <equation="bqhe,bkhe->bhqk"> (q, k) p = Softmax(s)'
        ' z = Einsum <equation="bhqk,bkhe->bqhe"> (p, v)'
        ' h = Einsum <equation="bthe,hed->btd"> (z, wo) y = MatMul(h, w2)',
        HEADS,
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
    ),
    "Einsum of a matrix and a vector": whole(
        "a = MatMul(x, w1) g = MatMul(a, w4) f = Squeeze(g, last) s = Softmax(f)"
        ' h = Einsum <equation="bt,btd->bd"> (s, a) y = Gemm(h, w2)',
        {"w1": (6, 8), "w4": (8, 1), "last": ints(-1), "w2": (8, 5)},
        inputs="float[N,T,6] x",
        outputs=SCORES,
    ),
}

# --- channels last, as TensorFlow has them ------------------------------------------------------

LAST = "float[N,8,8,3] x"
IN = "x1 = Transpose <perm=[0,3,1,2]> (x)"


def channels_last(
    nodes: str, weights: dict[str, Weight] | None = None, **options: object
) -> Builder:
    """Conv 3 -> 8 between Transposes, the nodes under test from ``c`` to ``h``, Conv 8 -> 4."""
    return whole(
        f"{IN} c1 = Conv <pads=[1,1,1,1]> (x1, w1) c = Transpose <perm=[0,2,3,1]> (c1) {nodes}"
        " h1 = Transpose <perm=[0,3,1,2]> (h) y1 = Conv(h1, w2)"
        " y = Transpose <perm=[0,2,3,1]> (y1)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)} | (weights or {}),
        **({"inputs": LAST, "outputs": "float[N,HY,WY,4] y"} | options),
    )


def dense_last(nodes: str, weights: dict[str, Weight], **options: object) -> Builder:
    """Conv 3 -> 8 between Transposes, the nodes under test from ``c`` to ``h``, MatMul to 5."""
    return whole(
        f"{IN} c1 = Conv <pads=[1,1,1,1]> (x1, w1) c = Transpose <perm=[0,2,3,1]> (c1) {nodes}"
        " d = MatMul(h, w2) y = Add(d, b2)",
        {"w1": (8, 3, 3, 3), "w2": (8, 5), "b2": (5,)} | weights,
        **({"inputs": LAST, "outputs": SCORES} | options),
    )


SERIES = {"inputs": "float[N,T,6] x", "outputs": "float[N,T2,5] y"}
BATCH = (
    "s = Shape(c) si = Cast <to=6> (s) n = Slice(si, zero, one, zero) ni = Squeeze(n, zero)"
    " nu = Unsqueeze(ni, zero)"
)

MICRO_MODELS |= {
    "channels last, bias and batch norm": channels_last(
        "b = Add(c, k) m = Mul(b, g) a = Add(m, t) h = Relu(a)",
        {"k": (8,), "g": (1, 1, 1, 8), "t": (8,)},
    ),
    "channels last, pad": channels_last(
        "r = Relu(c) h = Pad(r, pads)", {"pads": ints(0, 1, 1, 0, 0, 2, 2, 0)}
    ),
    "channels last, concat": channels_last(
        "d1 = Conv(x1, w3) d = Transpose <perm=[0,2,3,1]> (d1) k = Concat <axis=3> (c, d)"
        " h = Relu(k)",
        {"w3": (5, 3, 1, 1), "w2": (4, 13, 1, 1)},
    ),
    "channels last, split": channels_last(
        "p, q = Split <axis=3> (c, half) r = Sigmoid(q) m = Mul(p, r) h = Concat <axis=-1> (m, p)",
        {"half": ints(4, 4)},
    ),
    "channels last, softmax over width": channels_last("h = Softmax <axis=2> (c)"),
    "channels last, depthwise": channels_last(
        "r = Relu(c) r1 = Transpose <perm=[0,3,1,2]> (r) d1 = Conv <group=8> (r1, w3, b3)"
        " d = Transpose <perm=[0,2,3,1]> (d1) h = Clip(d, low, high)",
        {
            "w3": (8, 1, 3, 3),
            "b3": (8,),
            "low": np.array(0, np.float32),
            "high": np.array(6, np.float32),
        },
    ),
    "channels last, squeeze and excite": channels_last(
        "p = ReduceMean <axes=[1,2]> (c) p1 = Reshape(p, first) q = Conv(p1, w3, b3) r = Relu(q)"
        " s = Conv(r, w4, b4) t = Sigmoid(s) u = Transpose <perm=[0,2,3,1]> (t) h = Mul(c, u)",
        {
            "first": ints(-1, 8, 1, 1),
            "w3": (5, 8, 1, 1),
            "b3": (5,),
            "w4": (8, 5, 1, 1),
            "b4": (8,),
        },
    ),
    "channels last, resize": channels_last(
        "s = Shape(c) t = Slice(s, one, three, zero) d = Mul(t, two)"
        " r1 = Transpose <perm=[0,3,1,2]> (c) s1 = Shape(r1) f = Slice(s1, zero, two, zero)"
        " sizes = Concat <axis=0> (f, d) u1 = Resize(r1, , , sizes)"
        " h = Transpose <perm=[0,2,3,1]> (u1)",
        {"zero": ints(0), "one": ints(1), "two": ints(2), "three": ints(3)},
        inputs="float[N,H,W,3] x",
    ),
    "channels last, strided slice": channels_last(
        "h = Slice(c, starts, ends, axes, steps)",
        {
            "starts": ints(0, 0, 0, 0),
            "ends": ints(2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1),
            "axes": ints(0, 1, 2, 3),
            "steps": ints(1, 2, 2, 1),
        },
    ),
    "channels last, mean": dense_last("h = ReduceMean <axes=[1,2], keepdims=0> (c)", {}),
    "channels last, pool and squeeze": dense_last(
        "p1 = GlobalAveragePool(c1) p = Transpose <perm=[0,2,3,1]> (p1) h = Squeeze(p, axes)",
        {"axes": ints(1, 2)},
    ),
    "channels last, flatten": dense_last(
        "h = Reshape(c, flat)", {"flat": ints(-1, 512), "w2": (512, 5)}
    ),
    "channels last, flatten by shape": dense_last(
        f"{BATCH} t = Concat <axis=0> (nu, rest) shape = Cast <to=7> (t) h = Reshape(c, shape)",
        {
            "zero": ints(0),
            "one": ints(1),
            "rest": np.array([-1], np.int32),
            "w2": (512, 5),
        },
    ),
    "series of steps through a Conv": whole(
        "u = Unsqueeze(x, second) u1 = Transpose <perm=[0,3,1,2]> (u)"
        " c1 = Conv <pads=[0,1,0,1]> (u1, w1) c = Transpose <perm=[0,2,3,1]> (c1)"
        " q = Squeeze(c, second) b = Add(q, b1) h = Relu(b) v = Unsqueeze(h, second)"
        " v1 = Transpose <perm=[0,3,1,2]> (v) d1 = Conv(v1, w2)"
        " d = Transpose <perm=[0,2,3,1]> (d1) y = Squeeze(d, second)",
        {"w1": (8, 6, 1, 3), "b1": (8,), "second": ints(1), "w2": (5, 8, 1, 2)},
        **SERIES,
    ),
    "Dense over steps": whole(
        "a = MatMul(x, w1) r = Relu(a) f = Reshape(r, flat) m = MatMul(f, w3) s = Shape(r)"
        " lead = Gather(s, places) shape = Concat <axis=0> (lead, seven) g = Reshape(m, shape)"
        " h = Tanh(g) y = MatMul(h, w2)",
        {
            "w1": (6, 8),
            "flat": ints(-1, 8),
            "w3": (8, 7),
            "places": ints(0, 1),
            "seven": ints(7),
            "w2": (7, 5),
        },
        **SERIES,
    ),
}

# --- along one axis -----------------------------------------------------------------------------

ONE = "float[1,3,8,8] x"


def grid(*axes: list[int]) -> np.ndarray:
    """The places of a box, as ScatterND and GatherND have them."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).astype(np.int64)


MICRO_MODELS |= {
    "CumSum": chain("h = CumSum <reverse=1> (c, i2)", PLACES),
    "TopK": chain("v, i = TopK <axis=3> (c, k) f = Cast <to=1> (i) h = Add(v, f)", {"k": ints(3)}),
    "ReverseSequence": whole(
        "a = MatMul(x, w1) h = ReverseSequence <time_axis=1, batch_axis=0> (a, lengths)"
        " y = MatMul(h, w2)",
        {"w1": (6, 8), "lengths": ints(3, 5), "w2": (8, 5)},
        inputs="float[2,5,6] x",
        outputs="float[2,5,5] y",
    ),
    "GatherElements": chain(
        "h = GatherElements <axis=2> (c, i)",
        {"i": np.random.default_rng(0).integers(-8, 8, (1, 8, 5, 8))},
        inputs=ONE,
    ),
    "GatherElements by computed places": chain(
        "v, i = TopK <axis=-1> (c, k) d = Conv <pads=[1,1,1,1]> (x, w3)"
        " h = GatherElements <axis=-1> (d, i)",
        {"k": ints(8), "w3": (8, 3, 3, 3)},
    ),
    "ScatterElements": chain(
        "u = Slice(c, zero, two, three) v = Relu(u) h = ScatterElements <axis=3> (c, i, v)",
        {
            "i": np.tile(ints(6, 1), (1, 8, 8, 1)),
            "zero": ints(0),
            "two": ints(2),
            "three": ints(3),
        },
        inputs=ONE,
    ),
    "GatherND": whole(
        "a = MatMul(x, w1) h = GatherND(a, i) y = Gemm(h, w2)",
        {"w1": (6, 8), "i": ints(0, 1, 1, 3).reshape(2, 2), "w2": (8, 5)},
        inputs="float[2,5,6] x",
        outputs="float[2,5] y",
    ),
    "GatherND by batch": whole(
        "a = MatMul(x, w1) h = GatherND <batch_dims=1> (a, i) y = MatMul(h, w2)",
        {"w1": (6, 8), "i": ints(0, 1, 1, 4, 3, 2).reshape(2, 3, 1), "w2": (8, 5)},
        inputs="float[2,5,6] x",
        outputs="float[2,3,5] y",
    ),
    "ScatterND": whole(
        "a = MatMul(x, w1) b = MatMul(x, w3) u = Slice(b, zero, two)"
        " h = ScatterND(a, i, u) y = MatMul(h, w2)",
        {
            "w1": (6, 8),
            "w3": (6, 8),
            "zero": ints(0),
            "two": ints(2),
            "i": ints(6, 1).reshape(2, 1),
            "w2": (8, 5),
        },
        inputs="float[7,N,6] x",
        outputs="float[7,N,5] y",
    ),
    "ScatterND of a table": whole(
        "a = MatMul(x, w1) b = MatMul(x, w3) u = Reshape(b, shape)"
        " h = ScatterND(a, i, u) y = MatMul(h, w2)",
        {
            "w1": (6, 8),
            "w3": (6, 8),
            "shape": ints(2, 2, -1, 8),
            "i": ints(3, 1, 0, 2).reshape(2, 2, 1),
            "w2": (8, 5),
        },
        inputs="float[4,N,6] x",
        outputs="float[4,N,5] y",
    ),
    "ScatterND to a slice": chain(
        "d = Conv <pads=[0,1,0,1]> (x, w3) u = Slice(d, zero, three, axes) v = Relu(u)"
        " h = ScatterND(c, i, v)",
        {
            "w3": (8, 3, 3, 3),
            "zero": ints(0),
            "three": ints(3),
            "axes": ints(2),
            "i": grid([0], [*range(8)], [2, 3, 4], [*range(8)]),
        },
        inputs=ONE,
    ),
    "ScatterND to the first steps": whole(
        "a = MatMul(x, w1) f = Slice(a, zero, two) r = Relu(f) h = ScatterND(a, i, r)"
        " y = MatMul(h, w2)",
        {
            "w1": (6, 8),
            "zero": ints(0),
            "two": ints(2),
            "i": ints(0, 1).reshape(2, 1),
            "w2": (8, 5),
        },
        inputs="float[7,N,6] x",
        outputs="float[7,N,5] y",
    ),
    "ScatterND to places that are computed": chain(
        "d = Relu(c) u = Slice(d, zero, two, axes)"
        " channels = Range(first, eight, step) heights = Range(first, second, step)"
        " widths = Range(first, eight, step) n = Reshape(first, corner)"
        " r = Reshape(channels, column) s = Reshape(heights, row) t = Reshape(widths, flat)"
        " box = Constant <value = int64[4] {1,8,2,8}> ()"
        " ne = Expand(n, box) re = Expand(r, box) se = Expand(s, box) te = Expand(t, box)"
        " nu = Unsqueeze(ne, last) ru = Unsqueeze(re, last) su = Unsqueeze(se, last)"
        " tu = Unsqueeze(te, last) i = Concat <axis=-1> (nu, ru, su, tu) h = ScatterND(c, i, u)",
        {
            "zero": ints(0),
            "two": ints(2),
            "axes": ints(2),
            "first": np.array(0, np.int64),
            "second": np.array(2, np.int64),
            "eight": np.array(8, np.int64),
            "step": np.array(1, np.int64),
            "corner": ints(1, 1, 1, 1),
            "column": ints(1, -1, 1, 1),
            "row": ints(-1, 1),
            "flat": ints(-1),
            "last": ints(-1),
        },
        inputs=ONE,
    ),
}

NAMES = [name for name in MICRO_MODELS if name not in BEFORE]
"""The models of this file."""
