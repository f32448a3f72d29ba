"""Weights that several nodes share: cut once, refitted once for all of them."""

from __future__ import annotations

from micro_models import CONV_IN, MICRO_MODELS, chain, whole

PYRAMID = f"""
{CONV_IN} p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (c)
d = Conv <pads=[1,1,1,1]> (c, w3, b3) e = Conv <pads=[1,1,1,1]> (p, w3, b4)
f = Conv <pads=[1,1,1,1]> (d, w4, b5) g = Conv <pads=[1,1,1,1]> (e, w4, b5)
"""
BIG = 32
"""Channels of the tied convolutions: smaller weights are copied, one for each reader."""

MICRO_MODELS |= {
    "tied Conv, one after the other": chain(
        "d = Conv <pads=[1,1,1,1]> (c, w3, b3) r = Relu (d) h = Conv <pads=[1,1,1,1]> (r, w3, b4)",
        {
            "w1": (BIG, 3, 3, 3),
            "b1": (BIG,),
            "w3": (BIG, BIG, 3, 3),
            "b3": (BIG,),
            "b4": (BIG,),
            "w2": (4, BIG, 3, 3),
        },
    ),
    "tied heads of a pyramid": whole(
        f"{PYRAMID} y = Conv (f, w2, b2) z = Conv (g, w2, b2)",
        {
            "w1": (BIG, 3, 3, 3),
            "b1": (BIG,),
            "w3": (BIG, BIG, 3, 3),
            "b3": (BIG,),
            "b4": (BIG,),
            "w4": (BIG, BIG, 3, 3),
            "b5": (BIG,),
            "w2": (15, BIG, 3, 3),
            "b2": (15,),
        },
        outputs="float[N,15,HY,WY] y, float[N,15,HZ,WZ] z",
    ),
    "tied MatMul without bias": whole(
        "a = MatMul (x, w1) r = Relu (a) b = MatMul (r, w) s = Relu (b) c = MatMul (s, w)"
        " t = Tanh (c) y = MatMul (t, w2)",
        {"w1": (6, 72), "w": (72, 72), "w2": (72, 5)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    ),
    "tied Gemm": whole(
        "a = Gemm (x, w1, b1) r = Relu (a) b = Gemm <transB=1> (r, w, b2) s = Relu (b)"
        " c = Gemm <transB=1> (s, w, b3) t = Tanh (c) y = Gemm (t, w2, b4)",
        {
            "w1": (6, 72),
            "b1": (72,),
            "w": (72, 72),
            "b2": (72,),
            "b3": (72,),
            "w2": (72, 5),
            "b4": (5,),
        },
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    ),
    "weights tied to their transpose": whole(
        "a = Gemm (x, w1, b1) r = Relu (a) y = Gemm <transB=1> (r, w1, b2)",
        {"w1": (64, 72), "b1": (72,), "b2": (64,)},
        inputs="float[N,64] x",
        outputs="float[N,64] y",
    ),
}
