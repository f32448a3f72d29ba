"""Recurrent layers: hidden units between two recurrent layers, a convolution or a classifier.

Sequences are (steps, samples, features), as ONNX has them; 6 features, 8 units and 5 scores.
"""

from __future__ import annotations

import numpy as np
import onnx
from micro_models import MICRO_MODELS, Builder, Weight, ints, whole

STEPS = "float[9,N,6] x"
LAST = "float[N,5] y"
EVERY = "float[9,N,5] y"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LAST_STATE = "s = Squeeze (last, zero) y = Gemm (s, wo, bo)"
ALL_STATES = "s = Squeeze (all, one) y = MatMul (s, wo)"


def layer(
    op: str, number: int, inputs: int = 6, units: int = 8, ways: int = 1
) -> dict[str, Weight]:
    """The weights w, r and b of a layer, with its number."""
    rows = GATES[op] * units
    rng = np.random.default_rng(number)
    shapes = {"w": (ways, rows, inputs), "r": (ways, rows, units), "b": (ways, 2 * rows)}
    return {
        f"{name}{number}": (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        if name != "b"
        else rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def recurrent(nodes: str, weights: dict[str, Weight], **options: object) -> Builder:
    shared = {"wo": (8, 5), "bo": (5,), "zero": ints(0), "one": ints(1)}
    return whole(nodes, shared | weights, **({"inputs": STEPS, "outputs": LAST} | options))


def states(seed: int, ways: int, samples: int, units: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((ways, samples, units)).astype(np.float32)


def last_state_only() -> onnx.ModelProto:
    """Neither a bias nor an output sequence; text cannot leave out a first output."""
    nodes = f"all, last = LSTM <hidden_size=8> (x, w1, r1) {LAST_STATE}"
    model = recurrent(nodes, layer("LSTM", 1))()
    model.graph.node[0].output[0] = ""
    return model


BOTH_WAYS = 'direction="bidirectional", hidden_size=8'
FLAT = "t = Transpose <perm=[0,2,1,3]> (all) s = Reshape (t, flat) y = MatMul (s, wo)"

MICRO_MODELS |= {
    "LSTM": recurrent(
        f"all, last = LSTM <hidden_size=8> (x, w1, r1, b1) {LAST_STATE}", layer("LSTM", 1)
    ),
    "LSTM, all steps": recurrent(
        f"all = LSTM <hidden_size=8> (x, w1, r1, b1) {ALL_STATES}",
        layer("LSTM", 1),
        inputs="float[T,N,6] x",
        outputs="float[T,N,5] y",
    ),
    "LSTM without bias, last state only": last_state_only,
    "LSTM, cell state": recurrent(
        "all, last, cell = LSTM <hidden_size=8, clip=0.8, input_forget=1> (x, w1, r1, b1)"
        " sum = Add (last, cell) s = Squeeze (sum, zero) y = Gemm (s, wo, bo)",
        layer("LSTM", 1),
    ),
    "LSTM, peepholes and initial states": recurrent(
        "all = LSTM <hidden_size=8> (x, w1, r1, b1, , h0, c0, p)" + f" {ALL_STATES}",
        layer("LSTM", 1) | {"h0": states(0, 1, 2), "c0": states(1, 1, 2), "p": (1, 24)},
        inputs="float[9,2,6] x",
        outputs="float[9,2,5] y",
    ),
    "LSTM, learnt initial state": recurrent(
        "n = Shape (x) k = Slice (n, one, two) unit = Concat <axis=0> (one, k, eight)"
        " h = Expand (h0, unit)"
        f" all, last = LSTM <hidden_size=8> (x, w1, r1, b1, , h) {LAST_STATE}",
        layer("LSTM", 1) | {"h0": states(0, 1, 1), "two": ints(2), "eight": ints(8)},
    ),
    "GRU, learnt initial state, repeated": recurrent(
        f"h = Tile (h0, turns) all, last = GRU <hidden_size=8> (x, w1, r1, b1, , h) {LAST_STATE}",
        layer("GRU", 1) | {"h0": states(0, 1, 1), "turns": ints(1, 2, 1)},
        inputs="float[9,2,6] x",
        outputs="float[2,5] y",
    ),
    "LSTM, computed initial state": recurrent(
        "g = Gemm (z, wz) h = Unsqueeze (g, zero)"
        f" all, last = LSTM <hidden_size=8> (x, w1, r1, b1, , h) {LAST_STATE}",
        layer("LSTM", 1) | {"wz": (3, 8)},
        inputs="float[9,2,6] x, float[2,3] z",
        outputs="float[2,5] y",
    ),
    "LSTM, lengths of sequences": recurrent(
        'all, last = LSTM <hidden_size=8, direction="reverse",'
        ' activations=["HardSigmoid","Softsign","Relu"]> (x, w1, r1, b1, lengths)'
        f" {LAST_STATE}",
        layer("LSTM", 1) | {"lengths": np.array([4, 9], np.int32)},
        inputs="float[9,2,6] x",
        outputs="float[2,5] y",
    ),
    "LSTM, bidirectional": recurrent(
        f"all = LSTM <{BOTH_WAYS}> (x, w1, r1, b1) {FLAT}",
        layer("LSTM", 1, ways=2) | {"flat": ints(0, 0, -1), "wo": (16, 5)},
        outputs=EVERY,
    ),
    "LSTM, bidirectional, last states": recurrent(
        f"all, last = LSTM <{BOTH_WAYS}> (x, w1, r1, b1) f, g = Split <axis=0> (last, ones)"
        " a = Squeeze (f, zero) b = Squeeze (g, zero) s = Concat <axis=1> (a, b)"
        " y = Gemm (s, wo, bo)",
        layer("LSTM", 1, ways=2) | {"ones": ints(1, 1), "wo": (16, 5)},
    ),
    "LSTM, two layers": recurrent(
        "a = LSTM <hidden_size=7> (x, w1, r1, b1) m = Squeeze (a, one)"
        f" all = LSTM <hidden_size=8> (m, w2, r2, b2) {ALL_STATES}",
        layer("LSTM", 1, units=7) | layer("LSTM", 2, inputs=7),
        outputs=EVERY,
    ),
    "LSTM, two bidirectional layers": recurrent(
        'a = LSTM <direction="bidirectional", hidden_size=7> (x, w1, r1, b1)'
        " u = Transpose <perm=[0,2,1,3]> (a) m = Reshape (u, flat)"
        f" all = LSTM <{BOTH_WAYS}> (m, w2, r2, b2) {FLAT}",
        layer("LSTM", 1, units=7, ways=2)
        | layer("LSTM", 2, inputs=14, ways=2)
        | {"flat": ints(0, 0, -1), "wo": (16, 5)},
        outputs=EVERY,
    ),
    "LSTM, two bidirectional layers, samples first": recurrent(
        "v = Transpose <perm=[1,0,2]> (x)"
        ' a = LSTM <direction="bidirectional", hidden_size=7> (v, w1, r1, b1)'
        " u = Transpose <perm=[0,2,1,3]> (a) m = Reshape (u, flat)"
        f" all = LSTM <{BOTH_WAYS}> (m, w2, r2, b2)"
        " t = Transpose <perm=[2,0,1,3]> (all) s = Reshape (t, flat) y = MatMul (s, wo)",
        layer("LSTM", 1, units=7, ways=2)
        | layer("LSTM", 2, inputs=14, ways=2)
        | {"flat": ints(0, 0, -1), "wo": (16, 5)},
        inputs="float[N,9,6] x",
        outputs="float[N,9,5] y",
    ),
    "LSTM as PyTorch writes it": recurrent(
        """
        e = MatMul (x, we) v = Relu (e) n = Shape (v) k = Gather <axis=0> (n, first)
        u = Unsqueeze (k, zero) shape = Concat <axis=0> (two, u, eight)
        start = ConstantOfShape (shape) t = Transpose <perm=[1,0,2]> (v)
        h1 = Slice (start, zero, one, zero) h2 = Slice (start, one, two, zero)
        a, ah, ac = LSTM <hidden_size=8> (t, w1, r1, b1, , h1, h1) m = Squeeze (a, one)
        c, ch, cc = LSTM <hidden_size=8> (m, w2, r2, b2, , h2, h2) q = Squeeze (c, one)
        back = Transpose <perm=[1,0,2]> (q) s = Gather <axis=1> (back, minus)
        y = Gemm (s, wo, bo)
        """,
        layer("LSTM", 1, inputs=7)
        | layer("LSTM", 2, inputs=8)
        | {
            "we": (6, 7),
            "first": np.array(0),
            "two": ints(2),
            "eight": ints(8),
            "minus": np.array(-1),
        },
        inputs="float[N,9,6] x",
    ),
    "LSTM behind a convolution": recurrent(
        "c = Conv <pads=[1,1,1,1]> (x, w, b) t = Transpose <perm=[3,0,1,2]> (c)"
        f" v = Reshape (t, flat) all, last = LSTM <hidden_size=8> (v, w1, r1, b1) {LAST_STATE}",
        layer("LSTM", 1, inputs=20) | {"w": (5, 3, 3, 3), "b": (5,), "flat": ints(0, 0, -1)},
        inputs="float[N,3,4,7] x",
    ),
    "LSTM of one step": recurrent(
        f"all = LSTM <hidden_size=8> (x, w1, r1, b1, , h0) {ALL_STATES}",
        layer("LSTM", 1) | {"h0": states(0, 1, 2)},
        inputs="float[1,2,6] x",
        outputs="float[1,2,5] y",
    ),
    "GRU": recurrent(
        f"all, last = GRU <hidden_size=8> (x, w1, r1, b1) {LAST_STATE}", layer("GRU", 1)
    ),
    "GRU, reset after the product": recurrent(
        "all, last = GRU <hidden_size=8, linear_before_reset=1> (x, w1, r1, b1, , h0)"
        f" {LAST_STATE}",
        layer("GRU", 1) | {"h0": states(2, 1, 2)},
        inputs="float[9,2,6] x",
        outputs="float[2,5] y",
    ),
    "GRU, bidirectional, all steps": recurrent(
        f"all = GRU <{BOTH_WAYS}> (x, w1, r1, b1) {FLAT}",
        layer("GRU", 1, ways=2) | {"flat": ints(0, 0, 16), "wo": (16, 5)},
        outputs=EVERY,
    ),
    "RNN": recurrent(
        f"all, last = RNN <hidden_size=8> (x, w1, r1, b1) {LAST_STATE}", layer("RNN", 1)
    ),
    "RNN, two layers of another activation": recurrent(
        'a = RNN <hidden_size=7, activations=["Relu"]> (x, w1, r1, b1) m = Squeeze (a, one)'
        ' all = RNN <hidden_size=8, activations=["Affine"], activation_alpha=[0.5],'
        f" activation_beta=[0.1]> (m, w2, r2) {ALL_STATES}",
        layer("RNN", 1, units=7) | layer("RNN", 2, inputs=7),
        outputs=EVERY,
    ),
}
