"""Every operator computes in torch what onnxruntime computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS, Builder, Weight, build, floats, ints
from oracles import EPS, distance, random_feed

torch = pytest.importorskip("torch")

from onnxprune.rules import registered  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.operators import known  # noqa: E402

WITHOUT_FUNCTION: dict[tuple[str, str], str] = {}
"""Operators that have a channel rule and cannot be trained through, and why."""

ROUNDING = 64 * EPS
"""Ten nodes that sum some hundred products each in another order, and what a division enlarges."""

SIZES = {"shuffle of series": 10}
"""Extents of dynamic axes of models that do not take every one."""


def torch_feed(feed: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in feed.items()}


def evaluated(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    network = TrainableNetwork(model).eval()
    with torch.no_grad():
        return [value.numpy() for value in network(torch_feed(feed)).values()]


def test_every_operator_with_a_rule_has_a_function() -> None:
    assert set(registered()) - known() == set(WITHOUT_FUNCTION)


@pytest.mark.parametrize("name", MICRO_MODELS)
def test_micro_models_agree(name: str, rng: np.random.Generator) -> None:
    model = MICRO_MODELS[name]()
    feed = random_feed(model, rng, 2, SIZES.get(name, 9))
    wanted = Session(model, threads=1, optimization="none").run(feed)
    assert distance(evaluated(model, feed), wanted) < ROUNDING


IMAGE = "float[2,3,7,8] x"
ANY = "float[A,B,C,D] y"


def one(
    nodes: str, weights: dict[str, Weight] | None = None, inputs: str = IMAGE, outputs: str = ANY
) -> Builder:
    return lambda: build(nodes, weights or {}, inputs=inputs, outputs=outputs)


def opset(number: int, builder_nodes: str, weights: dict[str, Weight] | None = None) -> Builder:
    ir = 11 if number > 20 else 9
    return lambda: build(
        builder_nodes, weights or {}, inputs=IMAGE, outputs=ANY, opset=number, ir=ir
    )


WINDOW: dict[str, Weight] = {"w": (4, 3, 3, 3), "b": (4,)}
SPREAD: dict[str, Weight] = {"w": (3, 4, 3, 3), "b": (4,)}
CASES: dict[str, Builder] = {
    f"Conv {pad}": one(f'y = Conv <auto_pad="{pad}", strides=[2,3]> (x, w, b)', WINDOW)
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
}
CASES |= {
    f"ConvTranspose {pad}": one(
        f'y = ConvTranspose <auto_pad="{pad}", strides=[2,3]> (x, w, b)', SPREAD
    )
    for pad in ("SAME_UPPER", "SAME_LOWER", "VALID")
}
CASES |= {
    "ConvTranspose to a shape": one(
        "y = ConvTranspose <output_shape=[16,18], strides=[2,2]> (x, w, b)", SPREAD
    ),
    "ConvTranspose, all attributes": one(
        "y = ConvTranspose <output_padding=[1,0], pads=[1,0,2,1], strides=[2,1], dilations=[2,1]>"
        " (x, w, b)",
        SPREAD,
    ),
    "Conv, uneven pads": one("y = Conv <pads=[0,1,2,1], dilations=[1,2]> (x, w, b)", WINDOW),
    "MaxPool, rounded up": one(
        "y = MaxPool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[0,1,1,0]> (x)"
    ),
    "MaxPool, dilated": one("y = MaxPool <kernel_shape=[3,2], dilations=[2,3]> (x)"),
    "MaxPool, places": one(
        "m, p = MaxPool <kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]> (x) y = Cast <to=1> (p)"
    ),
    "MaxPool, places by column": one(
        "m, p = MaxPool <kernel_shape=[3,2], strides=[2,2], storage_order=1> (x)"
        " y = Cast <to=1> (p)"
    ),
    "AveragePool, rounded up": one(
        "y = AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (x)"
    ),
    "AveragePool, padded": one(
        "y = AveragePool <kernel_shape=[3,3], strides=[2,2], pads=[1,0,1,2]> (x)"
    ),
    "AveragePool, paddings count": one(
        "y = AveragePool <kernel_shape=[3,2], pads=[1,0,1,1], count_include_pad=1> (x)"
    ),
    "AveragePool SAME": one(
        'y = AveragePool <kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER"> (x)'
    ),
    "AveragePool, dilated": opset(
        19, "y = AveragePool <kernel_shape=[2,3], dilations=[2,2], strides=[2,1]> (x)"
    ),
    "LpPool, padded": one("y = LpPool <kernel_shape=[3,3], p=3, pads=[1,1,0,1]> (x)"),
    "Pad reflect": one('y = Pad <mode="reflect"> (x, p)', {"p": ints(0, 0, 3, 1, 0, 0, 2, 4)}),
    "Pad edge": one('y = Pad <mode="edge"> (x, p)', {"p": ints(1, 0, 3, 1, 0, 1, 2, 9)}),
    "Pad wrap": opset(19, 'y = Pad <mode="wrap"> (x, p)', {"p": ints(0, 0, 3, 1, 0, 0, 2, 4)}),
    "Pad negative": one("y = Pad (x, p, v)", {"p": ints(0, 0, -2, 1, 0, 0, 2, -4), "v": floats(3)}),
    "Pad some axes": opset(
        18, "y = Pad (x, p, v, a)", {"p": ints(1, 2, 0, 3), "v": floats(3), "a": ints(3, -2)}
    ),
    "Slice backwards": one(
        "y = Slice (x, s, e, a, t)",
        {"s": ints(-1, 6), "e": ints(-100, 0), "a": ints(3, 2), "t": ints(-2, -3)},
    ),
    "Slice in steps": one(
        "y = Slice (x, s, e, a, t)",
        {"s": ints(1, 0), "e": ints(100, -1), "a": ints(-1, 2), "t": ints(3, 2)},
    ),
    "Slice nothing": one("y = Slice (x, s, e, a)", {"s": ints(5), "e": ints(2), "a": ints(2)}),
    "Split unequal": opset(
        18, "a, b, c = Split <axis=3, num_outputs=3> (x) y = Concat <axis=3> (c, a, b)"
    ),
    "CumSum exclusive and reverse": one(
        "y = CumSum <exclusive=1, reverse=1> (x, a)", {"a": np.array(-1)}
    ),
    "TopK smallest": one(
        "v, p = TopK <axis=2, largest=0> (x, k) f = Cast <to=1> (p) y = Add (v, f)", {"k": ints(3)}
    ),
    "ArgMax, last of equals": one(
        "r = Round (x) p = ArgMax <axis=3, select_last_index=1> (r) y = Cast <to=1> (p)"
    ),
    "ScatterElements added": opset(
        18,
        'y = ScatterElements <axis=3, reduction="add"> (x, i, u)',
        {"i": np.array([[[[0, 0, -1]]]]), "u": (1, 1, 1, 3)},
    ),
    "ScatterND largest": opset(
        18,
        'y = ScatterND <reduction="max"> (x, i, u)',
        {"i": np.array([[0, 1], [1, 2], [0, 1]]), "u": (3, 7, 8)},
    ),
    "GatherND by sample": one(
        "y = GatherND <batch_dims=1> (x, i)",
        {"i": np.array([[[0, 1], [2, -1]], [[1, 1], [0, 3]]])},
        outputs="float[A,B,C] y",
    ),
    "OneHot": one(
        "r = Round (x) i = Cast <to=7> (r) o = OneHot <axis=1> (i, d, v)"
        " y = ReduceSum <keepdims=0> (o, a)",
        {"d": np.array(4), "v": floats(-1, 2), "a": ints(2)},
    ),
    "NonZero": one(
        "r = Relu (x) n = NonZero (r) f = Cast <to=1> (n) y = Unsqueeze (f, a)", {"a": ints(0, 3)}
    ),
    "EyeLike": one(
        "s = Slice (x, z, o, z) q = Squeeze (s, z) t = Slice (q, z, o, z) u = Squeeze (t, z)"
        " e = EyeLike <k=1> (u) y = Unsqueeze (e, a)",
        {"z": ints(0), "o": ints(1), "a": ints(0, 1)},
    ),
    "Mod as in C": one("y = Mod <fmod=1> (x, d)", {"d": floats(0.3)}),
    "Div of whole numbers": one(
        "h = Mul (x, f) i = Cast <to=7> (h) q = Div (i, d) y = Cast <to=1> (q)",
        {"f": floats(10), "d": ints(-3)},
    ),
    "Mod of whole numbers": one(
        "h = Mul (x, f) i = Cast <to=7> (h) q = Mod (i, d) y = Cast <to=1> (q)",
        {"f": floats(10), "d": ints(-3)},
    ),
    "Softmax of several axes": opset(11, "y = Softmax <axis=2> (x)"),
    "Hardmax of several axes": opset(11, "y = Hardmax <axis=2> (x)"),
    "ReduceSum of nothing": one("y = ReduceSum <noop_with_empty_axes=1> (x)"),
    "ReduceMax of attributes": one("y = ReduceMax <axes=[-1, 1]> (x)"),
    "GridSample at corners": one(
        'y = GridSample <mode="bicubic", padding_mode="reflection", align_corners=1> (x, g)',
        {"g": np.random.default_rng(0).uniform(-1.4, 1.4, (2, 5, 6, 2)).astype(np.float32)},
    ),
    "GridSample nearest at the border": opset(
        20,
        'y = GridSample <mode="nearest", padding_mode="border"> (x, g)',
        {"g": np.random.default_rng(0).uniform(-1.4, 1.4, (2, 5, 6, 2)).astype(np.float32)},
    ),
    "RoiAlign, samples by size": one(
        "y = RoiAlign <output_height=3, output_width=2, spatial_scale=0.5> (x, r, i)",
        {"r": np.array([[0, 0, 13, 15], [-4, -6, 7, 30]], np.float32), "i": ints(0, 1)},
    ),
    "RoiAlign, half a pixel off": one(
        'y = RoiAlign <coordinate_transformation_mode="output_half_pixel", output_height=3,'
        " output_width=2> (x, r, i)",
        {"r": np.array([[0, 0, 6, 7], [2, 3, 2.5, 3]], np.float32), "i": ints(1, 1)},
    ),
}
MODES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
CASES |= {
    f"Resize {mode}, {mapping}, {scale}": one(
        f'y = Resize <mode="{mode}", coordinate_transformation_mode="{mapping}"> (x, , s)',
        {"s": floats(1, 1, scale, 1 / scale)},
    )
    for mode in ("linear", "cubic", "nearest")
    for mapping in MODES
    for scale in (0.6, 2.0)
}
CASES |= {
    f"Resize nearest, {rounding}": one(
        f'y = Resize <nearest_mode="{rounding}"> (x, , s)', {"s": floats(1, 1, 0.7, 2.5)}
    )
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
}
CASES |= {
    "Resize cubic, inside only": one(
        'y = Resize <mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5> (x, , s)',
        {"s": floats(1, 1, 1.7, 0.7)},
    ),
    "Resize of a region": one(
        'y = Resize <mode="linear", coordinate_transformation_mode="tf_crop_and_resize",'
        " extrapolation_value=7.0> (x, r, , n)",
        {"r": floats(0, 0, 0.2, -0.3, 1, 1, 0.7, 0.9), "n": ints(2, 3, 5, 6)},
    ),
    "Resize by halves": opset(
        19,
        'y = Resize <mode="linear", coordinate_transformation_mode="half_pixel_symmetric">'
        " (x, , s)",
        {"s": floats(1, 1, 0.6, 1.3)},
    ),
    "Resize without aliases": opset(
        18, 'y = Resize <mode="linear", antialias=1> (x, , s)', {"s": floats(1, 1, 0.5, 0.6)}
    ),
    "Resize cubic without aliases": opset(
        18, 'y = Resize <mode="cubic", antialias=1> (x, , s)', {"s": floats(1, 1, 0.5, 0.6)}
    ),
    "Resize in proportion": opset(
        18,
        'y = Resize <mode="linear", keep_aspect_ratio_policy="not_larger", axes=[2,3]> (x, , , n)',
        {"n": ints(4, 5)},
    ),
    "Resize, opset 10": opset(10, 'y = Resize <mode="linear"> (x, s)', {"s": floats(1, 1, 2, 0.7)}),
    "Resize nearest, opset 10": opset(10, "y = Resize (x, s)", {"s": floats(1, 1, 2, 0.7)}),
    "Upsample linear": opset(9, 'y = Upsample <mode="linear"> (x, s)', {"s": floats(1, 1, 2, 3)}),
}


@pytest.mark.parametrize("name", CASES)
def test_forms_of_operators_agree(name: str, rng: np.random.Generator) -> None:
    model = CASES[name]()
    feed = random_feed(model, rng, 2)
    wanted = Session(model, threads=1, optimization="none").run(feed)
    assert distance(evaluated(model, feed), wanted) < ROUNDING
