"""Predicted against measured time of pruned networks, on one thread of the CPU.

    python tools/bench_latency.py [--network NAME ...] [--batch N ...] [--table]

Every network is cut several times, without recovery: to useful counts near a fraction of each
group, to useful counts at random, and to any counts at random. What is compared is the time of a
run as a share of the uncut network's: predicted from its layers, and measured on all cuts and the
network itself, written in the same way, in turns. CPU time is measured: on one thread it is the
time of a run that nothing else interrupts. Rows that are in docs/results/latency.jsonl already are
skipped; `--table` prints what is there. Networks are one of models/, those beside the repository in
../shared, where they are present, and a ResNet-50 with random weights.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measurements import record, recorded
from onnx import helper, numpy_helper
from scipy.stats import spearmanr

from onnxprune.alignment import allowed_counts, useful_counts
from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.latency_cost import latency_cost
from onnxprune.latency_model import LatencyModel
from onnxprune.network import ChannelGroup, Network
from onnxprune.plan import Keep, Plan
from onnxprune.rewrite import apply, digest
from onnxprune.runtime import Provider, Session

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results" / "latency.jsonl"
OWN = ROOT / "models"
SHARED = ROOT.parent / "shared" / "models"
NETWORKS = (
    "resnet20_cifar10",
    "vgg16_cifar10",
    "mobilenet_v2_imagenet",
    "vit_digits",
    "resnet50",
)
DIGITS = ("vit_digits",)
BATCHES = (1, 32)
FRACTIONS = (0.75, 0.5, 0.25)
RANDOM = 2
RUNS, SECONDS = 40, 20
FASTEST = 5


def main() -> None:
    """Measure what is missing, or print what is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table(recorded(RESULTS)))
        return
    done = {(row["network"], row["batch"]) for row in recorded(RESULTS)}
    for name in given.network or NETWORKS:
        for batch in given.batch or BATCHES:
            if (name, batch) in done or not (name in (*DIGITS, "resnet50") or SHARED.is_dir()):
                continue
            rows = list(measured(name, load(name), batch))
            for row in rows:  # only when all are there: a network is not resumed within
                record(RESULTS, row)


def load(name: str) -> onnx.ModelProto:
    """A network by its name."""
    if name == "resnet50":
        return resnet50()
    folder = OWN if name in DIGITS else SHARED
    return onnx.load(folder / f"{name}.onnx")


class Convolutions:
    """Accumulator: convolutions with random weights, their BatchNorms folded."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(0)

    def add(self, x: str, sizes: tuple[int, int, int], stride: int = 1, act: bool = True) -> str:
        """The output of a convolution (inputs, outputs, kernel) of x, with or without a Relu."""
        inputs, outputs, kernel = sizes
        name, pad = f"conv{len(self.nodes)}", kernel // 2
        weight = self._rng.standard_normal((outputs, inputs, kernel, kernel)) * 0.02
        for key, values in (("weight", weight), ("bias", np.zeros(outputs))):
            tensor = numpy_helper.from_array(values.astype(np.float32), f"{name}.{key}")
            self.weights.append(tensor)
        parts = [x, f"{name}.weight", f"{name}.bias"]
        window = {"pads": [pad] * 4, "strides": [stride] * 2}
        self.nodes.append(helper.make_node("Conv", parts, [name], name=name, **window))
        return self.node("Relu", name) if act else name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """The output of another node."""
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name


def resnet50() -> onnx.ModelProto:
    """ResNet-50 on images of 224 x 224, with random weights (arXiv 1512.03385, table 1)."""
    net = Convolutions()
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    x, width = net.node("MaxPool", net.add("x", (3, 64, 7), 2), **window), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = net.add(net.add(x, (width, inner, 1)), (inner, inner, 3), stride)
            y = net.add(y, (inner, 4 * inner, 1), act=False)
            skip = x if block else net.add(x, (width, 4 * inner, 1), stride, act=False)
            x, width = net.node("Relu", net.node("Add", y, skip)), 4 * inner
    pooled = net.node("Flatten", net.node("GlobalAveragePool", x))
    net.weights.append(numpy_helper.from_array(np.zeros((2048, 1000), np.float32), "weight"))
    net.nodes.append(helper.make_node("Gemm", [pooled, "weight"], ["y"], name="classifier"))
    image = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 224, 224])
    logits = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 1000])
    graph = helper.make_graph(net.nodes, "resnet50", [image], [logits], net.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measured(name: str, model: onnx.ModelProto, batch: int) -> Iterator[dict[str, Any]]:
    """A row for every way of cutting a network."""
    canonical = canonicalise(model)
    network = find_groups(canonical)
    feed = {
        value.name: np.random.default_rng(0)
        .standard_normal([d.dim_value or batch for d in value.type.tensor_type.shape.dim])
        .astype(np.float32)
        for value in canonical.graph.input
    }
    start = time.perf_counter()
    predict = latency_cost(network, canonical, feed, progress=True)
    seconds = time.perf_counter() - start
    ways = dict(cuts(network, predict))
    whole = np.array([group.size for group in network.groups])
    models = [cut(model, network, counts) for counts in (whole, *ways.values())]
    full, *times = fastest_times(models, feed)
    for (way, counts), took in zip(ways.items(), times, strict=True):
        yield {
            "network": name,
            "batch": batch,
            "way": way,
            "predicted": round(float(predict(counts)) / predict.full, 4),
            "measured": round(took / full, 4),
            "full_ms": round(full, 3),
            "predicted_full_ms": round(predict.full, 3),
            "layers_timed": predict.timed,
            "seconds": round(seconds, 1),
        }


def cuts(network: Network, predict: LatencyModel) -> Iterator[tuple[str, np.ndarray]]:
    """Names of ways of cutting, and the counts of all groups."""
    allowed = [allowed_counts(group, network) for group in network.groups]
    useful = useful_counts(predict, allowed)
    for fraction in FRACTIONS:
        near = [own[np.abs(own - fraction * own[-1]).argmin()] for own in useful]
        yield f"{fraction:.0%}", np.array(near)
    rng = np.random.default_rng(0)
    for draw in range(RANDOM):
        yield f"useful {draw}", np.array([rng.choice(own) for own in useful])
    every = [allowed_counts(group, network, 1) for group in network.groups]
    for draw in range(RANDOM):
        yield f"any {draw}", np.array([rng.choice(own) for own in every])


def cut(model: onnx.ModelProto, network: Network, counts: np.ndarray) -> onnx.ModelProto:
    """The model with the first channels of every group."""
    edits = [
        Keep(group.name, first(group, int(count)), group.size)
        for group, count in zip(network.groups, counts, strict=True)
        if count < group.size
    ]
    return apply(model, Plan(digest(model), tuple(edits)))


def first(group: ChannelGroup, count: int) -> tuple[int, ...]:
    """The first units of a group, equally many of each part."""
    own = [np.flatnonzero(group.parts == part) for part in range(group.part_count)]
    kept = np.sort(np.concatenate([part[: count // group.part_count] for part in own]))
    return tuple(kept.tolist())


def fastest_times(
    models: Sequence[onnx.ModelProto], feed: dict[str, np.ndarray], provider: Provider = "cpu"
) -> list[float]:
    """Milliseconds of each model, run in turns: mean of its fastest fifth.

    On the CPU it is time of the thread, elsewhere by the clock.
    """
    sessions = [Session(model, threads=1, provider=provider, deployed=True) for model in models]
    clock = time.thread_time if provider == "cpu" else time.perf_counter
    times = np.zeros((0, len(sessions)))
    end = time.perf_counter() + SECONDS
    while len(times) < RUNS and (len(times) < FASTEST + 2 or time.perf_counter() < end):
        turn = []
        for session in sessions:
            start = clock()
            session.run(feed)
            turn.append(1000 * (clock() - start))
        times = np.vstack([times, turn])
    ordered = np.sort(times[2:], axis=0)
    return [float(t) for t in ordered[: -(-len(ordered) // FASTEST)].mean(axis=0)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: a row for each network and batch, predicted / measured share of time."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    lines = [
        f"| network | batch | full, ms | {' | '.join(ways)} | largest error | rank correlation |",
        f"|---|---:|---:|{'---:|' * (len(ways) + 2)}",
    ]
    for key in dict.fromkeys((row["network"], row["batch"]) for row in rows):
        own = {row["way"]: row for row in rows if (row["network"], row["batch"]) == key}
        pairs = [(row["predicted"], row["measured"]) for row in own.values()]
        cells = [f"{own[way]['predicted']:.2f} / {own[way]['measured']:.2f}" for way in ways]
        worst = max((p / m - 1 for p, m in pairs), key=abs)
        rank = spearmanr(*zip(*pairs, strict=True)).statistic
        full = next(iter(own.values()))["full_ms"]
        lines.append(
            f"| {key[0]} | {key[1]} | {full:.2f} "
            f"| {' | '.join(cells)} | {worst:+.0%} | {rank:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
