"""Attention in one node, standard and onnxruntime's own: heads and the places in them are cut.

Four heads of width 6 (queries and keys) and 6 or 5 (values) between projections. Entered into
``MICRO_MODELS`` when ``micro_contrib`` is imported.
"""

from __future__ import annotations

import numpy as np
from micro_models import MICRO_MODELS, Builder, Weight, floats, ints, whole

TOKENS = "float[N,7,8] x"
OUT = "float[N,7,8] y"
MHA = "com.microsoft.MultiHeadAttention"
PROJECT = "q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)"
LINEAR: dict[str, Weight] = {"wq": (8, 24), "wk": (8, 24), "wv": (8, 24), "wo": (24, 8)}
NARROW: dict[str, Weight] = {"wv": (8, 20), "wo": (20, 8)}
MASK = "g = ReduceMax <axes=[2], keepdims=0> (x) seen = Greater (g, low) mask = Cast <to=6> (seen)"
LOW: dict[str, Weight] = {"low": floats(0.5)}


def attention(nodes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """The nodes under test from ``x`` to ``h``, and a projection."""
    options = {"inputs": TOKENS, "outputs": OUT} | options
    return whole(f"{nodes} y = MatMul (h, wo)", LINEAR | (weights or {}), **options)


MICRO_MODELS |= {
    "com.microsoft MultiHeadAttention": attention(f"{PROJECT} h = {MHA} <num_heads=4> (q, k, v)"),
    "com.microsoft MultiHeadAttention, narrow values": attention(
        f"{PROJECT} h = {MHA} <num_heads=4, scale=0.2> (q, k, v)", NARROW
    ),
    "com.microsoft MultiHeadAttention, biases and masks": attention(
        f"{PROJECT} {MASK} h = {MHA} <num_heads=4> (q, k, v, bias, mask, near)",
        LOW | {"bias": (72,), "near": (1, 4, 7, 7)},
    ),
    "com.microsoft MultiHeadAttention, one bias for all heads": attention(
        f"{PROJECT} h = {MHA} <num_heads=4, unidirectional=1> (q, k, v, bias, , near)",
        NARROW | {"bias": (68,), "near": (1, 1, 7, 7)},
    ),
    "com.microsoft MultiHeadAttention of another sequence": attention(
        "z = MatMul (x, wz) t = Slice (z, zero, five, axis)"
        " q = MatMul (x, wq) k = MatMul (t, wk) v = MatMul (t, wv)"
        f" h = {MHA} <num_heads=2> (q, k, v)",
        {"wz": (8, 8), "zero": ints(0), "five": ints(5), "axis": ints(1)},
    ),
}

PACKED = "h = com.microsoft.Attention"
MICRO_MODELS |= {
    "com.microsoft Attention": attention(
        f"{PACKED} <num_heads=4> (x, w, b)", {"w": (8, 72), "b": (72,)}
    ),
    "com.microsoft Attention with a mask": attention(
        f"{MASK} {PACKED} <num_heads=4, qkv_hidden_sizes=[24,24,20], scale=0.3> (x, w, b, mask)",
        LOW | NARROW | {"w": (8, 68), "b": (68,)},
    ),
    "com.microsoft Attention, opset 12": attention(
        f"{PACKED} <num_heads=4, unidirectional=1> (x, w, b, , , near)",
        {"w": (8, 72), "b": (72,), "near": (1, 4, 7, 7)},
        opset=12,
        ir=7,
    ),
}

NEW = {"opset": 23, "ir": 11}
DIVIDE = """
q4 = Reshape (q, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
k4 = Reshape (k, divided) kh = Transpose <perm=[0,2,1,3]> (k4)
v4 = Reshape (v, narrow) vh = Transpose <perm=[0,2,1,3]> (v4)
"""
MERGE = "t = Transpose <perm=[0,2,1,3]> (a) h = Reshape (t, merged)"
SHAPES: dict[str, Weight] = {
    "divided": ints(0, 0, 4, -1), "narrow": ints(0, 7, 4, 5), "merged": ints(0, 0, -1),
}  # fmt: skip

MICRO_MODELS |= {
    "Attention": attention(
        f"{PROJECT} h = Attention <q_num_heads=4, kv_num_heads=4> (q, k, v)", **NEW
    ),
    "Attention, causal with a mask for every head": attention(
        f"{PROJECT} h = Attention <q_num_heads=4, kv_num_heads=4, is_causal=1> (q, k, v, near)",
        NARROW | {"near": (4, 7, 7)},
        **NEW,
    ),
    "Attention, shared keys": attention(
        f"{PROJECT} h = Attention <q_num_heads=4, kv_num_heads=2> (q, k, v)",
        {"wk": (8, 12), "wv": (8, 12)},
        **NEW,
    ),
    "Attention, heads apart": attention(
        f"{PROJECT} {DIVIDE} a = Attention <scale=0.3> (qh, kh, vh) {MERGE}",
        SHAPES | NARROW,
        **NEW,
    ),
    "Attention, heads apart, shared keys and a mask": attention(
        f"{PROJECT} {DIVIDE.replace('(k, divided)', '(k, two)').replace('narrow', 'two')}"
        f" a = Attention (qh, kh, vh, near) {MERGE}",
        SHAPES | {"wk": (8, 12), "wv": (8, 12), "two": ints(0, 7, 2, 6), "near": (7, 7)},
        **NEW,
    ),
}

ROTATED = "h = Attention <q_num_heads=4, kv_num_heads=4> (qr, kr, v)"
_angles = (np.arange(7)[:, None] * np.array([1.0, 0.3, 0.1])).astype(np.float32)
TURNS: dict[str, Weight] = {
    "cos": np.cos(_angles), "sin": np.sin(_angles), "places": np.arange(7, dtype=np.int64)[None],
}  # fmt: skip
APART = (
    f"{PROJECT} {DIVIDE.replace('narrow', 'divided')} qr = ROPE kr = ROPE_K"
    f" a = Attention (qr, kr, vh) {MERGE}"
)

MICRO_MODELS |= {
    "RotaryEmbedding": attention(
        f"{PROJECT} qr = RotaryEmbedding <num_heads=4> (q, cos3, sin3)"
        f" kr = RotaryEmbedding <num_heads=4, interleaved=1> (k, cos3, sin3) {ROTATED}",
        {"cos3": np.cos(_angles)[None], "sin3": np.sin(_angles)[None]},
        inputs="float[1,7,8] x",
        outputs="float[1,7,8] y",
        **NEW,
    ),
    "RotaryEmbedding, heads apart": attention(
        APART.replace("ROPE_K", "RotaryEmbedding (kh, cos3, sin3)").replace(
            "ROPE", "RotaryEmbedding (qh, cos3, sin3)"
        ),
        SHAPES | {"cos3": np.cos(_angles)[None], "sin3": np.sin(_angles)[None]},
        inputs="float[1,7,8] x",
        outputs="float[1,7,8] y",
        **NEW,
    ),
    "com.microsoft RotaryEmbedding": attention(
        f"{PROJECT} qr = com.microsoft.RotaryEmbedding (q, places, cos, sin)"
        " kr = com.microsoft.RotaryEmbedding <num_heads=4, rotary_embedding_dim=4>"
        f" (k, places, cos2, sin2) {ROTATED}",
        TURNS | {"cos2": np.cos(_angles)[:, :2], "sin2": np.sin(_angles)[:, :2]},
        inputs="float[1,7,8] x",
        outputs="float[1,7,8] y",
        **NEW,
    ),
}
