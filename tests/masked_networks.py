"""Small networks on padded tokens, with a mask among their inputs."""

from __future__ import annotations

import numpy as np
import onnx
from micro_models import Weight, build, floats, ints, scalar

from onnxprune.arrays import Feed

WORDS, WIDTH, HEADS, HIDDEN = 20, 16, 4, 24

NORM = """
m{n} = ReduceMean <axes=[-1]> ({x}) c{n} = Sub ({x}, m{n}) p{n} = Pow (c{n}, two)
v{n} = ReduceMean <axes=[-1]> (p{n}) e{n} = Add (v{n}, eps) d{n} = Sqrt (e{n})
n{n} = Div (c{n}, d{n})
"""
EMBED = """
s0 = Gather (table, ids)
f = Cast <to=1> (mask) u = Unsqueeze (f, inner) g = Sub (one, u) bias = Mul (g, low)
"""
ATTENTION = """
q = MatMul (n0, wq) qb = Add (q, bq) k = MatMul (n0, wk) v = MatMul (n0, wv)
q4 = Reshape (qb, divided) qh = Transpose <perm=[0,2,1,3]> (q4)
k4 = Reshape (k, divided) kt = Transpose <perm=[0,2,3,1]> (k4)
v4 = Reshape (v, divided) vh = Transpose <perm=[0,2,1,3]> (v4)
sc = MatMul (qh, kt) sd = Div (sc, root) sm = Add (sd, bias) pr = Softmax <axis=-1> (sm)
h = MatMul (pr, vh) t = Transpose <perm=[0,2,1,3]> (h) mg = Reshape (t, merged)
o = MatMul (mg, wo) s1 = Add (s0, o)
"""
FEED_FORWARD = (
    "a = MatMul (n1, w1) b = Add (a, b1) r = Relu (b) w = MatMul (r, w2) s2 = Add (s1, w)"
)
FLAT = """
flat = Reshape (n1, rows) a = Gemm (flat, w1, b1) r = Relu (a) w = Gemm (r, w2)
sh = Shape (n1) back = Reshape (w, sh) s2 = Add (s1, back)
"""
HEAD = "y = MatMul (s2, wy)"
WEIGHTS: dict[str, Weight] = {
    "table": (WORDS, WIDTH), "inner": ints(1, 2), "one": floats(1), "low": floats(-1e4),
    "wq": (WIDTH, WIDTH), "bq": (WIDTH,), "wk": (WIDTH, WIDTH), "wv": (WIDTH, WIDTH),
    "wo": (WIDTH, WIDTH), "w1": (WIDTH, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, WIDTH),
    "wy": (WIDTH, 5), "divided": ints(0, 0, HEADS, -1), "merged": ints(0, 0, -1),
    "root": floats(2.0), "rows": ints(-1, WIDTH), "two": scalar(2), "eps": scalar(1e-5),
}  # fmt: skip
INPUTS = "int64[N,L] ids, int64[N,L] mask"


def encoder(middle: str = FEED_FORWARD, length: str = "L", seed: int = 5) -> onnx.ModelProto:
    """Embeddings, an attention that sees what the mask leaves, a hidden layer, scores per token."""
    first, second = NORM.format(n=0, x="s0"), NORM.format(n=1, x="s1")
    nodes = f"{EMBED} {first} {ATTENTION} {second} {middle} {HEAD}"
    weights = {name: w for name, w in WEIGHTS.items() if f"{name})" in nodes.replace(",", ")")}
    inputs = INPUTS.replace("L", length)
    model = build(nodes, weights, inputs=inputs, outputs=f"float[N,{length},5] y", seed=seed)
    table = next(t for t in model.graph.initializer if t.name == "table")
    values = onnx.numpy_helper.to_array(table).copy() * 4
    values[0] = 6.0 * np.random.default_rng(1).standard_normal(WIDTH)  # padding is unlike words
    table.CopyFrom(onnx.numpy_helper.from_array(values, "table"))
    return model


def padded_tokens(length: int, count: int = 60, seed: int = 0, longest: int = 7) -> Feed:
    """The same sentences of 2 to 7 words, filled up with the word 0 to a length."""
    rng = np.random.default_rng(seed)
    words = rng.integers(1, WORDS, (count, longest))
    lengths = rng.integers(2, longest + 1, count)
    mask = np.arange(length) < lengths[:, None]
    ids = np.zeros((count, length), np.int64)
    ids[:, :longest] = words
    return {"ids": np.where(mask, ids, 0), "mask": mask.astype(np.int64)}
