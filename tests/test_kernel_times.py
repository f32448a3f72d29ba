"""onnxruntime's record of kernels, and whose they are."""

from __future__ import annotations

import numpy as np
import pytest
from micro_models import MICRO_MODELS, build
from oracles import Subject
from small_networks import random_samples

from onnxprune.errors import OnnxPruneError
from onnxprune.kernel_times import Kernels, device_time, fastest, kernel_times, layer_time
from onnxprune.micro_model import MicroModel
from onnxprune.recorded import recorded

PADDED = "<pads=[1,1,1,1]>"


def matmuls(width: int) -> Subject:
    nodes = "a = MatMul(x, w1) h = Relu(a) y = MatMul(h, w2)"
    weights = {"w1": (256, width), "w2": (width, 256)}
    return Subject(build(nodes, weights, inputs="float[N,3,256] x", outputs="float[N,3,256] y"))


def test_every_kernel_has_a_time() -> None:
    subject = matmuls(512)
    kernels = kernel_times(subject.canonical, random_samples(subject.model, 8), seconds=0.1)
    assert set(kernels.times) == {node.name for node in subject.canonical.graph.node}
    assert all(time > 0 for time in kernels.times.values())
    assert kernels.rest >= 0
    products = [kernels.times[node.name] for node in subject.network.graph.nodes[::2]]
    relu = kernels.times[subject.network.graph.nodes[1].name]
    assert min(products) > relu
    assert kernels.wall > max(products)


def test_a_layer_takes_longer_with_more_weights() -> None:
    def time(width: int) -> float:
        subject = matmuls(width)
        return layer_time(subject.model, random_samples(subject.model, 64))

    assert time(1024) > 2 * time(64)


def test_a_layer_on_a_device_needs_no_input() -> None:
    """What is timed on a GPU, here on the CPU: one number that is not computed beforehand."""

    def time(width: int) -> float:
        layer = MicroModel("MatMul", (), 17, "float32", (64, width), ((width, width),))
        return device_time(layer.device_proto(), provider="cpu")

    assert time(1024) > 4 * time(128)


def test_copies_between_layouts_are_no_part_of_a_layer() -> None:
    """A small convolution of a large image: the copies would take longer than it does."""
    nodes = "y = Conv (x, w)"
    image = build(
        nodes, {"w": (16, 64, 1, 1)}, inputs="float[N,64,64,64] x", outputs="float[N,16,64,64] y"
    )
    feed = random_samples(image, 1)
    kernels = kernel_times(image, feed, seconds=0.1)
    copies = [time for name, time in kernels.times.items() if name.startswith("Reorder")]
    if not copies:
        pytest.skip("onnxruntime has no blocked layout on this processor")
    assert layer_time(image, feed) < 0.9 * sum(kernels.times.values())


@pytest.mark.parametrize("width", [32, 33])
def test_fused_and_blocked_kernels_are_found(width: int) -> None:
    """A convolution with its Relu and the sum behind it, in the layout and outside of it."""
    nodes = f"c = Conv {PADDED} (x, w1) r = Relu(c) d = Conv {PADDED} (r, w2) s = Add(d, r)"
    nodes += f" h = Relu(s) e = Conv {PADDED} (h, w3) p = GlobalAveragePool(e) f = Flatten(p)"
    nodes += " g = Gemm(f, w4) k = Relu(g) y = Gemm(k, w5)"
    weights = {
        "w1": (width, 3, 3, 3),
        "w2": (width, width, 3, 3),
        "w3": (width, width, 3, 3),
        "w4": (width, 20),
        "w5": (20, 10),
    }
    subject = Subject(build(nodes, weights, outputs="float[N,10] y"))
    kernels = kernel_times(subject.canonical, random_samples(subject.model, 2), seconds=0.05)
    run = recorded(kernels, subject.network.graph)
    layers = {n.name for n in subject.network.graph.nodes if n.op in ("Conv", "Gemm")}
    assert layers <= set(run.nodes)
    assert sum(run.nodes.values()) + run.nameless == pytest.approx(sum(kernels.times.values()))
    copies = sum(time for name, time in kernels.times.items() if "Reorder" in name)
    assert run.nameless == pytest.approx(copies)


def test_unknown_kernels_belong_to_nobody() -> None:
    subject = Subject(MICRO_MODELS["Conv"]())
    times = {"of another graph": 2.0, "y/odd_nchwc": 3.0}
    run = recorded(Kernels(times, 0.1, 9.0), subject.network.graph)
    assert (run.nodes, run.nameless, run.rest, run.wall) == ({}, 5.0, 0.1, 9.0)


def test_the_fastest_runs_count() -> None:
    assert fastest([5, 1, 3, 2, 100, 4, 9, 9, 9, 9]) == 1.5
    assert fastest([]) == 0.0


def test_an_unreadable_record_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    from onnxprune import kernel_times as module

    monkeypatch.setattr(module.Session, "end_profile", lambda _: tmp_path / "missing.json")
    subject = Subject(MICRO_MODELS["Conv"]())
    feed = {"x": np.ones((1, 3, 8, 8), np.float32)}
    with pytest.raises(OnnxPruneError, match="record of kernel times"):
        kernel_times(subject.canonical, feed, seconds=0.01)
