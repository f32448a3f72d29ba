"""Small networks with everything the stages of a run need of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from micro_models import build

from onnxprune.calibration import Calibration, Split, split
from onnxprune.canonical import canonicalise
from onnxprune.cost import CostModel, cost_model
from onnxprune.executor import InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.network import ChannelGroup, Network
from onnxprune.options import Options
from onnxprune.plan import Keep, Plan
from onnxprune.rewrite import digest
from onnxprune.runtime import Session
from onnxprune.scope import Scope
from onnxprune.study import Batches, Study, study

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
    scope = Scope.of(network, chosen, options.align)
    known = study(canonical, scope, calibration, parts, options, QUIET)
    return Studied(model, options, calibration, parts, cost, known)
