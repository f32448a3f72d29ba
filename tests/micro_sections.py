"""Tiny models with residual sections, and what the search for sections has to find in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import micro_transformers as transformers
import numpy as np
import onnx
from micro_models import MICRO_MODELS, Builder, Weight, chain, floats, ints, positive, whole
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class Residual:
    """A model and its sections.

    Attributes:
        build: makes the model.
        sections: name of a sum -> the summand that its branch makes.
        last: name of a sum -> how many linear maps its branch ends in, where not one.
    """

    build: Builder
    sections: Mapping[str, str]
    last: Mapping[str, int] = field(default_factory=dict)


SAME = "<pads=[1,1,1,1]>"
BRANCH: dict[str, Weight] = {
    "w3": (6, 8, 3, 3), "b3": (6,), "w4": (8, 6, 3, 3), "b4": (8,), "w5": (8, 8, 1, 1), "b5": (8,),
}  # fmt: skip
TWO = f"d = Conv {SAME} (r, w3, b3) e = Relu(d) f = Conv {SAME} (e, w4, b4)"
HALF = f"d = Conv <pads=[1,1,1,1], strides=[2,2]> (r, w3) e = Relu(d) f = Conv {SAME} (e, w4)"


def image(nodes: str, **weights: Weight) -> Builder:
    """A branch on eight channels of an image, from ``c`` to ``h``."""
    words = nodes.replace(",", " ").replace("(", " ").replace(")", " ").split()
    usual = {name: weight for name, weight in BRANCH.items() if name in words}
    return chain(nodes, usual | weights)


def tokens(nodes: str, outputs: str = "float[N,7,5] y", **weights: Weight) -> Builder:
    """A branch on a stream ``s`` of seven tokens of width 8, up to ``z``."""
    return whole(
        f"s = MatMul (x, we) {nodes} y = MatMul (z, wy)",
        {"we": (6, 8), "wy": (8, 5)} | weights,
        inputs="float[N,7,6] x",
        outputs=outputs,
    )


ATTENTION = """
n = LayerNormalization (s, gain, shift) q = MatMul (n, wq) k = MatMul (n, wk) v = MatMul (n, wv)
t = Transpose <perm=[0,2,1]> (k) p = MatMul (q, t) a = Softmax (p) c = MatMul (a, v)
o = MatMul (c, wo) f = Add (bo, o) z = Add (s, f)
"""
HEADS: dict[str, Weight] = {
    "gain": positive(1, 8), "shift": (8,), "wq": (8, 6), "wk": (8, 6), "wv": (8, 4),
    "wo": (4, 8), "bo": (8,),
}  # fmt: skip

RESIDUALS: dict[str, Residual] = {
    "post-activation": Residual(MICRO_MODELS["residual"], {"g": "f"}),
    "pre-activation": Residual(
        image(
            f"r = Relu(c) {TWO} g = Add(c, f) r2 = Relu(g) k = Conv {SAME} (r2, w6) h = Add(k, g)",
            w6=(8, 8, 3, 3),
        ),
        {"g": "f", "h": "k"},
    ),
    "projection": Residual(
        image(f"r = Relu(c) {TWO} s = Conv (r, w5, b5) g = Add(s, f) h = Relu(g)"), {"g": "f"}
    ),
    "projection of what is activated before": Residual(
        image(f"r = Relu(c) {TWO} s = Conv (r, w5, b5) g = Add(f, s) h = Add(g, c)"),
        {"g": "f", "h": "g"},
        {"h": 2},
    ),
    "padded shortcut": Residual(
        image(
            f"r = Relu(c) {HALF} t = Slice (r, zeros, ends, maps, steps) s = Pad (t, pads)"
            " g = Add(f, s) h = Relu(g)",
            w4=(12, 6, 3, 3),
            w2=(4, 12, 3, 3),
            zeros=ints(0, 0),
            ends=ints(8, 8),
            maps=ints(2, 3),
            steps=ints(2, 2),
            pads=ints(0, 2, 0, 0, 0, 2, 0, 0),
        ),
        {"g": "f"},
    ),
    "nested": Residual(
        image(
            f"r = Relu(c) d = Conv {SAME} (r, w3, b3) e = Relu(d) i = Conv {SAME} (e, w6)"
            f" j = Relu(i) k = Conv (j, w7, b7) l = Add(e, k) f = Conv {SAME} (l, w4, b4)"
            " g = Add(r, f) h = Relu(g)",
            w6=(5, 6, 3, 3),
            w7=(6, 5, 1, 1),
            b7=(6,),
        ),
        {"l": "k", "g": "f"},
    ),
    "down and up again": Residual(
        image(
            f"r = Relu(c) d = Conv <strides=[2,2]> (r, w3, b3) e = Relu(d) q = Conv {SAME} (e, w6)"
            " l = Add(e, q) f = ConvTranspose <strides=[2,2]> (l, w7, b7) g = Add(f, r)"
            " h = Relu(g)",
            w3=(6, 8, 2, 2),
            w6=(6, 6, 3, 3),
            w7=(6, 8, 2, 2),
            b7=(8,),
        ),
        {"l": "q", "g": "f"},
    ),
    "sum of two layers": Residual(
        image(
            f"r = Relu(c) d = Conv {SAME} (r, w3, b3) e = Relu(d) p = Conv {SAME} (e, w4, b4)"
            " q = Conv (r, w5, b5) f = Add(p, q) g = Add(f, r) h = Relu(g)"
        ),
        {"f": "p", "g": "f"},
        {"g": 2},
    ),
    "sum in a Sum": Residual(image(f"r = Relu(c) {TWO} g = Sum(f, r) h = Relu(g)"), {"g": "f"}),
    "rectified branch": Residual(
        image(f"r = Relu(c) {TWO} k = Relu(f) g = Add(k, r) h = Relu(g)"), {"g": "k"}
    ),
    "gated branch": Residual(
        image(
            f"r = Relu(c) {TWO} p = GlobalAveragePool(f) q = Conv(p, w6) u = Relu(q)"
            " v = Conv(u, w7) t = Sigmoid(v) k = Mul(f, t) g = Add(k, r) h = Relu(g)",
            w6=(4, 8, 1, 1),
            w7=(8, 4, 1, 1),
        ),
        {"g": "k"},
    ),
    "grouped last layer": Residual(
        image(
            f"r = Relu(c) d = Conv {SAME} (r, w3, b3) e = Relu(d) f = Conv <group=2> (e, w6, b4)"
            " g = Add(f, r) h = Relu(g)",
            w6=(8, 3, 1, 1),
        ),
        {"g": "f"},
    ),
    "first layer's weights used elsewhere": Residual(
        image(
            "r = Relu(c) d = Conv <pads=[4,4,4,4]> (r, w6) e = Relu(d) f = Conv (e, w5, b5)"
            " g = Add(f, r) q = Relu(g) h = Conv <pads=[4,4,4,4]> (q, w6)",
            w6=(8, 8, 9, 9),
        ),
        {"g": "f"},
    ),
    "scaled and shifted": Residual(
        image(
            f"r = Relu(c) {TWO} k = Mul(scale, f) l = Sub(k, few) m = Div(l, two) g = Add(m, r)"
            " h = Relu(g)",
            scale=positive(3, 1, 8, 1, 1),
            few=(8, 1, 1),
            two=floats(2),
        ),
        {"g": "m"},
    ),
    "sum that is an output": Residual(
        whole(
            f"c = Conv {SAME} (x, w1) r = Relu(c) {TWO} y = Add(f, r)"
            " p = GlobalAveragePool(y) t = Conv(p, w5)",
            {"w1": (8, 3, 3, 3)} | {k: v for k, v in BRANCH.items() if k != "b5"},
            outputs="float[N,8,8,8] y, float[N,8,1,1] t",
        ),
        {"y": "f"},
    ),
    "feed-forward": Residual(MICRO_MODELS["FFN, Gelu by Erf"], {"r": "f"}),
    "feed-forward of Gemms": Residual(MICRO_MODELS["FFN of Gemms"], {"r": "f"}),
    "feed-forward, gated": Residual(MICRO_MODELS["FFN, SwiGLU"], {"r": "f"}),
    "layer scale": Residual(MICRO_MODELS["ConvNeXt block, channels last"], {"r": "f"}),
    "attention": Residual(tokens(ATTENTION, **HEADS), {"z": "f"}),
    "attention and feed-forward": Residual(
        tokens(
            ATTENTION.replace("z =", "z1 =")
            + " n2 = LayerNormalization (z1, gain, shift) u = MatMul (n2, w1) h = Relu (u)"
            " f2 = MatMul (h, w2) z = Add (f2, z1)",
            **HEADS,
            w1=(8, 12),
            w2=(12, 8),
        ),
        {"z1": "f", "z": "f2"},
    ),
    "normalised after the sum": Residual(
        tokens(
            "u = MatMul (s, w1) h = Relu (u) o = MatMul (h, w2) f = Add (o, b2) r = Add (f, s)"
            " z = LayerNormalization (r, gain, shift)",
            w1=(8, 12),
            w2=(12, 8),
            b2=(8,),
            gain=positive(1, 8),
            shift=(8,),
        ),
        {"r": "f"},
    ),
    "rolled windows": Residual(
        whole(
            "s = MatMul (x, we) u = MatMul (s, w1) h = Relu (u) o = MatMul (h, w2) a = Add (o, b2)"
            " w = Reshape (a, windows) t = Transpose <perm=[0,2,1,3]> (w) l = Reshape (t, line)"
            " p = Slice (l, two, end, one) q = Slice (l, zero, two, one)"
            " f = Concat <axis=1> (p, q) r = Add (s, f) y = MatMul (r, wy)",
            {
                "we": (6, 8), "w1": (8, 12), "w2": (12, 8), "b2": (8,), "wy": (8, 5),
                "windows": ints(-1, 2, 3, 8), "line": ints(-1, 6, 8), "zero": ints(0),
                "one": ints(1), "two": ints(2), "end": ints(6),
            },
            inputs="float[N,6,6] x",
            outputs="float[N,6,5] y",
        ),
        {"r": "f"},
    ),
}  # fmt: skip

REFUSED: dict[str, tuple[Builder, str]] = {
    "read elsewhere": (
        image(
            f"r = Relu(c) d = Conv {SAME} (r, w3, b3) e = Relu(d) f = Conv {SAME} (e, w4, b4)"
            " m = Sigmoid(f) g = Add(f, r) h = Mul(g, m)"
        ),
        "what its branch computes is read elsewhere",
    ),
    "shared weights": (
        image(
            "r = Relu(c) f = Conv <pads=[4,4,4,4]> (r, w6) g = Add(f, r) q = Relu(g)"
            " k = Conv <pads=[4,4,4,4]> (q, w6) h = Add(k, q)",
            w6=(8, 8, 9, 9),
        ),
        "other layers share the weights of",
    ),
    "equals": (
        image(
            "r = Relu(c) d = Conv(r, w5) e = Conv(r, w6) g = Add(d, e) h = Relu(g)",
            w6=(8, 8, 1, 1),
        ),
        "neither of its branches is a shortcut",
    ),
    "broadcast skip": (
        image(
            f"r = Relu(c) {TWO} s = GlobalAveragePool(r) p = Conv(s, w5) g = Add(p, f) h = Relu(g)"
        ),
        "its skip has another shape",
    ),
    "broadcast branch": (
        image(
            "r = Relu(c) p = Conv(r, w6) g = Add(r, p) h = Relu(g)",
            w6=(1, 8, 1, 1),
        ),
        "broadcast over channels",
    ),
    "sigmoid": (
        image(f"r = Relu(c) {TWO} k = Sigmoid(f) g = Add(r, k) h = Relu(g)"),
        "Sigmoid '.*' stands between",
    ),
    "rectified after a shift": (
        image(
            f"r = Relu(c) {TWO} j = Add(f, k1) k = Relu(j) g = Add(r, k) h = Relu(g)",
            k1=(8, 1, 1),
        ),
        "Relu '.*' in its branch is not linear",
    ),
    "another value at every position": (
        image(
            f"r = Relu(c) {TWO} k = Mul(f, map) g = Add(r, k) h = Relu(g)",
            map=positive(5, 8, 8),
        ),
        "has positions",
    ),
    "recurrent": (
        tokens(
            "t = Transpose <perm=[1,0,2]> (s) q, l, m = LSTM <hidden_size=8> (t, wi, wr)"
            " u = Squeeze (q, one) f = Transpose <perm=[1,0,2]> (u) z = Add (s, f)",
            wi=(1, 32, 8),
            wr=(1, 32, 8),
            one=ints(1),
        ),
        "Squeeze '.*' stands between",
    ),
    "fused join": (MICRO_MODELS["FFN of com.microsoft nodes"], "joins and normalises at once"),
}  # fmt: skip

NOT_SECTIONS: dict[str, Builder] = {
    "a chain": image(f"r = Relu(c) {TWO} h = Relu(f)"),
    "a gate": MICRO_MODELS["squeeze and excite"],
    "positions": tokens("z = Add (s, p)", p=(1, 7, 8)),
    "twice itself": image("r = Relu(c) g = Add(r, r) h = Relu(g)"),
    "an activation on a branch": image("r = Relu(c) h = Add(r, c)"),
}
assert transformers


def without(
    model: onnx.ModelProto, dropped: Mapping[str, tuple[str, np.ndarray | None]]
) -> onnx.ModelProto:
    """A copy of a model whose branches are multiplied by zero in front of their sums.

    Args:
        model: the model, at full size.
        dropped: name of a sum -> the summand that goes, and what is added instead.
    """
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = []
    for node in copy.graph.node:
        if node.output[0] in dropped:
            summand, constant = dropped[node.output[0]]
            place = list(node.input).index(summand)
            zero, none = f"zero of {node.output[0]}", f"{summand} times zero"
            copy.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), zero))
            nodes.append(helper.make_node("Mul", [summand, zero], [none]))
            node.input[place] = none
            if constant is not None:
                added = f"constant of {node.output[0]}"
                copy.graph.initializer.append(numpy_helper.from_array(constant, added))
                nodes.append(helper.make_node("Add", [none, added], [f"{none} and constant"]))
                node.input[place] = f"{none} and constant"
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy
