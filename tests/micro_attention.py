"""Attention as exporters spell it out: heads and the widths inside them are cut.

Four heads of width 6 (q and k) and 6 or 5 (v) between a token-wise projection and a classifier.
"""

from __future__ import annotations

import numpy as np
from micro_models import MICRO_MODELS, Builder, Weight, floats, ints, whole

TOKENS = "float[N,7,8] x"
OUT = "float[N,7,8] y"
LINEAR: dict[str, Weight] = {
    "wq": (8, 24), "bq": (24,), "wk": (8, 24), "wv": (8, 24), "bv": (24,), "wo": (24, 8),
}  # fmt: skip
PROJECT = "q = MatMul (x, wq) qb = Add (q, bq) k = MatMul (x, wk) v = MatMul (x, wv)"
DIVIDE = """
q4 = Reshape (qb, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
k4 = Reshape (k, divided) kt = Transpose <perm=[0,2,3,1]> (k4)
v4 = Reshape (v, divided) vh = Transpose <perm=[0,2,1,3]> (v4)
"""
ATTEND = """
s = MatMul (qh, kt) scaled = Div (s, root) p = Softmax <axis=-1> (scaled) h = MatMul (p, vh)
t = Transpose <perm=[0,2,1,3]> (h) m = Reshape (t, merged) y = MatMul (m, wo)
"""
SHAPES: dict[str, Weight] = {
    "divided": ints(0, 7, 4, 6), "merged": ints(0, 7, 24), "root": floats(2.449),
}  # fmt: skip


def attention(nodes: str, weights: dict[str, Weight], **options: object) -> Builder:
    options = {"inputs": TOKENS, "outputs": OUT} | options
    return whole(nodes, LINEAR | SHAPES | weights, **options)


def rotation() -> np.ndarray:
    angles = np.arange(7)[:, None] * np.array([1.0, 0.3, 0.1] * 2)
    return angles.astype(np.float32)


GROUPED: dict[str, Weight] = {
    "wk": (8, 12), "wv": (8, 12), "two": ints(0, 7, 2, 6), "axis": ints(2),
    "grown": ints(1, 1, 2, 1, 1), "all": ints(0, 4, 7, 6), "root": floats(2.449),
}  # fmt: skip
ROTATE = """
q4 = Reshape (qb, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
a = Slice (qh, zero, half, last) b = Slice (qh, half, end, last) n = Neg (b)
turned = Concat <axis=-1> (n, a) c = Mul (qh, cos) z = Mul (turned, sin) qr = Add (c, z)
k4 = Reshape (k, divided) kh = Transpose <perm=[0,2,1,3]> (k4)
ka = Slice (kh, zero, half, last) kb = Slice (kh, half, end, last) kn = Neg (kb)
kturned = Concat <axis=-1> (kn, ka) kc = Mul (kh, cos) kz = Mul (kturned, sin) kr = Add (kc, kz)
kt = Transpose <perm=[0,1,3,2]> (kr)
v4 = Reshape (v, divided) vh = Transpose <perm=[0,2,1,3]> (v4)
"""

MICRO_MODELS |= {
    "attention": attention(f"{PROJECT} {DIVIDE} {ATTEND}", {}),
    "attention, inferred shapes": attention(
        f"{PROJECT} {DIVIDE} {ATTEND}", {"divided": ints(0, 0, 4, -1), "merged": ints(0, 0, -1)}
    ),
    "attention, values of another width": attention(
        f"{PROJECT} {DIVIDE.replace('(v, divided)', '(v, narrow)')} {ATTEND}",
        {"wv": (8, 20), "wo": (20, 8), "narrow": ints(0, 7, 4, 5), "merged": ints(0, 7, 20)},
    ),
    "attention, packed": attention(
        """
        qkv = MatMul (x, w) five = Reshape (qkv, packed)
        turned = Transpose <perm=[2,0,3,1,4]> (five)
        qh = Gather <axis=0> (turned, i0) k = Gather <axis=0> (turned, i1)
        vh = Gather <axis=0> (turned, i2) kt = Transpose <perm=[0,1,3,2]> (k)
        """
        + ATTEND,
        {
            "w": (8, 72),
            "packed": ints(0, 7, 3, 4, 6),
            "i0": np.array(0),
            "i1": np.array(1),
            "i2": np.array(2),
        },
    ),
    "attention, packed and split": attention(
        f"qkv = MatMul (x, w) qb, k, v = Split <axis=2> (qkv, thirds) {DIVIDE} {ATTEND}",
        {"w": (8, 72), "thirds": ints(24, 24, 24)},
    ),
    "attention, packed, five axes split": attention(
        """
        qkv = MatMul (x, w) five = Reshape (qkv, packed)
        turned = Transpose <perm=[2,0,3,1,4]> (five)
        q1, k1, v1 = Split <axis=0> (turned, ones)
        qh = Squeeze (q1, first) k = Squeeze (k1, first) vh = Squeeze (v1, first)
        kt = Transpose <perm=[0,1,3,2]> (k)
        """
        + ATTEND,
        {
            "w": (8, 72),
            "packed": ints(0, 7, 3, 4, 6),
            "ones": ints(1, 1, 1),
            "first": ints(0),
        },
    ),
    "attention, grouped queries": attention(
        PROJECT
        + """
        q4 = Reshape (qb, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
        k4 = Reshape (k, two) kh = Transpose <perm=[0,2,1,3]> (k4)
        k5 = Unsqueeze (kh, axis) kg = Expand (k5, grown) ka = Reshape (kg, all)
        kt = Transpose <perm=[0,1,3,2]> (ka)
        v4 = Reshape (v, two) vs = Transpose <perm=[0,2,1,3]> (v4)
        v5 = Unsqueeze (vs, axis) vg = Expand (v5, grown) vh = Reshape (vg, all)
        """
        + ATTEND,
        GROUPED,
    ),
    "attention, rotated": attention(
        f"{PROJECT} {ROTATE} {ATTEND.replace('(qh, kt)', '(qr, kt)')}",
        {
            "zero": ints(0),
            "half": ints(3),
            "end": ints(1 << 40),
            "last": ints(-1),
            "cos": np.cos(rotation()),
            "sin": np.sin(rotation()),
        },
    ),
    "attention, heads in the batch": attention(
        """
        q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv)
        q3 = Reshape (q, three) qh = Transpose <perm=[1,0,2]> (q3)
        k3 = Reshape (k, three) kt = Transpose <perm=[1,2,0]> (k3)
        v3 = Reshape (v, three) vh = Transpose <perm=[1,0,2]> (v3)
        s = MatMul (qh, kt) p = Softmax <axis=-1> (s) h = MatMul (p, vh)
        t = Transpose <perm=[1,0,2]> (h) m = Reshape (t, joined) z = MatMul (m, wo)
        y = Reshape (z, out)
        """,
        {"three": ints(7, 4, 6), "joined": ints(7, 24), "out": ints(1, 7, 8)},
        inputs="float[1,7,8] x",
        outputs="float[1,7,8] y",
    ),
    "attention, heads in a batch of any size": attention(
        """
        z0 = Transpose <perm=[1,0,2]> (x)
        q = MatMul (z0, wq) k = MatMul (z0, wk) v = MatMul (z0, wv)
        q3 = Reshape (q, three) qh = Transpose <perm=[1,0,2]> (q3)
        k3 = Reshape (k, three) kt = Transpose <perm=[1,2,0]> (k3)
        v3 = Reshape (v, three) vh = Transpose <perm=[1,0,2]> (v3)
        s = MatMul (qh, kt) p = Softmax <axis=-1> (s) h = MatMul (p, vh)
        t = Transpose <perm=[1,0,2]> (h) m = Reshape (t, joined) z = MatMul (m, wo)
        y = Transpose <perm=[1,0,2]> (z)
        """,
        {"three": ints(7, -1, 6), "joined": ints(7, -1, 24)},
    ),
    "attention, packed and sliced": attention(
        """
        qkv = MatMul (x, w) five = Reshape (qkv, packed)
        turned = Transpose <perm=[2,0,3,1,4]> (five)
        q1 = Slice (turned, i0, i1, i0) k1 = Slice (turned, i1, i2, i0)
        v1 = Slice (turned, i2, i3, i0)
        qh = Squeeze (q1, first) k = Squeeze (k1, first) vh = Squeeze (v1, first)
        kt = Transpose <perm=[0,1,3,2]> (k)
        """
        + ATTEND,
        {
            "w": (8, 72),
            "packed": ints(0, 7, 3, 4, 6),
            "i0": ints(0),
            "i1": ints(1),
            "i2": ints(2),
            "i3": ints(3),
            "first": ints(0),
        },
    ),
    "attention, packed by MultiheadAttention": attention(
        """
        qkv = MatMul (x, w) four = Reshape (qkv, packed) five = Unsqueeze (four, i0)
        turned = Transpose <perm=[3,1,2,0,4]> (five) parts = Squeeze (turned, i3)
        q = Gather <axis=0> (parts, g0) k = Gather <axis=0> (parts, g1)
        v = Gather <axis=0> (parts, g2)
        q4 = Reshape (q, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
        k4 = Reshape (k, divided) kt = Transpose <perm=[0,2,3,1]> (k4)
        v4 = Reshape (v, divided) vh = Transpose <perm=[0,2,1,3]> (v4)
        """
        + ATTEND,
        {
            "w": (8, 72),
            "packed": ints(0, 7, 3, 24),
            "i0": ints(0),
            "i3": ints(3),
            "g0": np.array(0),
            "g1": np.array(1),
            "g2": np.array(2),
        },
    ),
}
