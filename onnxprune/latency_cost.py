"""What a network costs in time: its layers timed at some widths, and its own run as the measure.

Layers with weights are timed as models of their own (``layer_times``), and each is scaled to what
onnxruntime's record of the whole model says it takes there. All other nodes take their recorded
time in proportion to what they multiply or carry. The rest of a run is constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune.alignment import block_size
from onnxprune.arrays import Feed, Vector
from onnxprune.concrete import concrete
from onnxprune.cost import Gates, Multilinear, is_parameter, tensor_shapes
from onnxprune.counts import AxisCounter
from onnxprune.kernel_timer import KernelTimer, Timer
from onnxprune.kernel_times import CACHE_BYTES
from onnxprune.latency_model import LatencyModel, TimedLayer
from onnxprune.layer_times import LayerTimes
from onnxprune.micro_model import Layer
from onnxprune.network import Network
from onnxprune.node_work import NodeWork
from onnxprune.progress import shown
from onnxprune.recorded import Recorded, recorded
from onnxprune.runtime import Provider
from onnxprune.sections import Section
from onnxprune.timing_cache import timing_cache

TIMED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Layers that are timed as models of their own."""


def latency_cost(
    network: Network,
    model: onnx.ModelProto,
    feed: Feed,
    *,
    sections: Sequence[Section] = (),
    provider: Provider = "cpu",
    threads: int | None = 1,
    cache: str | Path | None = None,
    progress: bool = False,
) -> LatencyModel:
    """The time of one run on a feed, as a function of the groups' kept counts.

    At most ``lattice.MAX_TIMINGS`` timings per kind of layer; equal ones are made once, and kept
    in a cache on disk.

    Args:
        network: the groups of the model.
        model: the canonical model itself.
        feed: the input of a run; its batch is the batch that is timed.
        sections: what may be dropped; their counts follow those of the groups in this order.
        provider: where models run.
        threads: threads within one operator, 1 as in ``latency.interleaved_latency``; None leaves
            the choice to onnxruntime.
        cache: folder of the timings; None for the one of ``timing_cache``.
        progress: whether to show a bar.

    Raises:
        OnnxPruneError: the model does not run on the feed.
    """
    timer = KernelTimer(provider, threads, timing_cache(provider, threads, cache))
    block = block_size() if provider == "cpu" else 0
    return latency_model(network, model, feed, timer, block, sections, progress=progress)


def latency_model(
    network: Network,
    model: onnx.ModelProto,
    feed: Feed,
    timer: Timer,
    block: int,
    sections: Sequence[Section] = (),
    *,
    progress: bool = False,
) -> LatencyModel:
    """The same with a timer of one's own.

    Args:
        network: the groups of the model.
        model: the canonical model itself.
        feed: the input of a run.
        timer: what times layers and the model.
        block: channels per block of the blocked layout; 0 where there is none.
        sections: what may be dropped.
        progress: whether to show a bar.
    """
    before = timer.timed
    run = recorded(timer.whole(model, feed), network.graph)
    shapes = tensor_shapes(concrete(model, {name: array.shape for name, array in feed.items()}))
    counter = AxisCounter(network)
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    gates = Gates(sections, counter.sizes.size)
    full = np.append(counter.sizes, np.ones(gates.count))
    layers = _timed_layers(network, shapes, counter, gates, timer, block, opset)
    alone = {
        name: float(layer(full[None])[0])
        for name, layer in shown(list(layers.items()), "timing layers", progress=progress)
    }
    # What takes no time that can be told from none is left to the rest.
    own = {name: time for name, time in alone.items() if time > 0}
    division = _Division.of(run, own)
    work = NodeWork(network, shapes, counter, gates)
    for node in network.graph.nodes:
        if node.name not in own and node.name in run.nodes:
            work.add(node, run.nodes[node.name] * division.scale)
    work.add_everywhere(division.nameless * division.scale)
    work.add_constant(division.rest)
    scaled = [
        replace(layers[name], weight=division.scale * division.layers[name] / time)
        for name, time in own.items()
    ]
    return LatencyModel(
        division.full,
        tuple(_merged(scaled)),
        work.total(),
        _steps(layers.values(), full),
        full,
        timer.timed - before,
    )


def _steps(layers: Iterable[TimedLayer], sizes: Vector) -> Vector:
    """The steps in which the extents of every group's axes go, shape (groups + sections,)."""
    steps = np.ones_like(sizes)
    for layer in layers:
        steps[layer.groups] = np.maximum(steps[layer.groups], layer.step)
    return steps


@dataclass(frozen=True)
class _Division:
    """How the milliseconds of a run of the unpruned network are divided.

    Attributes:
        layers: name of a timed layer -> its recorded time; its own timing where it has no record.
        nameless: what kernels take that belong to no node.
        scale: what all of these are multiplied by, where the record adds up to more than the run.
        rest: what no kernel takes.
        full: the run.
    """

    layers: dict[str, float]
    nameless: float
    scale: float
    rest: float
    full: float

    @classmethod
    def of(cls, run: Recorded, own: dict[str, float]) -> _Division:
        """The division of a run, given the timings of layers alone.

        Recording makes kernels slower, other work on the machine whole runs: the smaller of the
        two sums is nearer to the truth.
        """
        unseen = sum(time for name, time in own.items() if name not in run.nodes)
        layers = {name: run.nodes.get(name, time) for name, time in own.items()}
        nameless = max(run.nameless - unseen, 0.0)
        other = sum(time for name, time in run.nodes.items() if name not in own)
        kernels = sum(layers.values()) + other + nameless
        full = min(run.wall, kernels + run.rest)
        scale = min(1.0, full / kernels) if kernels else 1.0
        return cls(layers, nameless, scale, max(full - kernels, 0.0), full)


def _timed_layers(
    network: Network,
    shapes: Mapping[str, tuple[int, ...]],
    counter: AxisCounter,
    gates: Gates,
    timer: Timer,
    block: int,
    opset: int,
) -> dict[str, TimedLayer]:
    """Name of a node -> its times, for the layers that counts change."""
    layers = {}
    weights = (t for t in network.graph.tensors().values() if is_parameter(t))
    cold = sum(4 * math.prod(weight.shape) for weight in weights) > CACHE_BYTES
    alike: dict[str, LayerTimes] = {}
    for name, linear_map in (network.consumers | network.producers).items():
        x = shapes.get(linear_map.x.name)
        if linear_map.node.op not in TIMED_OPS or x is None:
            continue
        layer = Layer(linear_map, x, opset, cold)
        inputs, outputs = _channels(layer, counter)
        changing = np.flatnonzero(inputs.slopes.any((0, 1)) | outputs.slopes.any((0, 1)))
        if changing.size:
            times = alike.setdefault(layer.key, LayerTimes(layer, timer, block))
            inputs, outputs = inputs.restricted(changing), outputs.restricted(changing)
            own = gates.of([linear_map.node])
            layers[name] = TimedLayer(times, inputs, outputs, changing, own, 1.0, times.step)
    return layers


def _channels(layer: Layer, counter: AxisCounter) -> tuple[Multilinear, Multilinear]:
    """How many channels each part of a layer reads and makes."""
    own = layer.linear_map
    parts = own.groups if not layer.depthwise else 1
    whole = counter.count(own.y, own.y_axis)
    made = counter.count(own.weight, own.out_axis) if own.groups == 1 else whole
    read = counter.count(own.weight, own.in_axis) if own.groups == 1 else ()
    if layer.depthwise:  # every channel read makes as many channels
        read, parts = made, own.outputs // own.groups
    elif own.groups > 1:
        read = counter.count(own.x, own.x_axis)
    groups = counter.sizes.size
    return (
        Multilinear.of(read, groups).scaled(1 / parts),
        Multilinear.of(made, groups).scaled(1 / parts),
    )


def _merged(layers: Iterable[TimedLayer]) -> list[TimedLayer]:
    """The layers, with those that always are alike made one."""
    merged: dict[tuple[object, ...], TimedLayer] = {}
    for layer in layers:
        maps = (layer.inputs, layer.outputs)
        key = (
            id(layer.times),
            layer.groups.tobytes(),
            layer.gates.tobytes(),
            *(part.tobytes() for m in maps for part in (m.constants, m.slopes)),
        )
        known = merged.get(key)
        merged[key] = layer if known is None else replace(known, weight=known.weight + layer.weight)
    return list(merged.values())
