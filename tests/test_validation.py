"""What must not be published is refused; equal models are at no distance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import QUIET, convolutions, perceptron, random_samples

from onnxprune.errors import ValidationError
from onnxprune.validation import check_file, check_interface, compare

MODEL = convolutions()


def copied(change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    change(model)
    return model


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "pruned.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def weight(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))


def renamed_output(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = model.graph.output[0].name = "z"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1


def wider_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def added_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(
        helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 8, "H", "W"])
    )


def test_the_model_itself_passes(tmp_path):
    path = written(MODEL, tmp_path)
    check_file(path, MODEL)
    check_file(path, MODEL, random_samples(MODEL, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.graph.node.pop(1), "not valid ONNX"),
        (lambda m: m.graph.node[0].input.pop(1), "not valid ONNX"),
        (lambda m: setattr(m.graph.node[1], "op_type", "Rleu"), "not valid ONNX"),
        (lambda m: weight(m, "w2", np.zeros((4, 7, 3, 3))), "does not load and run"),
        (renamed_output, "graph outputs 'z' differ from the original's 'y'"),
        (fixed_batch, "graph outputs 'y' differ"),
        (added_output, "graph outputs 'y', 'h' differ"),
        (lambda m: m.metadata_props.add(key="stride", value="32"), "metadata_props differs"),
        (lambda m: setattr(m, "model_version", 7), "model_version differs"),
        (lambda m: setattr(m, "domain", "com.example"), "domain differs"),
        (lambda m: setattr(m, "ir_version", 9), "ir_version differs"),
        (lambda m: setattr(m.opset_import[0], "version", 18), "opset_import differs"),
    ],
)
def test_broken_and_changed_models_are_refused(change, message, tmp_path):
    with pytest.raises(ValidationError, match=message):
        check_file(written(copied(change), tmp_path), MODEL, random_samples(MODEL, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_are_not_numbers_are_refused(value, tmp_path):
    path = written(copied(lambda m: weight(m, "b2", np.full(4, value))), tmp_path)
    check_file(path, MODEL)  # without a sample nobody can tell
    with pytest.raises(ValidationError, match="output 'y' of the new model is infinite or not"):
        check_file(path, MODEL, random_samples(MODEL, 1))


def test_a_model_that_does_not_run_is_refused(tmp_path):
    """Valid for the checker, which does not know every domain."""
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Unheard", ["x"], ["y"], domain="com.example")],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
        ir_version=8,
    )
    with pytest.raises(ValidationError, match=r"does not load and run: .*Unheard"):
        check_file(written(model, tmp_path), model)


def test_another_input_is_refused():
    with pytest.raises(ValidationError, match="graph inputs 'x' differ"):
        check_interface(copied(wider_input), MODEL)


def test_initializers_among_the_inputs_do_not_count():
    def as_input(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("w2", TensorProto.FLOAT, [4, 8]))

    check_interface(copied(as_input), MODEL)


def test_equal_models_are_at_no_distance():
    feeds = [random_samples(MODEL, 5, seed) for seed in range(3)]
    (found,) = compare(MODEL, MODEL, feeds, QUIET)
    assert (found.name, found.samples) == ("y", 15)
    assert (found.relative_error, found.divergence) == (0.0, 0.0)
    assert found.cosine == pytest.approx(1.0)


def test_the_distance_is_that_of_the_outputs():
    """Twice the weights of a last layer without bias: twice the output."""
    model = perceptron(nodes="a = Gemm (x, w1, b1) h = Relu(a) y = MatMul (h, w2)")
    double = onnx.ModelProto()
    double.CopyFrom(model)
    values = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "w2"))
    weight(double, "w2", 2 * values)
    (found,) = compare(model, double, [random_samples(model, 9)], QUIET)
    assert found.relative_error == pytest.approx(1.0)
    assert found.cosine == pytest.approx(1.0)
    assert found.agreement == 1.0
    assert found.divergence > 0.01


def test_every_output_is_compared():
    def two(model: onnx.ModelProto) -> None:
        model.graph.output.append(
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 8, "H", "W"])
        )

    model = copied(two)
    changed = copied(lambda m: (two(m), weight(m, "w2", np.zeros((4, 8, 3, 3)))))
    y, h = compare(model, changed, [random_samples(model, 2)])
    assert (y.name, h.name) == ("y", "h")
    assert y.relative_error > 0.5
    assert h.relative_error == 0
