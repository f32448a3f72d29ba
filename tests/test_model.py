"""Models go in and come out with everything that is not the graph intact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import CONV_IN, CONV_OUT, CONVS, MICRO_MODELS, build
from onnx import helper, numpy_helper
from oracles import Subject, outputs_match, random_keeps, structure_ok

from onnxprune.canonical import canonicalise
from onnxprune.errors import OnnxPruneError, UnsupportedModelError
from onnxprune.model import import_graph, infer_shapes, is_large, load, pending
from onnxprune.rewrite import apply


def headed() -> onnx.ModelProto:
    """A model with every field of the header set."""
    model = MICRO_MODELS["residual"]()
    model.producer_name, model.producer_version = "trainer", "1.2"
    model.domain, model.model_version, model.doc_string = "org.example", 7, "a residual block"
    helper.set_model_props(model, {"classes": "cat,dog", "stride": "2"})
    model.graph.doc_string = "the graph"
    model.graph.node[0].doc_string = "the first node"
    model.graph.input[0].doc_string = "RGB"
    note = model.graph.quantization_annotation.add()
    note.tensor_name = "h"
    gone = model.graph.quantization_annotation.add()
    gone.tensor_name = "no such tensor"
    return model


def test_header_and_notes_survive_a_cut(rng: np.random.Generator) -> None:
    model = headed()
    micro = Subject(model)
    pruned = apply(model, micro.plan(random_keeps(micro.network, rng, 0.5)))
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(pruned, field) == getattr(model, field), field
    assert list(pruned.metadata_props) == list(model.metadata_props)
    assert pruned.graph.name == model.graph.name
    assert pruned.graph.doc_string == "the graph"
    assert pruned.graph.node[0].doc_string == "the first node"
    assert list(pruned.graph.input) == list(model.graph.input)
    assert [note.tensor_name for note in pruned.graph.quantization_annotation] == ["h"]
    structure_ok(pruned, model)


def test_intermediate_shapes_are_those_of_the_cut_model() -> None:
    micro = Subject(headed())
    group = micro.network.groups[0]
    pruned = apply(micro.model, micro.plan({group.name: np.arange(3)}))
    shapes = {
        value.name: [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]
        for value in pruned.graph.value_info
    }
    assert shapes["r"] == ["N", 3, 8, 8]


def test_initializers_stay_inputs_where_the_format_asks_for_it(rng: np.random.Generator) -> None:
    model = build(f"{CONV_IN} h = Relu(c) {CONV_OUT}", CONVS, opset=8, ir=3)
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
        for t in model.graph.initializer
    )
    micro = Subject(model)
    pruned = apply(model, micro.plan({"Conv_0": np.array([0, 3])}))
    structure_ok(pruned, model)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.input
    }
    assert shapes["w1"] == [2, 3, 3, 3]
    assert set(shapes) == {"x", "w1", "b1", "w2", "b2"}
    outputs_match(canonicalise(model), model, 1e-6, rng)


def test_a_model_in_the_oldest_form_imports_no_initializer_as_input() -> None:
    model = build("y = Relu(x)", {}, outputs="float[N,3,8,8] y", ir=3, opset=8)
    assert [t.name for t in import_graph(model).inputs] == ["x"]


def test_unnamed_extents_are_told_apart() -> None:
    model = build("y = Relu(x)", {}, inputs="float[N,3,H,W] x", outputs="float[A,B,C,D] y")
    for place, name in ((0, "?"), (2, "None"), (3, "")):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = name
    assert import_graph(model).inputs[0].shape == [None, 3, None, None]
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert import_graph(model).inputs[0].shape[0] is None


def test_strict_inference_names_the_contradiction() -> None:
    model = build("y = MatMul(x, w)", {"w": (4, 5)}, inputs="float[N,3] x", outputs="float[N,5] y")
    with pytest.raises(UnsupportedModelError, match="shapes cannot be inferred"):
        infer_shapes(model, strict=True)
    assert infer_shapes(model).graph.node[0].op_type == "MatMul"


# --- files --------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    model = MICRO_MODELS["Conv"]()
    onnx.save(model, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx") == model
    assert load(str(tmp_path / "model.onnx")) == model


def test_external_data_is_read_from_beside_the_model(tmp_path: Path) -> None:
    model = MICRO_MODELS["Conv"]()
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    loaded = load(tmp_path / "m.onnx")
    for tensor in loaded.graph.initializer:
        assert np.array_equal(numpy_helper.to_array(tensor), weights[tensor.name])


def external(tmp_path: Path, location: str) -> Path:
    model = MICRO_MODELS["Conv"]()
    tensor = model.graph.initializer[0]
    count = len(numpy_helper.to_array(tensor).tobytes())
    (tmp_path / "outside.bin").write_bytes(bytes(count))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(count))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin", "/etc/hostname"])
def test_external_data_that_is_missing_or_elsewhere_is_refused(
    location: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match="external data"):
        load(external(tmp_path, location))


def test_external_data_behind_a_link_is_refused(tmp_path: Path) -> None:
    path = external(tmp_path, "link.bin")
    (path.parent / "link.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(UnsupportedModelError, match="external data"):
        load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "no ONNX graph"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a readable ONNX model"),
        (b"plain text, no protobuf", "not a readable ONNX model"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=message):
        load(path)


def test_a_truncated_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    whole = MICRO_MODELS["Conv"]().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedModelError, match="not a readable ONNX model"):
        load(path)
    with pytest.raises(UnsupportedModelError, match="a folder, not a model file"):
        load(tmp_path)


def test_an_error_inside_a_pending_block_keeps_its_own_words(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="the disk of the validation"),
        pending(MICRO_MODELS["Conv"](), tmp_path / "out.onnx"),
    ):
        raise OSError("the disk of the validation")
    assert not list(tmp_path.iterdir())


def test_a_pending_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    model = MICRO_MODELS["Conv"]()
    with pending(model, path) as temporary:
        assert not path.exists()
        assert onnx.load(temporary) == model
    assert onnx.load(path) == model
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), pending(MICRO_MODELS["Conv"](), path):
        raise KeyError("validation failed")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    sizes = []
    for _ in range(2):
        with pending(MICRO_MODELS["Conv"](), path):
            pass
        sizes.append(path.read_bytes())
    assert sizes[0] == sizes[1]


def test_large_models_keep_their_weights_in_a_file_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.model.PROTOBUF_LIMIT", 1000)
    path = tmp_path / "out.onnx"
    model = build(
        "y = MatMul(x, w)", {"w": (64, 64)}, inputs="float[N,64] x", outputs="float[N,64] y"
    )
    assert is_large(model)
    before = model.SerializeToString()
    for _ in range(2):
        with pending(model, path) as temporary:
            (beside,) = temporary.parent.glob("out.onnx.*.data")
        assert (tmp_path / beside.name).stat().st_size == 64 * 64 * 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", beside.name]
    assert model.SerializeToString() == before
    for loaded in (load(path), infer_shapes(model)):
        (weight,) = [numpy_helper.to_array(t) for t in loaded.graph.initializer]
        assert np.array_equal(weight, numpy_helper.to_array(model.graph.initializer[0]))


def test_a_folder_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(OnnxPruneError, match="cannot be written"),
        pending(MICRO_MODELS["Conv"](), tmp_path / "nowhere" / "out.onnx"),
    ):
        pass
