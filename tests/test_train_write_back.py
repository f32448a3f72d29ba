"""Trained weights go back into the file, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import CONVS, IMAGE, MAPS, MICRO_MODELS, SCORES, build
from onnx import helper, numpy_helper
from oracles import distance, random_feed

torch = pytest.importorskip("torch")

from onnxprune.model import load, pending  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.write_back import write_back  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("raw_data", "float_data", "double_data", "int32_data")
KINDS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")


def stored(kind: str, form: str) -> onnx.ModelProto:
    """A Gemm whose weight is of a type and stored in a form."""
    code = getattr(onnx.TensorProto, kind)
    values = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    if form == "raw":
        dtype = helper.tensor_dtype_to_np_dtype(code)
        tensor = helper.make_tensor("w", code, (6, 5), values.astype(dtype).tobytes(), raw=True)
    else:
        tensor = helper.make_tensor("w", code, (6, 5), values.reshape(-1))
    model = build("y = MatMul (x, w)", {}, inputs="float[N,6] x", outputs=SCORES)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = code
    if form == "node":
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
    else:
        model.graph.initializer.append(tensor)
    model.metadata_props.add(key="made by", value="a test")
    model.graph.doc_string = "kept"
    return model


def shifted(network: TrainableNetwork, name: str, amount: float = 0.5) -> None:
    with torch.no_grad():
        network.weights[name].add_(amount)


def changed_initializers(before: onnx.ModelProto, after: onnx.ModelProto) -> list[str]:
    pairs = zip(before.graph.initializer, after.graph.initializer, strict=True)
    return [a.name for a, b in pairs if a.SerializeToString() != b.SerializeToString()]


@pytest.mark.thinned
@pytest.mark.parametrize("name", MICRO_MODELS)
def test_an_unchanged_network_gives_the_same_bytes(name: str) -> None:
    model = MICRO_MODELS[name]()
    before = model.SerializeToString(deterministic=True)
    result = write_back(model, TrainableNetwork(model))
    assert result.SerializeToString(deterministic=True) == before
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.onnx")), ids=lambda p: p.stem)
def test_one_changed_weight_changes_one_tensor(path: Path) -> None:
    model = load(path)
    network = TrainableNetwork(model)
    name = list(network.weights)[-1]
    shifted(network, name)
    result = write_back(model, network)
    assert changed_initializers(model, result) == [name]
    (tensor,) = [t for t in result.graph.initializer if t.name == name]
    tensor.CopyFrom(next(t for t in model.graph.initializer if t.name == name))
    assert result.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["raw", "plain", "node"])
def test_every_form_of_storage_is_kept(kind: str, form: str) -> None:
    model = stored(kind, form)
    network = TrainableNetwork(model)
    assert write_back(model, network).SerializeToString() == model.SerializeToString()
    shifted(network, "w", 0.25)
    result = write_back(model, network)
    before, after = (
        m.graph.node[0].attribute[0].t if form == "node" else m.graph.initializer[0]
        for m in (model, result)
    )
    assert [bool(len(getattr(before, f))) for f in FIELDS] == [
        bool(len(getattr(after, f))) for f in FIELDS
    ]
    expected = numpy_helper.to_array(before).astype(np.float32) + np.float32(0.25)
    width = {"FLOAT": 0, "DOUBLE": 0, "FLOAT16": 2e-3, "BFLOAT16": 1.6e-2}[kind]
    found = numpy_helper.to_array(after).astype(np.float32)
    assert np.abs(found - expected).max() <= width * np.abs(expected).max()
    onnx.checker.check_model(result, full_check=True)
    after.CopyFrom(before)
    assert result.SerializeToString() == model.SerializeToString()


def test_plain_floats_of_a_constant_node() -> None:
    model = build("h = Conv (x, w1, b1) y = Mul (h, g)", CONVS, outputs=MAPS)
    given = helper.make_node("Constant", [], ["g"], value_floats=[1.5, 2.0, 0.5, 1.0, 1.0, 3.0])
    model.graph.node.insert(0, given)
    network = TrainableNetwork(model)
    assert "g" in network.weights
    shifted(network, "g", 1.0)
    result = write_back(model, network)
    assert list(result.graph.node[0].attribute[0].floats) == [2.5, 3.0, 1.5, 2.0, 2.0, 4.0]


def test_running_statistics_are_written() -> None:
    model = MICRO_MODELS["BatchNormalization"]()
    network = TrainableNetwork(model)
    feed = random_feed(model, np.random.default_rng(0), 4)
    tensors = {name: torch.from_numpy(values) for name, values in feed.items()}
    network.train()(tensors)
    result = write_back(model, network)
    assert set(changed_initializers(model, result)) == set(network.statistics)
    with torch.no_grad():
        wanted = [value.numpy() for value in network.eval()(tensors).values()]
    assert distance(Session(result).run(feed), wanted) < 1e-5


def test_a_substitute_is_written_as_the_weight_it_makes() -> None:
    class Mixed(torch.nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight @ torch.full((6, 6), 0.5)

    model = build(
        "a = Gemm <transB=1> (x, w) y = Gemm (a, v)",
        {"w": (7, 6), "v": (7, 5)},
        inputs="float[N,6] x",
        outputs=SCORES,
    )
    network = TrainableNetwork(model)
    network.substitute("w", Mixed())
    feed = random_feed(model, np.random.default_rng(0), 4)
    with torch.no_grad():
        wanted = [network({"x": torch.from_numpy(feed["x"])})["y"].numpy()]
    result = write_back(model, network)
    assert changed_initializers(model, result) == ["w"]
    assert distance(Session(result).run(feed), wanted) < 1e-5


SHARED = """a = Conv (x, w1) b = BatchNormalization (a, ones, zeros, zeros, ones)
i = Identity (ones) c = Conv (b, w2) d = BatchNormalization (c, i, zeros, zeros, ones)
y = Conv (d, w3)"""


def test_what_an_exporter_merged_is_written_apart() -> None:
    fresh = {"ones": np.ones(8, np.float32), "zeros": np.zeros(8, np.float32)}
    weights = {"w1": (8, 3, 1, 1), "w2": (8, 8, 1, 1), "w3": (4, 8, 1, 1)}
    model = build(SHARED, fresh | weights, inputs=IMAGE)
    network = TrainableNetwork(model)
    assert write_back(model, network).SerializeToString() == model.SerializeToString()
    feed = random_feed(model, np.random.default_rng(0), 4)
    tensors = {"x": torch.from_numpy(feed["x"])}
    network.train()(tensors)
    for place, name in enumerate(network.weights):
        shifted(network, name, 0.01 * place)
    result = write_back(model, network)
    onnx.checker.check_model(result, full_check=True)
    with torch.no_grad():
        wanted = [network.eval()(tensors)["y"].numpy()]
    assert distance(Session(result).run(feed), wanted) < 1e-5
    assert "Identity" not in {node.op_type for node in result.graph.node}


def test_external_data_is_read_and_a_new_file_is_whole(tmp_path: Path) -> None:
    model = load(ROOT / "models" / "mlp_digits.onnx")
    onnx.save_model(
        model,
        tmp_path / "in.onnx",
        save_as_external_data=True,
        location="in.data",
        size_threshold=0,
    )
    given = load(tmp_path / "in.onnx")
    network = TrainableNetwork(given)
    name = next(iter(network.weights))
    shifted(network, name)
    with pending(write_back(given, network), tmp_path / "out.onnx"):
        pass
    result = load(tmp_path / "out.onnx")
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (given, result)
    )
    assert [key for key in before if not np.array_equal(before[key], after[key])] == [name]


def test_data_that_was_not_read_is_named(tmp_path: Path) -> None:
    model = load(ROOT / "models" / "mlp_digits.onnx")
    path = tmp_path / "in.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="in.data", size_threshold=0)
    with pytest.raises(Exception, match=r"has not been read: load the model with"):
        TrainableNetwork(onnx.load(path, load_external_data=False))


def test_the_network_of_another_model_is_refused() -> None:
    network = TrainableNetwork(MICRO_MODELS["LSTM"]())
    shifted(network, "w1")
    with pytest.raises(ValueError, match="the network is of another one"):
        write_back(MICRO_MODELS["Conv"](), network)
