"""Models that no library should be given, and whose fault a failure is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from onnx import TensorProto, helper, numpy_helper, parser

from onnxprune.blame import blamed, complaint
from onnxprune.errors import UnsupportedModelError
from onnxprune.folding import fold_constants
from onnxprune.model import infer_shapes, load
from onnxprune.propagation import is_bounded
from onnxprune.soundness import require_sound
from onnxprune.survey import survey


def conv() -> onnx.ModelProto:
    return MICRO_MODELS["Conv"]()


def function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes = [helper.make_node(call, ["a"], [f"b{i}"], domain="own") for i, call in enumerate(calls)]
    nodes.append(helper.make_node("Relu", ["b0" if calls else "a"], ["c"]))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["c"], nodes, imports)


def with_functions(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    model = conv()
    model.functions.extend(functions)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node[0].op_type, model.graph.node[0].domain = functions[0].name, "own"
    return model


def forged(change: str) -> onnx.ModelProto:
    """A model with one fault."""
    model = conv()
    tensor, nodes = model.graph.initializer[0], model.graph.node
    if change == "negative":
        tensor.dims[0] = -1
    elif change == "huge":
        tensor.dims[0] = 2**40
    elif change == "truncated":
        tensor.raw_data = tensor.raw_data[:-3]
    elif change == "type":
        tensor.data_type = 1000
    elif change == "circle":
        nodes[0].input[0] = nodes[-1].output[0]
    elif change == "itself":
        nodes[0].input[0] = nodes[0].output[0]
    elif change == "twice":
        nodes[-1].output[0] = nodes[0].output[0]
    elif change == "opset":
        model.opset_import[0].version = 10**6
    elif change == "no opset":
        model.opset_import[0].version = -4
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("negative", r"'w1' has the shape \[-1, 3, 3, 3\]"),
        ("huge", "'w1' of the shape .* needs .* values, but the file holds 216"),
        ("truncated", "'w1' of the shape"),
        ("type", "'w1' has the unknown type 1000"),
        ("circle", "circle at node"),
        ("itself", "circle at node"),
        ("twice", "'c' is made by several nodes"),
        ("opset", "opset 1000000"),
        ("no opset", "opset -4, which there never was"),
    ],
)
def test_forged_models_are_refused_when_they_are_loaded(tmp_path: Path, change: str, message: str):
    path = tmp_path / "in.onnx"
    path.write_bytes(forged(change).SerializeToString())
    with pytest.raises(UnsupportedModelError, match=message) as refusal:
        load(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("place", [b"Conv", b"w1", b"graph_"])
def test_what_is_no_text_is_refused(place: bytes) -> None:
    model = conv()
    model.graph.name = "graph_"
    content = model.SerializeToString()
    require_sound(onnx.load_from_string(content))
    spoilt = onnx.load_from_string(content.replace(place, place[:-1] + b"\xff"))
    with pytest.raises(
        UnsupportedModelError, match=r"Proto\.\w+ of the model .* are no text, .*xff"
    ):
        require_sound(spoilt)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_inputs_and_outputs_are_listed_once(kind: str) -> None:
    model = conv()
    values = getattr(model.graph, kind)
    values.append(values[0])
    with pytest.raises(UnsupportedModelError, match=f"{kind} '[xy]' of the graph is listed twice"):
        require_sound(model)


def test_a_group_of_nothing_is_refused() -> None:
    model = conv()
    model.graph.node[0].attribute.append(helper.make_attribute("group", 0))
    with pytest.raises(UnsupportedModelError, match="attribute group of node 'Conv' is 0"):
        require_sound(model)


@pytest.mark.parametrize("location", ["a" * 300, "../w", "/etc/hostname", "missing", ""])
def test_external_data_is_read_from_the_own_folder_or_refused(
    tmp_path: Path, location: str
) -> None:
    model = conv()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "w").write_bytes(bytes(1000))
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "in.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedModelError, match="its external data cannot be read"):
        load(path)


def test_a_tensor_inside_a_subgraph_is_looked_at() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["z"], value=numpy_helper.from_array(np.ones(3)))],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.DOUBLE, [3])],
    )
    inner.node[0].attribute[0].t.dims[0] = 2**40
    model = conv()
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=inner))
    with pytest.raises(UnsupportedModelError, match="a constant of node 'Constant'"):
        require_sound(model)


def test_functions_that_call_themselves_are_refused() -> None:
    for functions in ([function("f", "f")], [function("f", "g"), function("g", "f")]):
        with pytest.raises(UnsupportedModelError, match="calls itself"):
            require_sound(with_functions(*functions))


def test_functions_that_unfold_without_end_are_refused() -> None:
    chain = [function(f"f{i}", f"f{i + 1}", f"f{i + 1}") for i in range(40)]
    with pytest.raises(UnsupportedModelError, match="nodes when its functions are written out"):
        require_sound(with_functions(*chain, function("f40")))
    require_sound(with_functions(*chain[36:], function("f40")))


@pytest.mark.parametrize(
    ("dims", "places", "message"),
    [
        ([2**40, 3], [0, 1], "make it dense"),
        ([8, -1], [0, 1], "make it dense"),
        ([8, 3], [0, 24], "outside"),
        ([8, 3], [-1, 2], "outside"),
        ([8, 3], [0, 1, 2], "do not fit"),
    ],
)
def test_sparse_tensors_are_held_against_their_shape(dims, places, message) -> None:
    model = conv()
    sparse = onnx.SparseTensorProto(dims=dims)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(places)))
    model.graph.sparse_initializer.append(sparse)
    with pytest.raises(UnsupportedModelError, match=message):
        require_sound(model)


@pytest.mark.parametrize("kind", [k for k in TensorProto.DataType.values() if k])
def test_every_type_of_tensor_is_measured_right(kind: int) -> None:
    if kind == TensorProto.STRING:
        tensor = helper.make_tensor("t", kind, [3], [b"a", b"b", b"c"])
    else:
        tensor = helper.make_tensor("t", kind, [3], [1, 0, 1])
    model = conv()
    model.graph.initializer.append(tensor)
    require_sound(model)
    if kind != TensorProto.STRING:
        model.graph.initializer[-1].CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor), "t")
        )
        require_sound(model)


def test_sound_models_pass() -> None:
    for make in MICRO_MODELS.values():
        require_sound(make())


def test_what_fails_in_an_invalid_model_is_its_fault() -> None:
    model = build(f"{CONV_IN} h = Relu(c, c) {CONV_OUT}", CONVS)
    assert complaint(model)
    with pytest.raises(UnsupportedModelError, match="not valid ONNX"), blamed(model):
        raise IndexError("somewhere deep inside")


def test_what_fails_in_a_valid_model_is_ours() -> None:
    with pytest.raises(IndexError), blamed(conv()):
        raise IndexError("somewhere deep inside")
    with pytest.raises(MemoryError), blamed(forged("negative")):
        raise MemoryError


def test_a_survey_says_what_is_wrong() -> None:
    model = conv()
    del model.graph.node[-1].input[1:]
    with pytest.raises(UnsupportedModelError):
        survey(model)


BOMBS = {
    "a function": """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[N,3,8,8] x) => (float[M] y) <int64[1] big={1099511627776}, float[1] one={1.0}>
        { t = Tile(one, big) y = own.act(t) }
        <domain: "own", opset_import: ["": 17]> act (a) => (b) { t = Relu(a) b = Mul(t, t) }""",
    "a cast": """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,3,8,8] x) => (int32[M] y) <int64[1] big={1099511627776}, float[1] one={1.0}>
        { e = Expand(one, big) y = Cast<to=6>(e) }""",
    "doubled": """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,3,8,8] x) => (int64[M] y) <int64[1] one={1}> { c0 = Concat<axis=0>(one, one) """
    + " ".join(f"c{i + 1} = Concat<axis=0>(c{i}, c{i})" for i in range(30))
    + " y = Identity(c30) }",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_shape_inference_carries_no_bombs_along(bomb: str) -> None:
    model = parser.parse_model(BOMBS[bomb])
    assert not is_bounded(model)
    started = time.process_time()
    infer_shapes(model)
    assert time.process_time() - started < 1


def test_shape_arithmetic_of_micro_models_is_carried_along() -> None:
    models = [make() for make in MICRO_MODELS.values()]
    assert all(is_bounded(model) for model in models if not model.functions)


def test_a_constant_far_larger_than_its_recipe_stays_one() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,3,8,8] x) => (float[N,3,8,8] y) <int64[4] dims={EXTENT, 3, 8, 8}> {
      c = ConstantOfShape(dims) s = ReduceSum<keepdims=1>(c) y = Add(x, s) }"""
    for extent, kept in (("4", 0), ("4194304", 1)):
        graph = fold_constants(parser.parse_model(text.replace("EXTENT", extent)))
        assert sum(node.op == "ConstantOfShape" for node in graph.nodes) == kept


def test_a_rule_that_fails_names_its_node() -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,2,3,4] x) => (float[A,B,C,D] y) { y = Transpose<perm=[0, 1, 2, 4]>(x) }"""
    with pytest.raises(UnsupportedModelError, match="Transpose"):
        survey(parser.parse_model(text))


def test_extents_beyond_memory_are_only_numbers() -> None:
    model = conv()
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[3].dim_value = 2**40
    assert survey(model).macs > 2**40
