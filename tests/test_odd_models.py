"""What parses and makes no sense: channels freeze, or it is refused, and nothing else happens."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
from micro_models import CONVS, MICRO_MODELS, Builder, chain, ints, whole
from pyarrow import parquet

from onnxprune import Target, prune
from onnxprune.calibration import InputSpec, load_calibration
from onnxprune.canonical import canonicalise
from onnxprune.errors import CalibrationError, PlanMismatchError, UnsupportedModelError
from onnxprune.groups import find_groups
from onnxprune.plan import Weights
from onnxprune.runtime import Session
from onnxprune.soundness import require_sound

HUGE = 2**32 + 6
LEAST = -(2**63)
VECTORS = {"inputs": "float[N,T,6] x", "outputs": "float[N,T,5] y"}
PRODUCT = {"w1": (6, 8), "w3": (7, 8), "w2": (7, 5)}


def product(equation: str, spoilt: bytes) -> Builder:
    """Linear maps around an Einsum of three axes and weights, whose equation is another."""
    nodes = f'a = MatMul (x, w1) h = Einsum<equation="{equation}">(a, w3) y = MatMul (h, w2)'

    def builder() -> onnx.ModelProto:
        model = whole(nodes, PRODUCT, **VECTORS)()
        model.graph.node[1].attribute[0].s = spoilt
        model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, None))
        return model

    return builder


def of_no_samples() -> onnx.ModelProto:
    """Heads that are joined, of no sample."""
    nodes = "t = Transpose <perm=[0,2,1,3]> (x) y = Reshape (t, joined)"
    weights = {"joined": ints(0, 0, -1)}
    return whole(nodes, weights, inputs="float[0,4,7,6] x", outputs="float[0,7,24] y")()


def convolution_with_an_odd_bias() -> onnx.ModelProto:
    nodes = "c = Conv <pads=[1,1,1,1]> (x, w1, b1)"
    nodes += " n = BatchNormalization (c, s, b, m, v) y = Conv (n, w2)"
    channels = {name: np.ones(8, np.float32) for name in "sbmv"}
    return whole(nodes, CONVS | channels | {"b1": (8, 3, 3, 3)})()


def convolution_with_a_bias_of_other_channels() -> onnx.ModelProto:
    """A model that the checker takes: only folding shows how many channels the bias has."""
    nodes = (
        "b1 = ConstantOfShape <value = float[1] {1}> (shape) c = Conv <pads=[1,1,1,1]> (x, w1, b1)"
    )
    nodes += " n = BatchNormalization (c, s, b, m, v) y = Conv (n, w2)"
    weights = {name: CONVS[name] for name in ("w1", "w2")}
    channels = {name: np.ones(8, np.float32) for name in "sbmv"}
    return whole(nodes, weights | channels | {"shape": ints(1024)})()


def computed(shape: str, node: str, **numbers: int) -> Callable[[], onnx.ModelProto]:
    """A new shape from the batch, joined with a number that arithmetic makes."""
    nodes = (
        f"n = Shape <start=0, end=1> (c) m = {shape} s = Concat <axis=0> (n, m, one, one) {node}"
    )
    return chain(nodes, {name: ints(number) for name, number in numbers.items()} | {"one": ints(1)})


def a_cell_without_units() -> onnx.ModelProto:
    model = MICRO_MODELS["LSTM"]()
    recurrence = next(tensor for tensor in model.graph.initializer if tensor.name == "r1")
    recurrence.dims[2] = 0
    recurrence.raw_data = b""
    return model


def a_cell_with_flat_weights() -> onnx.ModelProto:
    model = MICRO_MODELS["LSTM"]()
    for place in (1, 2):
        model.graph.node[0].input[place] = "b1"
    return model


def a_gemm_by_a_number() -> onnx.ModelProto:
    """Of opset 11, of which inference says nothing against it."""
    model = MICRO_MODELS["Squeeze, all of 1, attributes"]()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w3")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.float32(2), "w3"))
    return model


ODD = {
    "weights of nothing": whole(
        'h = Einsum<equation="btk,dk->btd">(x, w) y = MatMul (h, v)',
        {"w": np.zeros((3, 0), np.float32), "v": (3, 5)},
        inputs="float[N,T,K] x",
        outputs="float[N,T,5] y",
    ),
    "a squeeze of nothing": whole(
        "c = Conv (x, w1) f = Flatten (c) s = Squeeze (f) y = Gemm (s, w3)",
        {"w1": (8, 3, 8, 8), "w3": (8, 5)},
        outputs="float[N,5] y",
        opset=11,
    ),
    "a Gemm by a number": a_gemm_by_a_number,
    "a cell with flat weights": a_cell_with_flat_weights,
    "a cell without units": a_cell_without_units,
    "a letter that no operand has": product("btk,dk->btd", b"btk,dk->btd\0"),
    "letters for other axes": product("btk,dk->btd", b"btk,dkj->btdj"),
    "a bias of four axes": convolution_with_an_odd_bias,
    "a shuffle of nothing": of_no_samples,
    "a reshape to more channels than anything has": chain(
        "r = Reshape (c, apart) t = Transpose <perm=[0,2,1,3]> (r) h = Reshape (t, joined)",
        {"apart": ints(0, 4, 2, -1), "joined": ints(0, HUGE, -1)},
        inputs="float[N,3,H,W] x",
    ),
    "as many features as an image of such a size has": whole(
        "c = Conv (x, w1) y = Flatten (c)",
        {"w1": (8, 3, 1, 1)},
        inputs="float[N,3,65536,65536] x",
        outputs="float[N,C] y",
    ),
    "a tile of them": chain("h = Tile (c, times)", {"times": ints(1, 2**31 - 1, 1, 1)}),
    "a tile below nothing, computed": computed("Identity (k)", "h = Tile (c, s)", k=LEAST),
    "a tile below any number": computed("Sub (k, one)", "h = Tile (c, s)", k=LEAST),
    "a tile beyond any number": computed("Mul (k, k)", "h = Tile (c, s)", k=HUGE),
    "a reshape beyond any number": computed("Mul (k, k)", "h = Reshape (c, s)", k=HUGE),
    "a tile of nothing": chain("h = Tile (c, times)", {"times": ints(1, -1, 1, 1)}),
    "a shape of so many elements": chain(
        "s = ConstantOfShape <value = int64[1] {1}> (n) h = Reshape (c, s)", {"n": ints(HUGE)}
    ),
    "a shape that is spread so far": chain(
        "s = Expand (one, n) h = Reshape (c, s)", {"one": ints(1), "n": ints(HUGE)}
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_understood_as_far_as_they_go(name: str) -> None:
    """Without ``blamed``, which takes any failure on an invalid model for the model's fault."""
    network = find_groups(canonicalise(ODD[name]()))
    assert all(0 < group.size < 100 for group in network.groups)


@pytest.mark.parametrize(
    ("node", "place"), [("Einsum", 1), ("Conv", 1), ("MatMul", 0), ("Clip", 0), ("Concat", 1)]
)
def test_an_input_that_an_operator_needs_is_missed(node: str, place: int) -> None:
    """Runtimes read what is not there, and take the process down."""
    model = MICRO_MODELS["Conv"]()
    inputs = ["c", "c", "c"][: 3 if node == "Clip" else 2]
    attributes = {"Einsum": {"equation": "ab,ab->ab"}, "Concat": {"axis": 1}}.get(node, {})
    added = onnx.helper.make_node(node, inputs, ["added"], "spoilt", **attributes)
    model.graph.node.append(added)
    require_sound(model)
    model.graph.node[-1].input[place] = ""
    with pytest.raises(UnsupportedModelError, match=f"'spoilt' lacks its input {place}, .* {node}"):
        require_sound(model)


def test_empty_lists_mean_what_none_does(tmp_path: Path) -> None:
    """As the axes of a mean over all of them."""
    nodes = "c = Conv (x, w1) m = ReduceMean (c) d = Sub (c, m) y = Conv (d, w2)"
    model = whole(nodes, CONVS, opset=17)()
    empty = onnx.AttributeProto(name="axes", type=onnx.AttributeProto.INTS)
    model.graph.node[1].attribute.append(empty)
    feed = {"x": np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)}
    (before,), (after,) = (Session(m).run(feed) for m in (model, canonicalise(model)))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_a_split_has_as_many_outputs_as_it_says() -> None:
    model = MICRO_MODELS["Conv"]()
    split = onnx.helper.make_node("Split", ["c"], ["p", "q"], "halves", num_outputs=2)
    model.graph.node.append(split)
    require_sound(model)
    split.output.append("r")
    model.graph.node[-1].CopyFrom(split)
    with pytest.raises(UnsupportedModelError, match="'halves' has 3 outputs, but num_outputs 2"):
        require_sound(model)


def test_a_layer_whose_input_has_no_known_axes_is_named() -> None:
    nodes = "c = Conv (x, w1) d = Conv (c, w2) s = Squeeze (d) f = Flatten (s) y = Gemm (f, w3)"
    weights = {"w1": (8, 3, 3, 3), "w2": (4, 8, 1, 1), "w3": (144, 5)}
    model = whole(nodes, weights, outputs="float[N,5] y")()
    model.graph.node[-1].name = "head"
    samples = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    with pytest.raises(UnsupportedModelError, match="f, which 'head' reads, has an unknown number"):
        prune(model, samples, Target("macs", 0.5))


def test_optional_inputs_may_be_left_out() -> None:
    model = MICRO_MODELS["Conv"]()
    model.graph.node.append(onnx.helper.make_node("Clip", ["c", "", "high"], ["clipped"]))
    model.graph.node.append(onnx.helper.make_node("Resize", ["c", "", "", "sizes"], ["resized"]))
    require_sound(model)


@pytest.mark.parametrize("where", ["input", "output", "value_info"])
def test_a_type_that_there_is_not_is_refused(where: str) -> None:
    model = MICRO_MODELS["Conv"]()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("c", 1, None))
    value = getattr(model.graph, where)[0]
    value.type.tensor_type.elem_type = 2**31 - 1
    with pytest.raises(UnsupportedModelError, match=f"'{value.name}' has the unknown type"):
        require_sound(model)


def test_a_part_of_a_tensor_is_refused() -> None:
    model = MICRO_MODELS["Conv"]()
    model.graph.initializer[0].segment.begin = 2
    with pytest.raises(UnsupportedModelError, match="'w1' is a part of a tensor"):
        require_sound(model)


def test_a_table_of_fewer_rows_than_none_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"x": [[1.0, 2.0]] * 4}), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    inputs = (InputSpec("x", ("N", 2), np.dtype(np.float32)),)
    found = 0
    for place in range(len(content) - 600, len(content) - 8):
        if content[place] == 8:  # four rows, as the footer spells them; 7 spells -4
            path = tmp_path / f"{place}.parquet"
            path.write_bytes(content[:place] + b"\x07" + content[place + 1 :])
            try:
                load_calibration(path, inputs)
            except CalibrationError as error:
                found += "it declares -4 rows" in str(error)
    assert found


def test_a_shard_whose_header_is_longer_than_anything_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("a.x.npy")
        entry.pax_headers = {"comment": "c" * 20}
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"1234"))
    content = path.read_bytes()
    place = content.index(b"comment=")
    digits = b"9" * 25 + b" comment=cc\n"
    path.write_bytes(content[: place - 3] + digits + content[place - 3 + len(digits) :])
    inputs = (InputSpec("x", ("N", 2), np.dtype(np.float32)),)
    with pytest.raises(CalibrationError, match=r"data.tar: cannot be read as \.tar"):
        load_calibration(path, inputs)


@pytest.mark.parametrize("key", ["weight.0", "bias.0", "constant.0", "refined.0"])
def test_weights_are_numbers(tmp_path: Path, key: str) -> None:
    arrays = {"name.0": "conv", "weight.0": np.ones((2, 2)), "bias.0": np.ones(2)}
    arrays |= {"section.0": "s", "constant.0": np.ones(2), "initializer.0": "w"}
    arrays |= {"refined.0": np.ones(2)}
    np.savez(tmp_path / "w.npz", **arrays)
    assert list(Weights.load(tmp_path / "w.npz").arrays) == ["conv"]
    np.savez(tmp_path / "w.npz", **arrays | {key: np.array(["one", "two"])})
    with pytest.raises(PlanMismatchError, match=f"{key} holds no numbers"):
        Weights.load(tmp_path / "w.npz")
