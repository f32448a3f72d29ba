"""Axes divided and merged by Reshape: pixel shuffles, group norms, heads outside attention."""

from __future__ import annotations

from micro_models import CONV_IN, CONV_OUT, MICRO_MODELS, chain, floats, ints, whole

GROUPED = """
d = Reshape (c, grouped) i = InstanceNormalization (d, one, zero)
s = Shape (c) e = Reshape (i, s) m = Mul (e, scale) h = Add (m, shift)
"""

MICRO_MODELS |= {
    "group norm by InstanceNormalization": chain(
        GROUPED.replace("s = Shape (c) e = Reshape (i, s)", "e = Reshape (i, whole)"),
        {
            "grouped": ints(0, 4, -1),
            "whole": ints(0, 8, 8, 8),
            "one": floats(1, 1, 1, 1),
            "zero": floats(0, 0, 0, 0),
            "scale": (8, 1, 1),
            "shift": (8, 1, 1),
        },
    ),
    "group norm back to the shape before": chain(
        GROUPED,
        {
            "grouped": ints(0, 4, -1),
            "one": floats(1, 1, 1, 1),
            "zero": floats(0, 0, 0, 0),
            "scale": (8, 1, 1),
            "shift": (8, 1, 1),
        },
    ),
    "pixel shuffle by Reshape and Transpose": chain(
        """
        d = Reshape (c, apart) t = Transpose <perm=[0,1,4,2,5,3]> (d) r = Reshape (t, together)
        h = Relu (r)
        """,
        {
            "w1": (32, 3, 3, 3),
            "b1": (32,),
            "apart": ints(0, 8, 2, 2, 8, 8),
            "together": ints(0, 8, 16, 16),
        },
    ),
    "pixel unshuffle by Reshape and Transpose": chain(
        """
        d = Reshape (c, apart) t = Transpose <perm=[0,1,3,5,2,4]> (d) h = Reshape (t, together)
        """,
        {"apart": ints(0, 8, 4, 2, 4, 2), "together": ints(0, 32, 4, 4), "w2": (4, 32, 3, 3)},
    ),
    "heads of a mean over positions": whole(
        f"{CONV_IN} d = Reshape (c, apart) p = ReduceMean <axes=[3,4], keepdims=0> (d)"
        " e = Mul (d, gain) m = Reshape (e, together) h = Relu (m) " + CONV_OUT,
        {
            "w1": (8, 3, 3, 3),
            "b1": (8,),
            "w2": (4, 8, 3, 3),
            "b2": (4,),
            "apart": ints(0, 2, 4, 8, 8),
            "together": ints(0, 8, 8, 8),
            "gain": (2, 4, 1, 1),
        },
    ),
    "shuffle between grouped convolutions": whole(
        "a = Conv (x, w0) c = Conv <group=3> (a, w1, b1) d = Reshape (c, apart)"
        " t = Transpose <perm=[0,2,1,3,4]> (d)"
        " s = Reshape (t, together) r = Relu (s) h = Conv <group=3> (r, w2, b2) y = Conv (h, w3)",
        {
            "w0": (6, 3, 1, 1),
            "w1": (24, 2, 1, 1),
            "b1": (24,),
            "w2": (12, 8, 1, 1),
            "b2": (12,),
            "w3": (4, 12, 1, 1),
            "apart": ints(0, 3, 8, 8, 8),
            "together": ints(0, 24, 8, 8),
        },
    ),
}
