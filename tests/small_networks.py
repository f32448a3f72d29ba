"""Small networks with everything the stages of a run need of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from micro_models import build
from onnx import TensorProto, helper, numpy_helper
from oracles import random_feed

from onnxprune.batches import Batches
from onnxprune.calibration import Calibration, Split, split
from onnxprune.canonical import canonicalise
from onnxprune.cost import CostModel, cost_model
from onnxprune.executor import InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.plan import Keep, Plan
from onnxprune.recovery import Recovery
from onnxprune.refit import Prior, refit
from onnxprune.rewrite import digest
from onnxprune.runtime import Session
from onnxprune.scope import Scope
from onnxprune.sequential import Refitted, refit_in_order
from onnxprune.study import Study, study
from onnxprune.trials import Trials

MODELS = Path(__file__).resolve().parents[1] / "models"
QUIET = InProcess(progress=False)


def digits(name: str = "digits_calib.npz", key: str = "input") -> np.ndarray:
    with np.load(MODELS / name) as file:
        return file[key]


def accuracy(model: onnx.ModelProto) -> float:
    """Share of the digits' test images that are classified rightly."""
    (logits,) = Session(model).run({"input": digits("digits_test.npz")})
    return float((logits.argmax(1) == digits("digits_test.npz", "labels")).mean())


def convolutions(middle: str = "h = Relu(c)", pads: int = 1, **weights: object) -> onnx.ModelProto:
    """Conv 3 -> 8, something, Conv 8 -> 4, on images of 8 x 8."""
    padding = f"<pads=[{pads},{pads},{pads},{pads}]>"
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (4, 8, 3, 3), "b2": (4,)} | weights
    return build(f"c = Conv {padding} (x, w1, b1) {middle} y = Conv {padding} (h, w2, b2)", shapes)


def perceptron(hidden: int = 10, *, nodes: str = "", **weights: object) -> onnx.ModelProto:
    """Gemm 6 -> hidden, Relu, Gemm hidden -> 5."""
    shapes = {"w1": (6, hidden), "b1": (hidden,), "w2": (hidden, 5), "b2": (5,)} | weights
    nodes = nodes or "a = Gemm (x, w1, b1) h = Relu(a) y = Gemm (h, w2, b2)"
    return build(nodes, shapes, inputs="float[N,6] x", outputs="float[N,5] y")


def random_samples(model: onnx.ModelProto, count: int = 80, seed: int = 0) -> dict[str, np.ndarray]:
    """Standard normal values for every input; axis 0 holds the samples."""
    rng = np.random.default_rng(seed)
    initializers = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: rng.standard_normal(
            (count, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:]))
        ).astype(np.float32)
        for value in model.graph.input
        if value.name not in initializers
    }


def halved(model: onnx.ModelProto, dtype: npt.DTypeLike) -> onnx.ModelProto:
    """The model with floating-point numbers of another type."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


def behind_a_cut(model: onnx.ModelProto, seed: int = 0) -> onnx.ModelProto:
    """The model with two more linear maps in front of each input, and channels between them.

    So that what the model's own layers read changes when those are cut.
    """
    rng = np.random.default_rng(seed)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    initializers = {tensor.name for tensor in result.graph.initializer}
    front = []
    for value in list(result.graph.input):
        kind, name = value.type.tensor_type, value.name
        extents = [dim.dim_value for dim in kind.shape.dim]
        width = extents[1] if len(extents) > 3 else extents[-1]
        if name in initializers or kind.elem_type != TensorProto.FLOAT or width < 1:
            continue
        taps = [1] * (len(extents) - 2) if len(extents) > 3 else None
        shapes = [2 * width + 2, width], [width, 2 * width + 2]
        op = "MatMul" if taps is None else "Conv"
        for place, shape in enumerate(shapes):
            shape = [*shape, *taps] if taps is not None else shape[::-1]
            values = rng.standard_normal(shape) / np.sqrt(shapes[place][1])
            weight = numpy_helper.from_array(values.astype(np.float32), f"{name}/w{place}")
            result.graph.initializer.append(weight)
            if result.ir_version < 4:
                kind = helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, shape)
                result.graph.input.append(kind)
        front += [
            helper.make_node(op, [name, f"{name}/w0"], [f"{name}/wide"]),
            helper.make_node("Relu", [f"{name}/wide"], [f"{name}/rectified"]),
            helper.make_node(op, [f"{name}/rectified", f"{name}/w1"], [f"{name}/in"]),
        ]
        _rename(result.graph, name, f"{name}/in")
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(front + nodes)
    return result


def _rename(graph: onnx.GraphProto, before: str, after: str) -> None:
    """Let all nodes of a graph, and of graphs inside, read another tensor."""
    for node in graph.node:
        node.input[:] = [after if name == before else name for name in node.input]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, before, after)


@dataclass(frozen=True)
class Studied:
    """A model after its first stages."""

    model: onnx.ModelProto
    options: Options
    samples: Calibration
    parts: Split
    cost: CostModel
    study: Study

    @property
    def network(self) -> Network:
        return self.study.network

    def batches(self, indices: np.ndarray | None = None) -> Batches:
        wanted = self.parts.tune if indices is None else indices
        return Batches(self.samples, wanted, self.options.batch)

    def plan(self, keeps: dict[str, np.ndarray]) -> Plan:
        sizes = {group.name: group.size for group in self.study.groups}
        edits = [Keep(name, tuple(keep.tolist()), sizes[name]) for name, keep in keeps.items()]
        return Plan(digest(self.model), tuple(edits))


def studied(
    model: onnx.ModelProto,
    samples: dict[str, np.ndarray] | None = None,
    options: Options | None = None,
    groups: list[ChannelGroup] | None = None,
) -> Studied:
    """Carry out the stages up to the study."""
    options = options or Options()
    canonical = canonicalise(model)
    network = find_groups(canonical)
    calibration = open_samples(model, samples or random_samples(model), options)
    parts = split(len(calibration), options.seed)
    sample = next(iter(Batches(calibration, parts.held_out, 1)))
    cost = cost_model(network, canonical, {name: a.shape for name, a in sample.items()})
    chosen = list(network.groups) if groups is None else groups
    scope = Scope.of(network, chosen, options.composition.align)
    known = study(canonical, scope, calibration, parts, options, QUIET)
    return Studied(model, options, calibration, parts, cost, known)


def samples_for(model: onnx.ModelProto, count: int = 160, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs; where the model fixes its batch, as many whole batches as that takes."""
    rng = np.random.default_rng(seed)
    feeds: list[dict[str, np.ndarray]] = []
    while sum(len(next(iter(feed.values()))) for feed in feeds) < count:
        feeds.append(random_feed(model, rng, 20))
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def one_shot(
    known: Studied, keeps: dict[str, np.ndarray], recovery: Recovery | None = None
) -> Prior:
    study = known.study
    alive, how = study.survivors(keeps), recovery or study.recovery
    return refit(study.views, study.layers, alive, how, study.contractions)


def in_order(
    known: Studied, prior: Prior, recovery: Recovery | None = None, **settings: object
) -> Refitted:
    fit, tune = known.batches(known.parts.fit), known.batches(known.parts.tune)
    how = recovery or known.study.recovery
    (done,) = refit_in_order(known.study, [prior], how, fit, tune, QUIET, **settings)  # type: ignore[arg-type]
    return done


def tried_by(known: Studied) -> Trials:
    """What tries prunings, on all samples to fit and tune on."""
    fit, tune = known.batches(known.parts.fit), known.batches(known.parts.tune)
    return Trials(known.study, fit, tune, known.options, QUIET)
