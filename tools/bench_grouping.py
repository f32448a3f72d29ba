"""CPU seconds from a model to its channel groups, and how they grow with the number of nodes.

    python tools/bench_grouping.py [--repeats N] [--profile NODES]

Rows: the topology of ResNet-50, with weights of its real size, and residual networks of narrow
layers whose node count doubles from row to row. Each time is the best of some repeats. With
``--profile`` the functions that take most time in a network of that many nodes follow.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups

NODES = (125, 250, 500, 1000, 2000)
RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Width and number of the blocks of each stage."""
NARROW = 8
FUNCTIONS_SHOWN = 15


@dataclass
class Builder:
    """Collects nodes and weights; every method returns the name of what it computes."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        """One node."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, *shape: int, positive: bool = False) -> str:
        """One constant."""
        values = self.rng.standard_normal(shape, np.float32)
        name = f"w{len(self.weights)}"
        constant = np.abs(values) + 1 if positive else values
        self.weights.append(numpy_helper.from_array(constant, name))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> str:
        """A convolution and its BatchNormalization."""
        pad = kernel // 2
        weight = self.weight(outputs, inputs, kernel, kernel)
        y = self.node("Conv", x, weight, strides=[stride] * 2, pads=[pad] * 4)
        norm = [self.weight(outputs, positive=i == 3) for i in range(4)]
        return self.node("BatchNormalization", y, *norm)

    def classify(self, x: str, channels: int) -> str:
        """Pooling and a linear layer of ten classes."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        return self.node("Gemm", flat, self.weight(10, channels), self.weight(10), transB=1)

    def model(self, output: str, size: int) -> onnx.ModelProto:
        """The model of an RGB image of this size."""
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, size, size])
        scores = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(self.nodes, "network", [image], [scores], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet50() -> onnx.ModelProto:
    """The topology of ResNet-50 with ten classes."""
    b = Builder()
    x = b.node("Relu", b.conv("image", 3, 64, kernel=7, stride=2))
    x = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = 64
    for stage, (width, blocks) in enumerate(RESNET50):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            h = b.node("Relu", b.conv(x, channels, width, kernel=1))
            h = b.node("Relu", b.conv(h, width, width, stride=stride))
            h = b.conv(h, width, 4 * width, kernel=1)
            shortcut = x if block else b.conv(x, channels, 4 * width, kernel=1, stride=stride)
            x, channels = b.node("Relu", b.node("Add", h, shortcut)), 4 * width
    return b.model(b.classify(x, channels), 224)


def residual(nodes: int) -> onnx.ModelProto:
    """A residual network of about this many nodes, seven to a block and a few around them."""
    b = Builder()
    x = b.node("Relu", b.conv("image", 3, NARROW))
    while len(b.nodes) + 7 + 3 <= nodes:
        h = b.node("Relu", b.conv(x, NARROW, NARROW))
        x = b.node("Relu", b.node("Add", b.conv(h, NARROW, NARROW), x))
    return b.model(b.classify(x, NARROW), 16)


def seconds(action: Callable[[], object], repeats: int) -> float:
    """CPU time of the shortest of some runs: what else the machine does matters little."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def measured(model: onnx.ModelProto, repeats: int) -> tuple[float, float, int]:
    """CPU seconds for the canonical form and for the groups, and how many groups there are."""
    canonical = canonicalise(model)
    groups = find_groups(canonical).groups
    return (
        seconds(lambda: canonicalise(model), repeats),
        seconds(lambda: find_groups(canonical), repeats),
        len(groups),
    )


def lines(repeats: int) -> Iterator[str]:
    """The table as Markdown."""
    yield "| network | nodes | groups | canonical, s | groups, s | both, s | times the row above |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    above = None
    for nodes in (None, *NODES):
        name, model = ("residual", residual(nodes)) if nodes else ("ResNet-50", resnet50())
        canonical, grouping, groups = measured(model, repeats)
        both = canonical + grouping
        ratio = f"{both / above:.2f}" if above else ""
        above = both if nodes else None
        counts = f"{len(model.graph.node)} | {groups}"
        yield f"| {name} | {counts} | {canonical:.2f} | {grouping:.2f} | {both:.2f} | {ratio} |"


def profile(nodes: int) -> None:
    """Print where the time goes in a residual network."""
    model = residual(nodes)
    profiler = cProfile.Profile()
    profiler.runcall(lambda: find_groups(canonicalise(model)))
    for order in ("cumulative", "tottime"):
        pstats.Stats(profiler).strip_dirs().sort_stats(order).print_stats(FUNCTIONS_SHOWN)


def main() -> None:
    """Print the table, and a profile if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", type=int, metavar="NODES", help="print where the time goes")
    given = parser.parse_args()
    for line in lines(given.repeats):
        print(line, flush=True)
    if given.profile:
        profile(given.profile)


if __name__ == "__main__":
    main()
