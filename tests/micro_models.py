"""One tiny model per operator rule and per variant of it, in ONNX's own text form.

In each the operator under test sits between a linear map that makes channels and one that reads
them, so that a group through it can be cut. ``MICRO_MODELS`` maps a name to a builder.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import onnx
from onnx import numpy_helper, parser

from onnxprune.rules.elementwise import BROADCAST, UNARY
from onnxprune.rules.pooling import REDUCTIONS

Builder = Callable[[], onnx.ModelProto]
Weight = tuple[int, ...] | np.ndarray

MICRO_MODELS: dict[str, Builder] = {}

IMAGE = "float[N,3,8,8] x"
MAPS = "float[N,4,HY,WY] y"
SCORES = "float[N,5] y"

CONV_IN = "c = Conv <pads=[1,1,1,1]> (x, w1, b1)"
CONV_OUT = "y = Conv (h, w2, b2)"
CONVS: dict[str, Weight] = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3), "b2": (4,)}


def build(
    nodes: str,
    weights: dict[str, Weight],
    *,
    inputs: str = IMAGE,
    outputs: str = MAPS,
    opset: int = 17,
    ir: int = 8,
    seed: int = 0,
) -> onnx.ModelProto:
    """A model from text; a weight given as a shape is drawn at random, fan-in scaled."""
    text = (
        f'<ir_version: {ir}, opset_import: ["" : {opset}, "com.example" : 1, '
        '"com.microsoft" : 1]>\n'
        f"micro ({inputs}) => ({outputs}) {{ {nodes} }}"
    )
    model = parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for name, weight in weights.items():
        if isinstance(weight, tuple):
            scale = np.sqrt(max(np.prod(weight[1:]), 1)) if len(weight) > 1 else 1.0
            weight = (rng.standard_normal(weight) / scale).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    return model


def chain(nodes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """Conv 3 -> 8, the nodes under test from ``c`` to ``h``, Conv 8 -> 4."""
    seed = zlib.crc32(nodes.encode())

    def builder() -> onnx.ModelProto:
        text = f"{CONV_IN} {nodes} {CONV_OUT}"
        return build(text, CONVS | (weights or {}), seed=seed, **options)  # type: ignore[arg-type]

    return builder


def whole(nodes: str, weights: dict[str, Weight], **options: object) -> Builder:
    """A model spelt out in full."""
    seed = zlib.crc32(nodes.encode())
    return lambda: build(nodes, weights, seed=seed, **options)  # type: ignore[arg-type]


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def scalar(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def positive(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


# --- element by element -------------------------------------------------------------------------

NEWER = {"Gelu": 20, "Mish": 18, "Swish": 24}
BOOLEAN_RESULT = {"IsInf", "IsNaN", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
LOGICAL = {"And", "Or", "Xor"}


def _unary(op: str) -> Builder:
    # Sigmoid keeps the argument in (0, 1), where every function but Acosh is defined.
    options: dict[str, object] = {"opset": NEWER.get(op, 17), "ir": 10}
    if op == "Acosh":
        return chain("s = Sigmoid(c) t = Add(s, one) h = Acosh(t)", {"one": floats(1)}, **options)
    if op == "Not":
        return chain("b = Cast <to=9> (c) n = Not(b) h = Cast <to=1> (n)", **options)
    if op == "Cast":
        return chain("d = Cast <to=11> (c) h = Cast <to=1> (d)", **options)
    if op in ("Ceil", "Floor", "Round", "Sign"):
        # Away from the steps, so that rounding noise in the convolution cannot flip a result.
        return chain(f"s = Abs(c) t = Add(s, half) h = {op}(t)", {"half": floats(0)}, **options)
    if op in BOOLEAN_RESULT:
        return chain(f"s = Div(c, z) b = {op}(s) h = Cast <to=1> (b)", {"z": floats(0)}, **options)
    return chain(f"s = Sigmoid(c) h = {op}(s)", **options)


def _binary(op: str) -> Builder:
    if op in LOGICAL:
        return chain(
            f"p = Cast <to=9> (c) d = Conv <pads=[1,1,1,1]> (x, w3) e = Relu(d)"
            f" q = Cast <to=9> (e) r = {op}(p, q) h = Cast <to=1> (r)",
            {"w3": (8, 3, 3, 3)},
        )
    if op == "Where":
        return chain(
            "n = Greater(c, zero) h = Where(n, c, k)",
            {"zero": floats(0), "k": positive(1, 8, 1, 1)},
        )
    if op in BOOLEAN_RESULT:
        return chain(f"b = {op}(c, k) h = Cast <to=1> (b)", {"k": positive(2, 1, 8, 1, 1)})
    if op == "PRelu":
        return chain("h = PRelu(c, slope)", {"slope": positive(3, 8, 1, 1)})
    if op == "Mod":
        return chain("h = Mod <fmod=1> (c, k)", {"k": 10 * positive(4, 8, 1, 1)})
    if op == "Pow":
        return chain("s = Sigmoid(c) h = Pow(s, k)", {"k": positive(5, 8, 1, 1)})
    return chain(f"h = {op}(c, k)", {"k": positive(6, 8, 1, 1)})


MICRO_MODELS |= {op: _unary(op) for op in UNARY}
MICRO_MODELS |= {op: _binary(op) for op in BROADCAST}
MICRO_MODELS |= {
    "Clip": chain("h = Clip(c, lo, hi)", {"lo": scalar(0), "hi": scalar(6)}),
    "Clip attributes": chain("h = Clip <min = 0.0, max = 6.0> (c)", opset=9, ir=4),
    "Clip without minimum": chain("h = Clip(c, , hi)", {"hi": scalar(1)}),
    "Dropout": chain("h = Dropout(c)", opset=13),
    "Dropout with mask": chain("h, mask = Dropout(c)", opset=13),
    "Sub channel constant": chain("h = Sub(k, c)", {"k": positive(7, 1, 8, 1, 1)}),
    "Div channel constant": chain("h = Div(c, k)", {"k": positive(8, 1, 8, 1, 1)}),
    "Mul scalar": chain("h = Mul(c, k)", {"k": scalar(2)}),
    "Add one value": chain("h = Add(c, k)", {"k": floats(2)}),
    "Mul spatial constant": chain("h = Mul(c, k)", {"k": (8, 8)}),
    "Mul full constant": chain("h = Mul(c, k)", {"k": (1, 8, 8, 8)}),
    "Where constants": chain(
        "n = Less(c, z) h = Where(n, k, c)", {"z": floats(0), "k": positive(9, 1, 8, 1, 1)}
    ),
    "shared small constant": whole(
        "a = Conv(x, w1, b) r = Relu(a) d = Conv(r, w2, b) s = Relu(d) y = Conv(s, w3)",
        {"w1": (6, 3, 3, 3), "b": (6,), "w2": (6, 6, 1, 1), "w3": (4, 6, 3, 3)},
    ),
    "squeeze and excite": chain(
        "p = GlobalAveragePool(c) q = Conv(p, w3, b3) r = Relu(q) s = Conv(r, w4, b4)"
        " t = HardSigmoid(s) h = Mul(c, t)",
        {"w3": (5, 8, 1, 1), "b3": (5,), "w4": (8, 5, 1, 1), "b4": (8,)},
    ),
    "squeeze and excite dense": chain(
        "p = GlobalAveragePool(c) f = Flatten(p) q = Gemm <transB=1> (f, w3, b3) r = Relu(q)"
        " s = Gemm <transB=1> (r, w4, b4) t = Sigmoid(s) u = Unsqueeze(t, axes) h = Mul(c, u)",
        {"w3": (5, 8), "b3": (5,), "w4": (8, 5), "b4": (8,), "axes": ints(2, 3)},
    ),
    "residual": chain(
        "r = Relu(c) d = Conv <pads=[1,1,1,1]> (r, w3, b3) e = Relu(d)"
        " f = Conv <pads=[1,1,1,1]> (e, w4, b4) g = Add(f, r) h = Relu(g)",
        {"w3": (6, 8, 3, 3), "b3": (6,), "w4": (8, 6, 3, 3), "b4": (8,)},
    ),
    "residual with projection": chain(
        "r = Relu(c) d = Conv(r, w3) e = Conv(r, w4) g = Add(d, e) h = Relu(g)",
        {"w3": (8, 8, 1, 1), "w4": (8, 8, 1, 1)},
    ),
}

# --- linear maps --------------------------------------------------------------------------------

MICRO_MODELS |= {
    "Conv": chain("h = Relu(c)"),
    "Conv without bias": whole(
        "a = Conv(x, w1) h = Relu(a) y = Conv(h, w2)", {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)}
    ),
    "Conv empty bias": whole(
        "a = Conv(x, w1, ) h = Relu(a) y = Conv(h, w2, )",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)},
    ),
    "Conv 1-d": whole(
        "a = Conv <strides=[2]> (x, w1, b1) h = Relu(a) y = Conv <dilations=[2]> (h, w2)",
        {"w1": (8, 3, 3), "b1": (8,), "w2": (4, 8, 3)},
        inputs="float[N,3,16] x",
        outputs="float[N,4,L] y",
    ),
    "Conv 3-d": whole(
        "a = Conv <pads=[1,1,1,1,1,1]> (x, w1, b1) h = Relu(a) y = Conv <strides=[2,1,1]> (h, w2)",
        {"w1": (6, 2, 3, 3, 3), "b1": (6,), "w2": (3, 6, 2, 2, 2)},
        inputs="float[N,2,5,5,5] x",
        outputs="float[N,3,A,B,C] y",
    ),
    "Conv strides, dilations and uneven pads": whole(
        "a = Conv <strides=[2,1], pads=[0,1,2,3]> (x, w1, b1) h = Relu(a)"
        " y = Conv <dilations=[1,2], pads=[1,0,0,2]> (h, w2)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3)},
    ),
    "Conv SAME_UPPER": whole(
        'a = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w1, b1) h = Relu(a)'
        ' y = Conv <auto_pad="SAME_UPPER", strides=[1,3]> (h, w2)',
        {"w1": (8, 3, 4, 3), "b1": (8,), "w2": (4, 8, 3, 2)},
        inputs="float[N,3,9,8] x",
    ),
    "Conv SAME_LOWER": whole(
        'a = Conv <auto_pad="SAME_LOWER"> (x, w1, b1) h = Relu(a)'
        ' y = Conv <auto_pad="SAME_LOWER", strides=[3,2]> (h, w2)',
        {"w1": (8, 3, 4, 3), "b1": (8,), "w2": (4, 8, 3, 2)},
        inputs="float[N,3,9,8] x",
    ),
    "Conv VALID": whole(
        'a = Conv <auto_pad="VALID"> (x, w1, b1) h = Relu(a) y = Conv <auto_pad="VALID"> (h, w2)',
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3)},
    ),
    "Conv SAME_UPPER strided, dynamic size": whole(
        'a = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (x, w1, b1) h = Relu(a)'
        ' y = Conv <auto_pad="SAME_UPPER", strides=[2,2]> (h, w2)',
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3)},
        inputs="float[N,3,H,W] x",
    ),
    "Conv dynamic height and width": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a) p = MaxPool <kernel_shape=[2,2]> (r)"
        " d = Conv(p, w2) q = GlobalAveragePool(d) y = Flatten(q)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (5, 8, 3, 3)},
        inputs="float[N,3,H,W] x",
        outputs=SCORES,
    ),
    "Conv grouped": chain(
        "r = Relu(c) d = Conv <group=2> (r, w3, b3) h = Relu(d)",
        {"w3": (8, 4, 1, 1), "b3": (8,)},
    ),
    "Conv grouped chain": whole(
        "a = Conv(x, w1, b1) r = Relu(a) d = Conv <group=4> (r, w3) e = Relu(d)"
        " f = Conv <group=2> (e, w4, b4) h = Relu(f) y = Conv(h, w2)",
        {
            "w1": (8, 3, 3, 3),
            "b1": (8,),
            "w3": (16, 2, 3, 3),
            "w4": (6, 8, 1, 1),
            "b4": (6,),
            "w2": (4, 6, 1, 1),
        },
    ),
    "Conv grouped reading a Concat": whole(
        "a = Conv(x, w1) b = Conv(x, w3) k = Concat <axis=1> (a, b) h = Conv <group=2> (k, w4)"
        " y = Conv(h, w2)",
        {
            "w1": (6, 3, 3, 3),
            "w3": (6, 3, 3, 3),
            "w4": (4, 6, 1, 1),
            "w2": (4, 4, 1, 1),
        },
    ),
    "Conv grouped beside a Slice": whole(
        "a = Conv(x, w1) k = Conv <group=2> (a, w3) s = Slice(a, start, end, axes)"
        " t = Conv(s, w4) u = Conv(k, w2) y = Add(t, u)",
        {
            "w1": (8, 3, 3, 3),
            "w3": (4, 4, 1, 1),
            "w4": (4, 2, 1, 1),
            "w2": (4, 4, 1, 1),
            "start": ints(0),
            "end": ints(2),
            "axes": ints(1),
        },
    ),
    "Conv depthwise": chain(
        "r = Relu(c) d = Conv <group=8, pads=[1,1,1,1]> (r, w3, b3) h = Relu(d)",
        {"w3": (8, 1, 3, 3), "b3": (8,)},
    ),
    "Conv depthwise, multiplier 2": whole(
        "a = Conv(x, w1, b1) r = Relu(a) d = Conv <group=8> (r, w3, b3) h = Relu(d)"
        " y = Conv(h, w2)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w3": (16, 1, 3, 3), "b3": (16,), "w2": (4, 16, 1, 1)},
    ),
    "Gemm": whole(
        "a = Gemm(x, w1, b1) h = Relu(a) y = Gemm(h, w2, b2)",
        {"w1": (6, 9), "b1": (9,), "w2": (9, 5), "b2": (5,)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "Gemm transposed": whole(
        "a = Gemm <transB=1> (x, w1, b1) h = Relu(a) y = Gemm <transB=1> (h, w2, b2)",
        {"w1": (9, 6), "b1": (9,), "w2": (5, 9), "b2": (5,)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "Gemm alpha and beta": whole(
        "a = Gemm <alpha=0.5, beta=2.0> (x, w1, b1) h = Relu(a)"
        " y = Gemm <alpha=3.0, transB=1> (h, w2, b2)",
        {"w1": (6, 9), "b1": (1, 9), "w2": (5, 9), "b2": (5,)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "Gemm scalar bias": whole(
        "a = Gemm(x, w1, b1) h = Relu(a) y = Gemm(h, w2, b2)",
        {"w1": (6, 9), "b1": scalar(0.3), "w2": (9, 5), "b2": floats(0.7)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "Gemm without bias": whole(
        "a = Gemm <beta=0.5> (x, w1) h = Relu(a) y = Gemm <alpha=0.5> (h, w2)",
        {"w1": (6, 9), "w2": (9, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "MatMul": whole(
        "a = MatMul(x, w1) h = Relu(a) y = MatMul(h, w2)",
        {"w1": (6, 9), "w2": (9, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "MatMul rank 3": whole(
        "a = MatMul(x, w1) h = Relu(a) y = MatMul(h, w2)",
        {"w1": (6, 9), "w2": (9, 5)},
        inputs="float[N,T,6] x",
        outputs="float[N,T,5] y",
    ),
    "MatMul and bias": whole(
        "a = MatMul(x, w1) b = Add(b1, a) h = Relu(b) d = MatMul(h, w2) y = Add(d, b2)",
        {"w1": (6, 9), "b1": (9,), "w2": (9, 5), "b2": (5,)},
        inputs="float[N,7,6] x",
        outputs="float[N,7,5] y",
    ),
}

UP: dict[str, Weight] = {
    "w1": (8, 3, 3, 3),
    "b1": (8,),
    "w3": (8, 6, 3, 3),
    "b3": (6,),
    "w2": (4, 6, 3, 3),
}


def upward(attributes: str, weights: dict[str, Weight] | None = None, **options: object) -> Builder:
    """Conv 3 -> 8, Relu, a ConvTranspose 8 -> 6 under test, Relu, Conv 6 -> 4."""
    return whole(
        f"a = Conv(x, w1, b1) r = Relu(a) u = ConvTranspose <{attributes}> (r, w3, b3) h = Relu(u)"
        " y = Conv(h, w2)",
        UP | (weights or {}),
        **options,
    )


MICRO_MODELS |= {
    "ConvTranspose": upward("strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]"),
    "ConvTranspose, uneven": upward("strides=[1,3], dilations=[2,1], pads=[0,1,2,0]"),
    "ConvTranspose SAME_UPPER": upward('strides=[2,2], auto_pad="SAME_UPPER"'),
    "ConvTranspose output shape": upward("strides=[2,2], output_shape=[13,13]"),
    "ConvTranspose without bias": whole(
        "a = ConvTranspose(x, w1) h = Relu(a) y = ConvTranspose <strides=[2,2]> (h, w2)",
        {"w1": (3, 8, 3, 3), "w2": (8, 4, 2, 2)},
    ),
    "ConvTranspose 1-d": whole(
        "a = Conv(x, w1) h = Relu(a) y = ConvTranspose <strides=[4]> (h, w2, b2)",
        {"w1": (8, 3, 3), "w2": (8, 4, 3), "b2": (4,)},
        inputs="float[N,3,9] x",
        outputs="float[N,4,L] y",
    ),
    "ConvTranspose grouped": upward(
        "group=2, strides=[2,2]", {"w3": (8, 3, 2, 2), "w2": (4, 6, 1, 1)}
    ),
    "ConvTranspose grouped chain": whole(
        "a = Conv(x, w1, b1) r = Relu(a) u = ConvTranspose <group=4> (r, w3) s = Relu(u)"
        " v = ConvTranspose <group=2, strides=[2,2]> (s, w4, b4) h = Relu(v) y = Conv(h, w2)",
        {
            "w1": (8, 3, 3, 3),
            "b1": (8,),
            "w3": (8, 3, 3, 3),
            "w4": (12, 5, 1, 1),
            "b4": (10,),
            "w2": (4, 10, 1, 1),
        },
    ),
    "ConvTranspose depthwise": upward(
        "group=8, strides=[2,2]", {"w3": (8, 1, 2, 2), "b3": (8,), "w2": (4, 8, 1, 1)}
    ),
    "ConvTranspose depthwise, multiplier 2": upward(
        "group=8", {"w3": (8, 2, 2, 2), "b3": (16,), "w2": (4, 16, 1, 1)}
    ),
}

FUSED = "r = Relu(c) h = com.microsoft.FusedConv"

MICRO_MODELS |= {
    "FusedConv": chain(
        f'{FUSED} <activation="Relu", pads=[1,1,1,1]> (r, w3, b3)', {"w3": (8, 8, 3, 3), "b3": (8,)}
    ),
    "FusedConv and a sum": chain(
        f'{FUSED} <activation="LeakyRelu", activation_params=[0.1], pads=[1,1,1,1]> (r, w3, b3, c)',
        {"w3": (8, 8, 3, 3), "b3": (8,)},
    ),
    "FusedConv, depthwise": chain(
        f'{FUSED} <activation="Clip", activation_params=[0.0, 1.0], group=8> (r, w3)',
        {"w3": (8, 1, 3, 3)},
    ),
    "FusedConv, opset 10": chain(
        f'{FUSED} <activation="Clip", activation_params=[-1.0, 1.0]> (r, w3, b3)',
        {"w3": (8, 8, 3, 3), "b3": (8,)},
        opset=10,
        ir=4,
    ),
    "FusedConv without activation": chain(
        f"{FUSED} <group=2> (r, w3, b3)", {"w3": (8, 4, 3, 3), "b3": (8,)}
    ),
}

# --- normalisation ------------------------------------------------------------------------------

NORM: dict[str, Weight] = {
    "s": positive(10, 8),
    "t": (8,),
    "m": (8,),
    "v": positive(11, 8),
}

MICRO_MODELS |= {
    "BatchNormalization folded": chain("n = BatchNormalization(c, s, t, m, v) h = Relu(n)", NORM),
    "BatchNormalization": chain(
        "r = Relu(c) n = BatchNormalization <epsilon=0.01> (r, s, t, m, v) h = Relu(n)", NORM
    ),
    "BatchNormalization after Add": chain(
        "d = Conv <pads=[1,1,1,1]> (x, w3) a = Add(c, d) n = BatchNormalization(a, s, t, m, v)"
        " h = Relu(n)",
        NORM | {"w3": (8, 3, 3, 3)},
    ),
    "BatchNormalization after Concat": whole(
        "a = Conv(x, w1) b = Conv(x, w3) k = Concat <axis=1> (a, b)"
        " n = BatchNormalization(k, s, t, m, v) h = Relu(n) y = Conv(h, w2)",
        NORM | {"w1": (5, 3, 3, 3), "w3": (3, 3, 3, 3), "w2": (4, 8, 1, 1)},
    ),
    "BatchNormalization after Gemm": whole(
        "a = Gemm <alpha=0.5, beta=2.0> (x, w1, b1) n = BatchNormalization(a, s, t, m, v)"
        " h = Relu(n) y = Gemm(h, w2)",
        NORM | {"w1": (6, 8), "b1": (1, 8), "w2": (8, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "BatchNormalization folded into depthwise": chain(
        "d = Conv <group=8> (c, w3) h = BatchNormalization(d, s, t, m, v)",
        NORM | {"w3": (8, 1, 1, 1)},
    ),
}

AFFINE: dict[str, Weight] = {"s": positive(12, 8), "t": (8,)}
BY_COLUMN: dict[str, Weight] = {"s": positive(14, 8), "t": (8,)}

MICRO_MODELS |= {
    "BatchNormalization folded into ConvTranspose": whole(
        "c = Conv(x, w1) d = ConvTranspose <group=2> (c, w3, b3)"
        " n = BatchNormalization(d, s, t, m, v) h = Relu(n) y = Conv(h, w2)",
        NORM | {"w1": (6, 3, 3, 3), "w3": (6, 4, 2, 2), "b3": (8,), "w2": (4, 8, 1, 1)},
    ),
    "InstanceNormalization": chain("h = InstanceNormalization <epsilon=0.01> (c, s, t)", AFFINE),
    "GroupNormalization": chain(
        "h = GroupNormalization <num_groups=4> (c, s, t)", AFFINE, opset=21, ir=10
    ),
    "GroupNormalization after a residual": chain(
        "g = GroupNormalization <num_groups=4> (c, s, t) r = Relu(g)"
        " d = Conv <pads=[1,1,1,1]> (r, w3) h = Add(c, d)",
        AFFINE | {"w3": (8, 8, 3, 3)},
        opset=21,
        ir=10,
    ),
    "GroupNormalization and a grouped Conv": chain(
        "g = GroupNormalization <num_groups=4> (c, s, t) h = Conv <group=2> (g, w3)",
        AFFINE | {"w3": (8, 4, 3, 3)},
        opset=21,
        ir=10,
    ),
    "LayerNormalization": chain("h = LayerNormalization(c, s, t)", BY_COLUMN),
    "LayerNormalization over maps": chain(
        "h, m, d = LayerNormalization <axis=2> (c, s, t)", {"s": positive(15, 8, 8), "t": (8, 8)}
    ),
    "Softmax": chain("h = Softmax(c)"),
    "Softmax over height": chain("h = Softmax <axis=2> (c)"),
    "Softmax, opset 12": chain("h = Softmax <axis=2> (c)", opset=12, ir=7),
    "LogSoftmax": chain("h = LogSoftmax <axis=-2> (c)"),
    "Hardmax": chain("h = Hardmax(c)"),
    "LpNormalization": chain("h = LpNormalization <axis=3, p=1> (c)"),
}

# --- pooling and reductions ---------------------------------------------------------------------

POOLED: dict[str, Weight] = {"w1": (8, 3, 3, 3), "b1": (8,), "w3": (8, 5), "b3": (5,)}


def reduced(nodes: str, weights: dict[str, Weight] | None = None, opset: int = 17) -> Builder:
    """Conv 3 -> 8, the nodes under test from ``c`` to ``h`` of shape [N, 8], Gemm 8 -> 5."""
    return whole(
        f"{CONV_IN} {nodes} y = Gemm(h, w3, b3)",
        POOLED | (weights or {}),
        outputs=SCORES,
        opset=opset,
    )


MICRO_MODELS |= {
    "MaxPool": chain("h = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)"),
    "MaxPool SAME_UPPER": chain('h = MaxPool <kernel_shape=[3,3], auto_pad="SAME_UPPER"> (c)'),
    "AveragePool": chain("h = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (c)"),
    "LpPool": chain("h = LpPool <kernel_shape=[2,2]> (c)"),
    "GlobalAveragePool": reduced("p = GlobalAveragePool(c) h = Flatten(p)"),
    "GlobalMaxPool": reduced("p = GlobalMaxPool(c) h = Flatten(p)"),
    "GlobalLpPool": reduced("p = GlobalLpPool <p=2> (c) h = Flatten(p)"),
    "ReduceMean input axes": reduced(
        "h = ReduceMean <keepdims=0> (c, axes)", {"axes": ints(-1, 2)}, opset=18
    ),
    "ReduceMean kept dims": chain("m = ReduceMean <axes=[2,3], keepdims=1> (c) h = Sub(c, m)"),
    "ReduceMean over time": whole(
        "a = MatMul(x, w1) h = ReduceMean <axes=[1], keepdims=0> (a) y = Gemm(h, w2)",
        {"w1": (6, 8), "w2": (8, 5)},
        inputs="float[N,7,6] x",
        outputs=SCORES,
    ),
    "ReduceSum no-op": chain("h = ReduceSum <noop_with_empty_axes=1> (c)", opset=13),
}
MICRO_MODELS |= {
    op: reduced(
        f"a = Sigmoid(c) h = {op} <keepdims=0> (a, axes)"
        if op == "ReduceSum"
        else f"a = Sigmoid(c) h = {op} <axes=[2,3], keepdims=0> (a)",
        {"axes": ints(2, 3)} if op == "ReduceSum" else None,
        opset=13,
    )
    for op in REDUCTIONS
}

# --- joining and taking apart -------------------------------------------------------------------

TWO: dict[str, Weight] = {"w1": (5, 3, 3, 3), "w3": (7, 3, 3, 3)}
C2F: dict[str, Weight] = {
    "w1": (8, 3, 3, 3),
    "w3": (4, 4, 3, 3),
    "w2": (4, 12, 1, 1),
}


def c2f(split: str, weights: dict[str, Weight] | None = None, opset: int = 17) -> Builder:
    """Half of the channels passes a convolution, and all of them are joined again."""
    return whole(
        f"c = Conv(x, w1) {split} d = Conv <pads=[1,1,1,1]> (q, w3) e = Relu(d)"
        " h = Concat <axis=1> (p, q, e) y = Conv(h, w2)",
        C2F | (weights or {}),
        opset=opset,
    )


MICRO_MODELS |= {
    "Concat": whole(
        "a = Conv(x, w1) b = Conv(x, w3) k = Concat <axis=1> (a, b) r = Relu(k)"
        " d = Conv(r, w2) s = Sigmoid(k) e = Conv(s, w4) y = Add(d, e)",
        TWO | {"w2": (4, 12, 1, 1), "w4": (4, 12, 1, 1)},
    ),
    "Concat negative axis": whole(
        "a = Conv(x, w1) b = Conv(x, w3) k = Concat <axis=-3> (a, b) y = Conv(k, w2)",
        TWO | {"w2": (4, 12, 1, 1)},
    ),
    "Concat of one branch twice": chain(
        "k = Concat <axis=1> (c, c) h = Conv(k, w3)", {"w3": (8, 16, 1, 1)}
    ),
    "Concat along height": chain("h = Concat <axis=2> (c, c)"),
    "Concat with a constant": whole(
        "a = Gemm(x, w1) s = Relu(a) g = ReduceSum <keepdims=1> (x, one) z = Mul(g, zeros)"
        " k = Concat <axis=1> (s, z) y = Gemm(k, w2)",
        {"w1": (6, 8), "one": ints(1), "zeros": floats(1, 2, 3), "w2": (11, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
    "Concat with the input": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1) k = Concat <axis=1> (a, x) y = Conv(k, w2)",
        {"w1": (5, 3, 3, 3), "w2": (4, 8, 1, 1)},
    ),
    "dense block": whole(
        "a = Conv(x, w1) r = Relu(a) b = Conv <pads=[1,1,1,1]> (r, w3) k = Concat <axis=1> (a, b)"
        " s = Relu(k) d = Conv <pads=[1,1,1,1]> (s, w4) l = Concat <axis=1> (k, d) h = Relu(l)"
        " y = Conv(h, w2)",
        {"w1": (6, 3, 3, 3), "w3": (4, 6, 3, 3), "w4": (4, 10, 3, 3), "w2": (4, 14, 1, 1)},
    ),
    "Split": c2f("p, q = Split <axis=1> (c, sizes)", {"sizes": ints(4, 4)}),
    "Split unequal": c2f(
        "p, q = Split <axis=-3> (c, sizes)",
        {"sizes": ints(2, 6), "w3": (6, 6, 3, 3), "w2": (4, 14, 1, 1)},
    ),
    "Split implied": c2f("p, q = Split <axis=1> (c)"),
    "Split attribute": c2f("p, q = Split <axis=1, split=[4,4]> (c)", opset=11),
    "Split implied, opset 11": c2f("p, q = Split <axis=1> (c)", opset=11),
    "Split num_outputs": c2f("p, q = Split <axis=1, num_outputs=2> (c)", opset=18),
    "Split num_outputs uneven": whole(
        "c = Conv(x, w1) p, q, r = Split <axis=1, num_outputs=3> (c) d = Conv(p, w2)"
        " e = Conv(q, w3) f = Conv(r, w4) y = Sum(d, e, f)",
        {"w1": (8, 3, 3, 3), "w2": (4, 3, 1, 1), "w3": (4, 3, 1, 1), "w4": (4, 2, 1, 1)},
        opset=18,
    ),
    "Split over space": whole(
        "c = Conv <pads=[1,1,1,1]> (x, w1) p, q = Split <axis=3> (c, sizes) h = Add(p, q)"
        " y = Conv(h, w2)",
        {"w1": (8, 3, 3, 3), "sizes": ints(4, 4), "w2": (4, 8, 1, 1)},
    ),
    "Slice": whole(
        "c = Conv(x, w1) p = Slice(c, start, end, axes) d = Conv(p, w3) e = Conv(c, w2)"
        " y = Add(d, e)",
        {
            "w1": (8, 3, 3, 3),
            "w3": (4, 3, 1, 1),
            "w2": (4, 8, 1, 1),
            "start": ints(2),
            "end": ints(5),
            "axes": ints(1),
        },
    ),
    "Slice negative bounds": whole(
        "c = Conv(x, w1) p = Slice(c, start, end, axes, steps) d = Conv(p, w3) e = Conv(c, w2)"
        " y = Add(d, e)",
        {
            "w1": (8, 3, 3, 3),
            "w3": (4, 5, 1, 1),
            "w2": (4, 8, 1, 1),
            "start": ints(-6, 0),
            "end": ints(-1, 2**63 - 1),
            "axes": ints(-3, 3),
            "steps": ints(1, 1),
        },
    ),
    "Slice attributes": whole(
        "c = Conv(x, w1) p = Slice <axes=[1], starts=[4], ends=[9223372036854775807]> (c)"
        " q = Slice <axes=[1], starts=[0], ends=[-4]> (c) d = Conv(p, w3) e = Conv(q, w2)"
        " y = Add(d, e)",
        {"w1": (8, 3, 3, 3), "w3": (4, 4, 1, 1), "w2": (4, 4, 1, 1)},
        opset=9,
        ir=4,
    ),
    "Slice over space": chain(
        "h = Slice(c, start, end, axes, steps)",
        {"start": ints(0, 0), "end": ints(8, 8), "axes": ints(2, 3), "steps": ints(2, 2)},
    ),
    "Pad over space": chain(
        'h = Pad <mode="reflect"> (c, pads)', {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}
    ),
    "Pad channels": whole(
        "c = Conv(x, w1) p = Pad(c, pads, value) r = Relu(p) y = Conv(r, w2)",
        {
            "w1": (6, 3, 3, 3),
            "pads": ints(0, 2, 0, 0, 0, 3, 0, 0),
            "value": scalar(0.5),
            "w2": (4, 11, 1, 1),
        },
    ),
    "Pad with axes": whole(
        "c = Conv(x, w1) p = Pad(c, pads, , axes) r = Relu(p) y = Conv(r, w2)",
        {"w1": (6, 3, 3, 3), "pads": ints(1, 2), "axes": ints(-3), "w2": (4, 9, 1, 1)},
        opset=18,
    ),
    "padding shortcut": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a)"
        " b = Conv <pads=[1,1,1,1], strides=[2,2]> (r, w3) e = Relu(b)"
        " f = Conv <pads=[1,1,1,1]> (e, w4) t = Slice(r, start, end, axes, steps)"
        # The widths come from a chain of constants, as exporters write them.
        " none = ConstantOfShape <value = int64[1] {0}> (four)"
        " left = Concat <axis=0> (zero, two, zero, zero)"
        " widths = Concat <axis=0> (left, left) both = Concat <axis=0> (none, none)"
        " all = Add(widths, both)"
        " s = Pad(t, all, fill) g = Add(f, s) h = Relu(g) y = Conv(h, w2)",
        {
            "w1": (4, 3, 3, 3),
            "b1": (4,),
            "w3": (8, 4, 3, 3),
            "w4": (8, 8, 3, 3),
            "w2": (4, 8, 1, 1),
            "start": ints(0, 0),
            "end": ints(8, 8),
            "axes": ints(2, 3),
            "steps": ints(2, 2),
            "four": ints(4),
            "zero": ints(0),
            "two": ints(2),
            "fill": scalar(0),
        },
    ),
    "padding shortcut, opset 9": whole(
        "a = Conv <pads=[1,1,1,1]> (x, w1, b1) r = Relu(a)"
        " b = Conv <pads=[1,1,1,1], strides=[2,2]> (r, w3) e = Relu(b)"
        " f = Conv <pads=[1,1,1,1]> (e, w4)"
        " t = MaxPool <kernel_shape=[1,1], strides=[2,2]> (r)"
        " s = Pad <pads=[0,2,0,0,0,2,0,0]> (t) g = Add(f, s) h = Relu(g) y = Conv(h, w2)",
        {
            "w1": (4, 3, 3, 3),
            "b1": (4,),
            "w3": (8, 4, 3, 3),
            "w4": (8, 8, 3, 3),
            "w2": (4, 8, 1, 1),
        },
        opset=9,
        ir=4,
    ),
}

# --- rearranging axes ---------------------------------------------------------------------------

WIDE: dict[str, Weight] = {"w1": (6, 3, 3, 3), "b1": (6,), "w3": (5, 6 * 16), "b3": (5,)}


def flattened(nodes: str, weights: dict[str, Weight] | None = None, opset: int = 17) -> Builder:
    """Conv 3 -> 6 on 4 x 4 maps, the nodes under test from ``p`` to ``h`` [N, 96], Gemm."""
    return whole(
        "c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w1, b1) p = Relu(c)"
        f" {nodes} y = Gemm <transB=1> (h, w3, b3)",
        WIDE | (weights or {}),
        outputs=SCORES,
        opset=opset,
    )


MICRO_MODELS |= {
    "Flatten": flattened("h = Flatten(p)"),
    "Flatten negative axis": flattened("h = Flatten <axis=-3> (p)"),
    "Reshape": flattened("h = Reshape(p, shape)", {"shape": ints(-1, 96)}),
    "Reshape copied and inferred": flattened("h = Reshape(p, shape)", {"shape": ints(0, -1)}),
    "Reshape from the input's shape": flattened(
        "s = Shape(p) n = Gather <axis=0> (s, zero) u = Unsqueeze(n, axes)"
        " shape = Concat <axis=0> (u, rest) h = Reshape(p, shape)",
        {"zero": np.zeros((), np.int64), "axes": ints(0), "rest": ints(96)},
    ),
    "Reshape attribute": flattened("h = Reshape(p, shape)", {"shape": ints(0, 96)}, opset=7),
    "Reshape channels last": flattened(
        "t = Transpose <perm=[0,2,3,1]> (p) h = Reshape(t, shape)", {"shape": ints(0, -1)}
    ),
    "Reshape in two steps": flattened(
        "q = Reshape(p, maps) r = Relu(q) h = Reshape(r, flat)",
        {"maps": ints(0, 6, 16), "flat": ints(-1, 96)},
    ),
    "Reshape with dynamic size": whole(
        "c = Conv(x, w1) q = Reshape(c, shape) m = ReduceMean <axes=[2], keepdims=0> (q)"
        " y = Gemm(m, w3)",
        {"w1": (8, 3, 3, 3), "shape": ints(0, 0, -1), "w3": (8, 5)},
        inputs="float[N,3,H,W] x",
        outputs=SCORES,
    ),
    "Reshape and back": chain(
        "q = Reshape(c, flat) r = Relu(q) h = Reshape(r, maps)",
        {"flat": ints(0, 8, -1), "maps": ints(0, 8, 8, 8)},
    ),
    "Squeeze": reduced("p = GlobalAveragePool(c) h = Squeeze(p, axes)", {"axes": ints(2, 3)}),
    "Squeeze, all of 1": reduced("p = GlobalAveragePool(c) h = Squeeze(p)"),
    "Squeeze, all of 1, attributes": reduced("p = GlobalAveragePool(c) h = Squeeze(p)", opset=11),
    "Squeeze attribute": reduced("p = GlobalAveragePool(c) h = Squeeze <axes=[2,3]> (p)", opset=11),
    "Unsqueeze": whole(
        "a = Gemm(x, w1) u = Unsqueeze(a, axes) h = Relu(u) y = Conv(h, w2)",
        {"w1": (6, 8), "axes": ints(2, -1), "w2": (4, 8, 1, 1)},
        inputs="float[N,6] x",
    ),
    "Unsqueeze attribute": whole(
        "a = Gemm(x, w1, b1) u = Unsqueeze <axes=[2]> (a) h = Relu(u) y = Conv(h, w2)",
        {"w1": (6, 8), "b1": (8,), "axes": ints(2, -1), "w2": (4, 8, 1)},
        inputs="float[N,6] x",
        outputs="float[N,4,L] y",
        opset=11,
    ),
    "Transpose": whole(
        "c = Conv(x, w1) t = Transpose <perm=[0,2,3,1]> (c) r = Relu(t) y = MatMul(r, w2)",
        {"w1": (8, 3, 3, 3), "w2": (8, 5)},
        outputs="float[N,HY,WY,5] y",
    ),
    "Transpose there and back": chain(
        "t = Transpose <perm=[0,2,3,1]> (c) d = MatMul(t, w3) e = Add(d, b3) r = Relu(e)"
        " f = MatMul(r, w4) h = Transpose <perm=[0,3,1,2]> (f)",
        {"w3": (8, 10), "b3": (10,), "w4": (10, 8)},
    ),
    "Transpose reversed": whole(
        "a = MatMul(x, w1) t = Transpose(a) r = Relu(t) u = Transpose(r) y = MatMul(u, w2)",
        {"w1": (6, 8), "w2": (8, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    ),
}

# --- resizing -----------------------------------------------------------------------------------

MICRO_MODELS |= {
    "Resize": chain("h = Resize(c, , scales)", {"scales": floats(1, 1, 2, 2)}),
    "Resize linear": chain(
        'h = Resize <mode="linear"> (c, , scales)', {"scales": floats(1, 1, 0.5, 1.5)}
    ),
    "Resize sizes": whole(
        'c = Conv <pads=[1,1,1,1]> (x, w1) h = Resize <mode="linear"> (c, , , sizes)'
        " y = Conv(h, w2)",
        {"w1": (8, 3, 3, 3), "sizes": ints(1, 8, 12, 12), "w2": (4, 8, 1, 1)},
        inputs="float[1,3,8,8] x",
        outputs="float[1,4,HY,WY] y",
    ),
    "Resize sizes of some axes": chain(
        "h = Resize <axes=[2,3]> (c, , , sizes)", {"sizes": ints(12, 12)}, opset=18
    ),
    "Upsample": chain("h = Upsample(c, scales)", {"scales": floats(1, 1, 2, 2)}, opset=9, ir=4),
    "Upsample attribute": chain("h = Upsample <scales=[1.0,1.0,2.0,2.0]> (c)", opset=7, ir=4),
}

# --- space and depth ----------------------------------------------------------------------------

MICRO_MODELS |= {
    "DepthToSpace": whole(
        "c = Conv <pads=[1,1,1,1]> (x, w1, b1) d = DepthToSpace <blocksize=2> (c) h = Relu(d)"
        " y = Conv(h, w2)",
        {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (4, 3, 3, 3)},
    ),
    "DepthToSpace CRD": whole(
        "c = Conv <pads=[1,1,1,1]> (x, w1, b1)"
        ' d = DepthToSpace <blocksize=2, mode="CRD"> (c) h = Relu(d) y = Conv(h, w2)',
        {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (4, 3, 3, 3)},
    ),
    "SpaceToDepth": chain("h = SpaceToDepth <blocksize=2> (c)", {"w2": (4, 32, 3, 3)}),
    "SpaceToDepth and back": chain(
        "s = SpaceToDepth <blocksize=2> (c) t = Conv <pads=[1,1,1,1]> (s, w3, b3) u = Add(s, t)"
        " h = DepthToSpace <blocksize=2> (u)",
        {"w3": (32, 32, 3, 3), "b3": (32,)},
    ),
}

# --- picking and repeating ----------------------------------------------------------------------

PICKED: dict[str, Weight] = {"w1": (8, 3, 3, 3), "w2": (4, 8, 1, 1), "w3": (4, 5, 1, 1)}


def picked(nodes: str, weights: dict[str, Weight]) -> Builder:
    """Conv 3 -> 8; one Conv reads all channels, another those that go from ``c`` to ``h``."""
    return whole(
        f"c = Conv(x, w1) {nodes} d = Conv(h, w3) e = Conv(c, w2) y = Add(d, e)", PICKED | weights
    )


MICRO_MODELS |= {
    "Gather": picked("h = Gather <axis=1> (c, i)", {"i": ints(6, 0, 3, 2, 7)}),
    "Gather negative and repeated": picked(
        "h = Gather <axis=-3> (c, i)", {"i": ints(-1, 2, 2, -8, 7)}
    ),
    "Gather a permutation": chain(
        "h = Gather <axis=1> (c, i)", {"i": np.array([3, 1, 0, 2, 7, 6, 4, 5], np.int32)}
    ),
    "Gather one channel": whole(
        "c = Conv(x, w1) p = Gather <axis=1> (c, i) u = Unsqueeze(p, axes) r = Relu(c)"
        " h = Mul(r, u) y = Conv(h, w2)",
        {
            "w1": (8, 3, 3, 3),
            "i": np.array(-3, np.int64),
            "axes": ints(1),
            "w2": (4, 8, 1, 1),
        },
    ),
    "Gather over space": chain("h = Gather <axis=2> (c, i)", {"i": ints(7, 1, 4, 0)}),
    "Gather one row": reduced(
        "r = Gather <axis=2> (c, i) h = Gather <axis=2> (r, i)", {"i": np.array(3, np.int64)}
    ),
    "Gather rows of a table": chain(
        "g = Gather <axis=2> (c, i) h = ReduceMax <axes=[3], keepdims=0> (g)",
        {"i": ints(7, 1, 4, 0, 2, 6, 3, 5).reshape(4, 2)},
    ),
    "Gather one step": whole(
        "a = MatMul(x, w1) h = Gather <axis=1> (a, i) y = Gemm(h, w2)",
        {"w1": (6, 8), "i": np.array(0, np.int64), "w2": (8, 5)},
        inputs="float[N,7,6] x",
        outputs=SCORES,
    ),
    "Gather steps of a table": whole(
        "a = MatMul(x, w1) h = Gather <axis=1> (a, i) y = MatMul(h, w2)",
        {"w1": (6, 8), "i": ints(5, 6, 0, 1, 1, 3).reshape(3, 2), "w2": (8, 5)},
        inputs="float[N,7,6] x",
        outputs="float[N,3,2,5] y",
    ),
    "Tile": chain("h = Tile(c, times)", {"times": ints(1, 1, 2, 1)}),
    "Tile channels": chain("h = Tile(c, times)", {"times": ints(1, 2, 1, 1), "w2": (4, 16, 3, 3)}),
    "Expand": chain("p = GlobalAveragePool(c) h = Expand(p, shape)", {"shape": ints(1, 8, 4, 4)}),
    "Expand to fewer axes": chain(
        "p = ReduceMean <axes=[3]> (c) h = Expand(p, shape)", {"shape": ints(1, 8)}
    ),
    "Expand to more axes": whole(
        "a = Gemm(x, w1) h = Expand(a, shape) y = MatMul(h, w2)",
        {"w1": (6, 8), "shape": ints(3, 1, 8), "w2": (8, 5)},
        inputs="float[N,6] x",
        outputs="float[K,N,5] y",
    ),
    "ArgMax": chain("p = ArgMax <axis=2> (c) q = Cast <to=1> (p) h = Add(c, q)"),
    "ArgMax over time": whole(
        "a = MatMul(x, w1) p = ArgMax <axis=1, keepdims=0> (a) h = Cast <to=1> (p) y = Gemm(h, w2)",
        {"w1": (6, 8), "w2": (8, 5)},
        inputs="float[N,7,6] x",
        outputs=SCORES,
    ),
    "ArgMin": reduced(
        "p = GlobalMaxPool(c) q = Sub(c, p) a = ArgMin <axis=-1, keepdims=0> (q)"
        " f = Cast <to=1> (a) h = ReduceMax <axes=[2], keepdims=0> (f)"
    ),
}

import micro_attention  # noqa: E402, F401  (registers its models)
import micro_contrib  # noqa: E402, F401  (registers its models)
import micro_graphs  # noqa: E402, F401  (registers its models)
import micro_grids  # noqa: E402, F401  (registers its models)
import micro_recurrent  # noqa: E402, F401  (registers its models)
import micro_tied  # noqa: E402, F401  (registers its models)
