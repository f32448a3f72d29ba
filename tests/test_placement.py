"""Where nodes run, from what onnxruntime says of them."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from small_networks import MODELS, perceptron

from onnxprune import profile_events
from onnxprune.benchmark_record import Placed
from onnxprune.errors import OnnxPruneError
from onnxprune.placement import placed, placement
from onnxprune.profile_events import KernelEvent
from onnxprune.runtime import Assigned

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
RUN = KernelEvent(None, "", "", 9.0)


def events() -> list[KernelEvent]:
    """Two runs, of which the first allocates."""
    first = [KernelEvent("conv", "Conv", CUDA, 90.0), KernelEvent("shape", "Shape", CPU, 5.0)]
    later = [KernelEvent("conv", "Conv", CUDA, 3.0), KernelEvent("shape", "Shape", CPU, 1.0)]
    return [*first, RUN, *later, RUN]


def test_nodes_that_fell_back_are_named_and_the_first_run_is_no_time():
    nodes = [Assigned("conv", "Conv", CUDA), Assigned("relu", "Relu", CUDA)]
    nodes += [Assigned("shape", "Shape", CPU), Assigned("", "NonZero", CPU)]
    found = placed(events(), nodes, CUDA)
    assert found.nodes == {CUDA: 2, CPU: 2}
    assert found.time == {CUDA: 0.75, CPU: 0.25}
    assert found.fell_back == ["shape", "a NonZero without a name"]


def test_kernels_stand_for_nodes_where_an_old_onnxruntime_says_no_more():
    found = placed(events(), None, CUDA)
    assert found.nodes == {CUDA: 1, CPU: 1}
    assert found.fell_back == ["shape"]


def test_the_line_and_the_record_say_both():
    row = Placed("a.onnx", "cuda", placed(events(), None, CUDA))
    first, second = row.lines()
    assert f"a.onnx on cuda ran on {CUDA}: 1 nodes, 75.0% of the processor's time; " in first
    assert f"{CPU}: 1 nodes, 25.0% of the processor's time" in first
    assert second == f"  not on {CUDA}: 1 (shape)"
    record = row.to_dict()
    assert record["asked_for"] == CUDA
    assert record["ran_on"][CPU] == {"nodes": 1, "time_share": 0.25}
    assert record["fell_back"] == ["shape"]


def test_every_node_of_a_model_on_the_cpu_is_found():
    model = perceptron()
    found = placement(model, {"x": np.ones((2, 6), np.float32)})
    assert found.nodes == {CPU: len(model.graph.node)}
    assert found.time == {CPU: 1.0}
    assert found.fell_back == []


def test_a_session_that_says_nothing_is_read_from_its_record(monkeypatch):
    monkeypatch.setattr(profile_events.Session, "assignment", lambda _: None)
    model = onnx.load(MODELS / "mlp_digits.onnx")
    found = placement(model, {"input": np.zeros((1, 1, 8, 8), np.float32)})
    assert set(found.nodes) == {CPU}
    assert 1 <= found.nodes[CPU] <= len(model.graph.node)


def test_a_record_that_cannot_be_read_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "broken.json").write_text(json.dumps([])[:1], encoding="utf-8")
    broken = tmp_path / "broken.json"
    monkeypatch.setattr(profile_events.Session, "end_profile", lambda _: broken)
    with pytest.raises(OnnxPruneError, match="make room for temporary files"):
        placement(perceptron(), {"x": np.ones((2, 6), np.float32)})
