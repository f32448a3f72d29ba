"""Micro models of operators that onnxruntime writes, and of what exporters write in many nodes.

Entered into ``MICRO_MODELS`` when ``micro_models`` is imported.
"""

from __future__ import annotations

import numpy as np
from micro_models import (
    BY_COLUMN,
    CONV_IN,
    CONV_OUT,
    CONVS,
    MICRO_MODELS,
    SCORES,
    Builder,
    Weight,
    chain,
    floats,
    ints,
    positive,
    whole,
)

MS = "com.microsoft"
TOKENS = "float[N,7,6] x"
WORDS = "float[N,7,5] y"

# --- element by element -------------------------------------------------------------------------


MICRO_MODELS |= {
    "Shrink": chain("h = Shrink <lambd=0.3, bias=0.3> (c)"),
    "BitwiseNot": chain("p = Cast <to=6> (c) q = BitwiseNot(p) h = Cast <to=1> (q)", opset=18),
    "CastLike": chain(
        "d = Conv <pads=[1,1,1,1]> (x, w3) e = CastLike(c, d) f = CastLike(e, one) h = Add(f, d)",
        {"w3": (8, 3, 3, 3), "one": floats(1)},
    ),
}
for _op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    MICRO_MODELS[_op] = chain(
        "d = Conv <pads=[1,1,1,1]> (x, w3) p = Cast <to=6> (c) q = Cast <to=6> (d)"
        f" o = {_op}(p, q) h = Cast <to=1> (o)",
        {"w3": (8, 3, 3, 3)},
        opset=18,
    )
MICRO_MODELS["BitShift"] = chain(
    'a = Abs(c) p = Cast <to=12> (a) o = BitShift <direction="LEFT"> (p, k) h = Cast <to=1> (o)',
    {"k": np.arange(8, dtype=np.uint32).reshape(8, 1, 1)},
)
MICRO_MODELS |= {
    f"{MS} {op}": chain(f"h = {MS}.{op} (c)") for op in ("Gelu", "QuickGelu", "FastGelu")
}

HIDDEN: dict[str, Weight] = {"w1": (6, 12), "b1": (12,), "w2": (12, 5), "b2": (5,)}


def tokens(nodes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """MatMul 6 -> 12 on tokens, the nodes under test from ``a`` to ``h``, MatMul 12 -> 5."""
    options = {"inputs": TOKENS, "outputs": WORDS} | options
    return whole(
        f"a = MatMul(x, w1) {nodes} o = MatMul(h, w2) y = Add(o, b2)",
        HIDDEN | (weights or {}),
        **options,
    )


MICRO_MODELS |= {
    f"{MS} BiasGelu": tokens(f"h = {MS}.BiasGelu(a, b1)"),
    f"{MS} FastGelu with bias": tokens(f"h = {MS}.FastGelu(a, b1)"),
    f"{MS} QuickGelu scaled": tokens(f"b = Add(a, b1) h = {MS}.QuickGelu <alpha=1.0> (b)"),
}

# --- linear maps --------------------------------------------------------------------------------


def dense(attributes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """A FusedGemm under test and a Gemm."""
    given: dict[str, Weight] = {"w1": (6, 9), "b1": (9,), "w2": (9, 5), "b2": (5,)}
    options = {"inputs": "float[N,6] x", "outputs": SCORES} | options
    return whole(
        f"h = {MS}.FusedGemm <{attributes}> (x, w1, b1) y = Gemm(h, w2, b2)",
        given | (weights or {}),
        **options,
    )


MICRO_MODELS |= {
    f"{MS} FusedGemm": dense('activation="Relu"'),
    f"{MS} FusedGemm, transposed and scaled": dense(
        'activation="LeakyRelu", activation_alpha=0.2, transB=1, alpha=0.5, beta=2.0',
        {"w1": (9, 6)},
    ),
    f"{MS} FusedGemm, two parameters": dense(
        'activation="HardSigmoid", activation_alpha=0.3, activation_beta=0.4'
    ),
    f"{MS} FusedMatMul": whole(
        f"a = {MS}.FusedMatMul <alpha=0.5> (x, w1) h = Relu(a)"
        f" y = {MS}.FusedMatMul <transB=1> (h, w2)",
        {"w1": (6, 9), "w2": (5, 9)},
        inputs=TOKENS,
        outputs=WORDS,
    ),
    f"{MS} FusedMatMul of a transposed activation": whole(
        f"c = Conv(x, w1) h = Relu(c) y = {MS}.FusedMatMul <transA=1, alpha=0.5> (h, w2)",
        {"w1": (8, 3, 3), "w2": (8, 5)},
        inputs="float[N,3,9] x",
        outputs="float[N,7,5] y",
    ),
}

BEND: dict[str, Weight] = {
    "w3": (6, 8, 3, 3),
    "wo": (18, 3, 3, 3),
    "bo": (18,),
    "wk": (9, 3, 3, 3),
    "w2": (4, 6, 3, 3),
}


def bent(attributes: str, inputs: str, weights: dict[str, Weight] | None = None) -> Builder:
    """A DeformConv 8 -> 6 under test; offsets ``o`` and mask ``k`` come from the input."""
    return chain(
        "r = Relu(c) o = Conv <pads=[1,1,1,1]> (x, wo, bo)"
        " q = Conv <pads=[1,1,1,1]> (x, wk) k = Sigmoid(q)"
        f" d = DeformConv <pads=[1,1,1,1]{attributes}> ({inputs}) h = Relu(d)",
        BEND | (weights or {}),
        opset=19,
        ir=9,
    )


MICRO_MODELS |= {
    "DeformConv": bent("", "r, w3, o, b3", {"b3": (6,)}),
    "DeformConv without bias, with a mask": bent("", "r, w3, o, , k"),
    "DeformConv, two sets of offsets": bent(
        ", offset_group=2", "r, w3, o", {"wo": (36, 3, 3, 3), "bo": (36,)}
    ),
    "DeformConv grouped": bent(
        ", group=2, offset_group=4",
        "r, w3, o, b3",
        {"w3": (6, 4, 3, 3), "b3": (6,), "wo": (72, 3, 3, 3), "bo": (72,)},
    ),
    "DeformConv depthwise": bent(", group=8", "r, w3, o", {"w3": (8, 1, 3, 3), "w2": (4, 8, 3, 3)}),
}

# --- normalisation ------------------------------------------------------------------------------

STEPS = "float[N,3,9] x"


def lines(nodes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """Conv 3 -> 8 on lines of 7 positions, the nodes under test from ``c`` to ``h``, Conv."""
    return whole(
        f"c = Conv(x, w1, b1) {nodes} y = Conv(h, w2)",
        {"w1": (8, 3, 3), "b1": (8,), "w2": (4, 8, 3), "s": positive(32, 7), "t": (7,)}
        | (weights or {}),
        inputs=STEPS,
        outputs="float[N,4,L] y",
        **options,
    )


MICRO_MODELS |= {
    f"{MS} SkipLayerNormalization over positions": lines(
        f"r = Relu(c) h = {MS}.SkipLayerNormalization(c, r, s, t)"
    ),
    f"{MS} SkipLayerNormalization and its sum": lines(
        f"r = Relu(c) n, , , u = {MS}.SkipLayerNormalization(c, r, s, t, t) h = Add(n, u)"
    ),
    f"{MS} SkipSimplifiedLayerNormalization over positions": lines(
        f"h = {MS}.SkipSimplifiedLayerNormalization(c, c, s)"
    ),
    f"{MS} SkipLayerNormalization of a constant": lines(
        f"h = {MS}.SkipLayerNormalization(c, k, s, t)", {"k": (8, 7)}
    ),
    "RMSNormalization over maps": chain(
        "h = RMSNormalization <axis=2> (c, s)", {"s": positive(33, 8, 8)}, opset=23, ir=11
    ),
    "SimplifiedLayerNormalization": chain("h = SimplifiedLayerNormalization(c, s)", BY_COLUMN),
    "SimplifiedLayerNormalization, opset 23": chain(
        "h = SimplifiedLayerNormalization <epsilon=0.01> (c, s)", BY_COLUMN, opset=23, ir=11
    ),
    "LayerNormalization, opset 13": chain("h = LayerNormalization(c, s, t)", BY_COLUMN, opset=13),
    "MeanVarianceNormalization": chain("h = MeanVarianceNormalization <axes=[2,3]> (c)"),
    "MeanVarianceNormalization, axes implied": chain("h = MeanVarianceNormalization (c)"),
    "LRN over other channels": whole(
        "c = Conv(x, w1) t = Transpose <perm=[0,2,1,3]> (c) n = LRN <size=3> (t)"
        " h = Transpose <perm=[0,2,1,3]> (n) y = Conv(h, w2)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 1, 1)},
    ),
}

# --- places -------------------------------------------------------------------------------------

_grid = np.random.default_rng(34).uniform(-1, 1, (1, 5, 6, 2)).astype(np.float32)
MICRO_MODELS |= {
    "GridSample": whole(
        "c = Conv(x, w1) r = Relu(c) h = GridSample(r, g) y = Conv(h, w2)",
        {"w1": (8, 3, 3, 3), "g": _grid, "w2": (4, 8, 1, 1)},
        inputs="float[1,3,8,8] x",
        outputs="float[1,4,HY,WY] y",
    ),
    "RoiAlign": chain(
        "h = RoiAlign <output_height=4, output_width=5, sampling_ratio=2> (c, boxes, zero)",
        {"boxes": np.array([[0, 0, 6, 5], [2, 1, 7, 7]], np.float32), "zero": ints(0, 0)},
        outputs="float[K,4,HY,WY] y",
    ),
    "Trilu": chain("h = Trilu <upper=0> (c)"),
    "Trilu with a diagonal": chain("h = Trilu (c, two)", {"two": np.array(2, np.int64)}),
    "Compress": whole(
        "c = Conv(x, w1) h = Compress <axis=1> (c, which) d = Conv(h, w3) e = Conv(c, w2)"
        " y = Add(d, e)",
        {
            "w1": (8, 3, 3, 3),
            "which": np.array([1, 0, 0, 1, 1, 0, 1], bool),
            "w3": (4, 4, 1, 1),
            "w2": (4, 8, 1, 1),
        },
    ),
    "ImageScaler": whole(
        f"v = ImageScaler <scale=0.5, bias=[0.1,-0.2,0.3]> (x) {CONV_IN.replace('(x,', '(v,')}"
        f" h = Relu (c) {CONV_OUT}",
        CONVS,
        opset=7,
        ir=3,
    ),
    "Compress by a computed condition": chain(
        "m = ReduceMax <axes=[0,1,3], keepdims=0> (x) p = Greater(m, low)"
        " q = Compress <axis=2> (c, p) h = ReduceMax <axes=[2]> (q)",
        {"low": floats(-100), "w2": (4, 8, 1, 3)},
        outputs="float[N,4,HY,WY] y",
    ),
}

import micro_fused_attention  # noqa: E402, F401  (registers its models)
import micro_transformers  # noqa: E402, F401  (registers its models)
