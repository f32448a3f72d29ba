"""Feed-forward networks and normalisations as exporters spell them out, in many nodes.

A stream of tokens passes a normalisation and a hidden layer and is added to what comes out. The
hidden units can be cut; the stream cannot, for the normalisation mixes it. Entered into
``MICRO_MODELS`` when ``micro_contrib`` is imported.
"""

from __future__ import annotations

import numpy as np
from micro_models import MICRO_MODELS, Builder, Weight, floats, ints, positive, scalar, whole

TOKENS = "float[N,7,6] x"
WORDS = "float[N,7,5] y"

LAYER_NORM = """
m = ReduceMean <axes=[-1]> (s) c = Sub (s, m) p = Pow (c, two) v = ReduceMean <axes=[-1]> (p)
e = Add (v, eps) d = Sqrt (e) q = Div (c, d) k = Mul (q, gain) n = Add (k, shift)
"""
RMS_BY_RECIPROCAL = """
p = Pow (s, two) v = ReduceMean <axes=[-1]> (p) e = Add (v, eps) d = Sqrt (e) i = Reciprocal (d)
q = Mul (s, i) n = Mul (gain, q)
"""
RMS_BY_DIVISION = """
p = Mul (s, s) v = ReduceMean <axes=[-1]> (p) e = Add (v, eps) d = Sqrt (e) i = Div (one, d)
q = Mul (s, i) n = Mul (q, gain)
"""
RMS_OF_NEWER_OPSETS = RMS_BY_DIVISION.replace("<axes=[-1]> (p)", "(p, last)")
NORM: dict[str, Weight] = {
    "two": scalar(2), "eps": scalar(1e-5), "one": floats(1), "last": ints(-1),
    "gain": positive(41, 8), "shift": (8,),
}  # fmt: skip

UP = "u = MatMul (n, w1) t = Add (b1, u)"
DOWN = "o = MatMul (h, w2) f = Add (o, b2)"
DENSE: dict[str, Weight] = {"w1": (8, 12), "b1": (12,), "w2": (12, 8), "b2": (8,)}

GELU = "z1 = Div (t, root) z2 = Erf (z1) z3 = Add (z2, one) z4 = Mul (t, z3) h = Mul (z4, half)"
GELU_BY_TANH = """
z1 = Pow (t, three) z2 = Mul (z1, small) z3 = Add (t, z2) z4 = Mul (z3, big) z5 = Tanh (z4)
z6 = Add (z5, one) z7 = Mul (t, z6) h = Mul (z7, half)
"""
CURVE: dict[str, Weight] = {
    "root": scalar(np.sqrt(2)), "half": scalar(0.5), "three": scalar(3),
    "small": scalar(0.044715), "big": scalar(np.sqrt(2 / np.pi)),
}  # fmt: skip


def feed_forward(
    nodes: str,
    weights: dict[str, Weight] | None = None,
    norm: str = LAYER_NORM,
    **options: object,
) -> Builder:
    """A stream ``s`` of width 8, normalised to ``n``; the nodes under test go from n to ``f``."""
    given = {"we": (6, 8), "wy": (8, 5)} | NORM | DENSE | CURVE | (weights or {})
    text = f"s = MatMul (x, we) {norm} {nodes} r = Add (s, f) y = MatMul (r, wy)"
    used = {name: weight for name, weight in given.items() if f"{name})" in text.replace(",", ")")}
    return whole(text, used, **({"inputs": TOKENS, "outputs": WORDS} | options))


MICRO_MODELS |= {
    "FFN, Gelu by Erf": feed_forward(f"{UP} {GELU} {DOWN}"),
    "FFN, Gelu by Tanh": feed_forward(f"{UP} {GELU_BY_TANH} {DOWN}"),
    "FFN, RMSNorm by Reciprocal": feed_forward(f"{UP} h = Relu (t) {DOWN}", norm=RMS_BY_RECIPROCAL),
    "FFN, RMSNorm by Div": feed_forward(f"{UP} h = Relu (t) {DOWN}", norm=RMS_BY_DIVISION),
    "FFN, RMSNorm, opset 18": feed_forward(
        f"{UP} h = Relu (t) {DOWN}", norm=RMS_OF_NEWER_OPSETS, opset=18
    ),
    "FFN, RMSNormalization": feed_forward(
        f"{UP} h = Swish (t) {DOWN}", norm="n = RMSNormalization (s, gain)", opset=24, ir=11
    ),
    "FFN, LayerNormalization": feed_forward(
        f"{UP} {GELU} {DOWN}", norm="n = LayerNormalization (s, gain, shift)"
    ),
    "FFN, SwiGLU": feed_forward(
        "g = MatMul (n, wg) z = Sigmoid (g) a = Mul (g, z) u = MatMul (n, w1) h = Mul (a, u)"
        " f = MatMul (h, w2)",
        {"wg": (8, 12)},
        norm=RMS_BY_RECIPROCAL,
    ),
    "FFN, GEGLU with one projection": feed_forward(
        f"u = MatMul (n, wide) b = Add (u, broad) t, g = Split <axis=-1> (b, parts) {GELU}"
        f" a = Mul (h, g) {DOWN.replace('(h', '(a')}",
        {"wide": (8, 24), "broad": (24,), "parts": ints(12, 12)},
    ),
    "FFN, SwiGLU by Slice": feed_forward(
        "u = MatMul (n, wide) a = Slice (u, zero, middle, last) g = Slice (u, middle, end, last)"
        " z = Sigmoid (g) k1 = Mul (g, z) h = Mul (a, k1) f = MatMul (h, w2)",
        {"wide": (8, 24), "zero": ints(0), "middle": ints(12), "end": ints(1 << 40)},
    ),
    "FFN of Gemms": feed_forward(
        "flat = Reshape (n, rows) u = Gemm (flat, w1, b1) h = Relu (u) o = Gemm (h, w2, b2)"
        " f = Reshape (o, tokens)",
        {"rows": ints(-1, 8), "tokens": ints(-1, 7, 8)},
    ),
    "FFN of com.microsoft nodes": whole(
        "s = MatMul (x, we) o0 = MatMul (x, we0)"
        " n, , , sum = com.microsoft.SkipLayerNormalization (s, o0, gain, shift, shift)"
        " u = MatMul (n, w1) h = com.microsoft.BiasGelu (u, b1) o = MatMul (h, w2)"
        " r = com.microsoft.SkipLayerNormalization (o, sum, gain, shift, b2) y = MatMul (r, wy)",
        DENSE | {"we": (6, 8), "we0": (6, 8), "wy": (8, 5), "gain": positive(41, 8), "shift": (8,)},
        inputs=TOKENS,
        outputs=WORDS,
    ),
}

FIRST_NORM = LAYER_NORM.replace("axes=[-1]", "axes=[1]")
MAPS: dict[str, Weight] = {
    "ws": (8, 3, 3, 3), "wd": (8, 1, 3, 3), "w1": (12, 8, 1, 1), "b1": (12,), "w2": (8, 12, 1, 1),
    "b2": (8,), "wy": (4, 8, 1, 1), "gain": positive(42, 8, 1, 1), "shift": (8, 1, 1),
}  # fmt: skip
SHORT = "r = Add (s, f) y = Conv (r, wy)"

MICRO_MODELS |= {
    "ConvNeXt block, channels first": whole(
        "s = Conv (x, ws)"
        " w = Conv <group=8, pads=[1,1,1,1]> (s, wd)"
        f" {FIRST_NORM.replace('(s', '(w')} t = Conv (n, w1, b1) {GELU} f = Conv (h, w2, b2)"
        f" {SHORT}",
        MAPS | {key: (NORM | CURVE)[key] for key in ("two", "eps", "one", "root", "half")},
    ),
    "ConvNeXt block, channels last": whole(
        "s = Conv (x, ws) w = Conv <group=8, pads=[1,1,1,1]> (s, wd)"
        " l = Transpose <perm=[0,2,3,1]> (w) n = LayerNormalization (l, gain, shift)"
        f" {UP} {GELU} {DOWN.replace('f =', 'a =')} b = Mul (a, scale)"
        f" f = Transpose <perm=[0,3,1,2]> (b) {SHORT}",
        DENSE
        | {key: MAPS[key] for key in ("ws", "wd", "wy")}
        | {key: (NORM | CURVE)[key] for key in ("one", "root", "half", "gain", "shift")}
        | {"scale": positive(43, 8)},
    ),
    "inverted bottleneck of 1 x 1 convolutions": whole(
        "s = Conv (x, ws) t = Conv (s, w1, b1) g = Clip (t, zero, six)"
        f" h = Conv <group=12, pads=[1,1,1,1]> (g, wd, b1) f = Conv (h, w2, b2) {SHORT}",
        {key: MAPS[key] for key in ("ws", "w1", "b1", "w2", "b2", "wy")}
        | {"wd": (12, 1, 3, 3), "zero": scalar(0), "six": scalar(6)},
    ),
}
