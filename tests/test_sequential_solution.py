"""Refitting in order is least squares on what the pruned network feeds each layer."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from micro_models import Weight, build
from oracles import Subject, random_keeps, scattered
from small_networks import behind_a_cut, in_order, one_shot, samples_for, studied

from onnxprune.extract import exposed
from onnxprune.linear_map import LinearMap
from onnxprune.options import Options
from onnxprune.problems import consumer_views
from onnxprune.recovery import FixedRidge
from onnxprune.runtime import Session

Array = np.ndarray
ONE = "<pads=[1,1,1,1]>"


@dataclass(frozen=True)
class Case:
    """A network and one layer of it.

    Attributes:
        nodes: the network, behind a cut.
        weights: its weights.
        layer: the tensor the layer makes.
        skip: tensors that are added to it.
        options: of ``build``.
    """

    nodes: str
    weights: dict[str, Weight]
    layer: str
    skip: tuple[str, ...] = ()
    sequence: bool = False
    flat: bool = False

    def model(self) -> onnx.ModelProto:
        """The network."""
        options = {}
        if self.sequence or self.flat:
            inputs = "float[N,7,6] x" if self.sequence else "float[N,6] x"
            options = {"inputs": inputs, "outputs": inputs.replace("6] x", "5] y")}
        if "Flatten" in self.nodes:
            options = {"outputs": "float[N,5] y"}
        return behind_a_cut(build(self.nodes, self.weights, **options))


def conv_case(second: str, width: tuple[int, ...], rest: str = "", **weights: Weight) -> Case:
    """A convolution behind others; its input has lost channels, and what is left is changed."""
    nodes = f"a = Conv {ONE} (x, w1, b1) h = Tanh(a) c = {second} {rest or 'y = Identity(c)'}"
    shapes: dict[str, Weight] = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": width, "b2": (4,)}
    return Case(nodes, shapes | weights, "c")


CASES = {
    "padded": conv_case(f"Conv {ONE} (h, w2, b2)", (4, 8, 3, 3)),
    "uneven pads, strides, dilations": conv_case(
        "Conv <pads=[0,1,2,1], strides=[2,1], dilations=[1,2]> (h, w2, b2)", (4, 8, 3, 2)
    ),
    "without bias": conv_case("Conv (h, w2)", (4, 8, 2, 2)),
    "grouped": conv_case("Conv <pads=[1,1,1,1], group=2> (h, w2, b2)", (4, 4, 3, 3)),
    "transposed": conv_case("ConvTranspose (h, w2, b2)", (8, 4, 3, 3)),
    "transposed, strides": conv_case("ConvTranspose <strides=[2,2]> (h, w2, b2)", (8, 4, 3, 3)),
    "transposed, grouped": conv_case(
        "ConvTranspose <strides=[2,2], group=2> (h, w2, b2)", (8, 2, 3, 3)
    ),
    "skip": Case(
        f"i = Conv {ONE} (x, w0) s = Tanh(i) a = Conv {ONE} (s, w1) h = Tanh(a)"
        f" c = Conv {ONE} (h, w2, b2) e = Add(c, s) y = Conv {ONE} (e, w3)",
        {
            "w0": (6, 3, 3, 3),
            "w1": (8, 6, 3, 3),
            "w2": (6, 8, 3, 3),
            "b2": (6,),
            "w3": (4, 6, 3, 3),
        },
        "c",
        ("s",),
    ),
    "skip behind a stride": Case(
        f"i = Conv {ONE} (x, w0) s = Tanh(i) a = Conv {ONE} (s, w1) h = Tanh(a)"
        " t = MaxPool <kernel_shape=[1,1], strides=[2,2]> (s)"
        " c = Conv <pads=[1,1,1,1], strides=[2,2]> (h, w2) e = Add(t, c) y = Conv (e, w3)",
        {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "w2": (6, 8, 3, 3), "w3": (4, 6, 3, 3)},
        "c",
        ("t",),
    ),
    "skip of one number for each channel": Case(
        f"i = Conv {ONE} (x, w0) s = Tanh(i) a = Conv {ONE} (s, w1) h = Tanh(a)"
        f" t = GlobalAveragePool (s) c = Conv {ONE} (h, w2) e = Add(c, t) y = Conv (e, w3)",
        {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "w2": (6, 8, 3, 3), "w3": (4, 6, 3, 3)},
        "c",
        ("t",),
    ),
    "added to a larger map": Case(  # a row of the layer is no row of the sum
        f"i = Conv {ONE} (x, w0) s = Tanh(i) a = Conv {ONE} (s, w1) h = Tanh(a)"
        " p = GlobalAveragePool (h) c = Conv (p, w2) e = Add(c, s) y = Conv (e, w3)",
        {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "w2": (6, 8, 1, 1), "w3": (4, 6, 3, 3)},
        "c",
    ),
    "MatMul of sequences": Case(
        "a = MatMul(x, w1) h = Tanh(a) c = MatMul(h, w2) y = Identity(c)",
        {"w1": (6, 9), "w2": (9, 5)},
        "c",
        sequence=True,
    ),
    "MatMul and a skip": Case(
        "i = MatMul(x, w0) s = Tanh(i) a = MatMul(s, w1) h = Tanh(a) c = MatMul(h, w2)"
        " d = Add(b2, c) e = Add(d, s) y = MatMul(e, w3)",
        {"w0": (6, 7), "w1": (7, 9), "w2": (9, 7), "b2": (7,), "w3": (7, 5)},
        "c",
        ("s",),
        sequence=True,
    ),
    "Gemm": Case(
        "a = Gemm(x, w1) h = Tanh(a) c = Gemm <transB=1> (h, w2, b2) y = Identity(c)",
        {"w1": (6, 9), "w2": (5, 9), "b2": (5,)},
        "c",
        flat=True,
    ),
    "Gemm of flattened maps": Case(
        "a = Conv <strides=[4,4]> (x, w1) h = Tanh(a) f = Flatten(h) c = Gemm(f, w2, b2)"
        " y = Identity(c)",
        {"w1": (8, 3, 3, 3), "w2": (32, 5), "b2": (5,)},
        "c",
    ),
}


@dataclass(frozen=True)
class Seen:
    """A case after its refit, with activations of the samples that were fitted on.

    Attributes:
        linear_map: the layer.
        keep: the entries of its input that survive, for each of its parts.
        x: what it reads in the original network.
        changed: what it reads in the pruned one, at full size.
        y: what it makes in the original network.
        lacks: what the pruned network lacks of the tensors that are added.
        weights: of all layers.
        prior: as they were before.
    """

    linear_map: LinearMap
    keep: list[Array]
    x: Array
    changed: Array
    y: Array
    lacks: Array | None
    weights: dict[str, tuple[Array, Array]]
    prior: dict[str, tuple[Array, Array]]

    @property
    def solved(self) -> tuple[Array, Array]:
        """The layer's weights, its inputs sliced, and bias."""
        return self.weights[self.linear_map.name]


@functools.cache
def seen(name: str) -> Seen:
    """Prune a case to half of every group and refit it, every position of every sample a row."""
    case = CASES[name]
    model = case.model()
    known = studied(model, samples_for(model), Options(batch=32))
    if "flattened" in name:
        known = replace(known, study=replace(known.study, max_features=30))
    keeps = random_keeps(known.network, np.random.default_rng(1), 0.5)
    prior = one_shot(known, keeps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxprune.sequential.ROWS_PER_FEATURE", 10**6)
        weights = dict(in_order(known, prior, FixedRidge(1e-9)).weights.arrays)
    linear_map = next(m for m in known.network.consumers.values() if m.y.name == case.layer)
    assert linear_map.name in weights
    names = [linear_map.x.name, case.layer, *case.skip]
    feeds = list(known.batches(known.parts.fit))
    feed = {key: np.concatenate([f[key] for f in feeds]) for key in feeds[0]}
    subject = Subject(model)
    alive = subject.alive(keeps)
    x, y, *skips = Session(exposed(subject.canonical, names)).run(feed, names)
    pruned = scattered(subject, alive, weights)
    names.remove(case.layer)
    changed, *others = Session(exposed(pruned, names)).run(feed, names)
    lacks = sum(a - b for a, b in zip(skips, others, strict=True)) if skips else None
    view = consumer_views(known.network, {linear_map.name})[linear_map.name]
    keep = view.kept_inputs(known.study.survivors(keeps))
    return Seen(linear_map, keep, x, changed, y, lacks, weights, dict(prior.weights.arrays))


def patches(x: Array, linear_map: LinearMap) -> Array:
    """What every output position of a convolution reads, (samples, *positions, channels, taps)."""
    attrs = linear_map.node.attrs
    kernel = linear_map.weight.shape[2:]
    strides, dilations = attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    top, left, bottom, right = attrs.get("pads", [0, 0, 0, 0])
    padded = np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    rows = []
    for i in range(0, padded.shape[2] - reach[0] + 1, strides[0]):
        for j in range(0, padded.shape[3] - reach[1] + 1, strides[1]):
            patch = padded[:, :, i : i + reach[0] : dilations[0], j : j + reach[1] : dilations[1]]
            rows.append(patch.reshape(*patch.shape[:2], -1))
    return np.stack(rows, axis=1)


def least_squares(features: Array, targets: Array) -> Array:
    """Weights and, last, bias: shape (features + 1, outputs)."""
    ones = np.ones((len(features), 1))
    both = np.concatenate([features, ones], axis=1).astype(np.float64)
    return np.linalg.lstsq(both, targets.astype(np.float64), rcond=None)[0]


def problems(case: Seen, sign: float) -> list[tuple[Array, Array, Array]]:
    """For every part of the layer: its rows, its targets, and the weights that were found."""
    linear_map, (weight, bias) = case.linear_map, case.solved
    targets = case.y + (0 if case.lacks is None else sign * case.lacks)
    if linear_map.node.op != "Conv":
        entries = case.keep[0]
        found = weight if linear_map.in_axis == 0 else weight.T
        x = case.changed[..., entries].reshape(-1, entries.size)
        return [(x, targets.reshape(-1, targets.shape[-1]), np.vstack([found, bias]))]
    groups = linear_map.groups
    rows = np.split(patches(case.changed, linear_map), groups, axis=2)
    outputs = np.split(np.moveaxis(targets, 1, -1), groups, axis=-1)
    found, biases = np.split(weight, groups), np.split(bias, groups)
    return [
        (
            part[:, :, entries].reshape(-1, entries.size * part.shape[3]),
            wanted.reshape(-1, wanted.shape[-1]),
            np.vstack([own.reshape(len(own), -1).T, shift]),
        )
        for part, wanted, entries, own, shift in zip(
            rows, outputs, case.keep, found, biases, strict=True
        )
    ]


def excess(case: Seen, sign: float = 1.0) -> float:
    """How far the outputs are from those of least squares, over the targets' variance."""
    distances, variances = [], []
    for x, targets, found in problems(case, sign):
        rows = np.column_stack([x, np.ones(len(x))]).astype(np.float64)
        distances.append(((rows @ (found - least_squares(x, targets))) ** 2).sum())
        variances.append(((targets - targets.mean(0)) ** 2).sum())
    return float(sum(distances) / sum(variances))


def gap(left: tuple[Array, Array], right: tuple[Array, Array]) -> float:
    pairs = zip(left, right, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


PLAIN = [name for name in CASES if "transposed" not in name and "flattened" not in name]


@pytest.mark.parametrize("name", PLAIN)
def test_the_solution_is_that_of_least_squares(name):
    case = seen(name)
    assert excess(case) < 1e-4
    assert np.abs(case.changed - case.x).max() > 0.05  # there was something to make up for


@pytest.mark.parametrize("name", [name for name in PLAIN if CASES[name].skip])
def test_a_skip_of_the_wrong_sign_or_none_would_be_seen(name):
    case = seen(name)
    assert excess(case, sign=-1.0) > 1e-3
    assert excess(case, sign=0.0) > 1e-3


@pytest.mark.parametrize("name", PLAIN)
def test_one_shot_weights_are_not_that_solution(name):
    case = seen(name)
    before = replace(case, weights=case.prior)
    assert excess(before) > 1e-3


def test_positions_of_flattened_maps_are_solved_on_channels():
    """Every position's weights: least squares on the channels of all positions."""
    case = seen("Gemm of flattened maps")
    (keep,) = case.keep
    x = case.x.reshape(len(case.x), 8, 4)
    channels = np.unique(keep // 4)
    changed = case.changed.reshape(len(case.x), 8, 4)[:, channels]
    rows = np.moveaxis(changed, 1, 2).reshape(-1, channels.size)
    original = np.moveaxis(x, 1, 2).reshape(-1, 8)
    whole = case.linear_map.weight.values.reshape(8, 4, 5)
    total = case.linear_map.bias_vector().copy()
    weight = np.zeros((channels.size, 4, 5))
    for place in range(4):
        both = least_squares(rows, original @ whole[:, place])
        weight[:, place] = both[:-1]
        total += both[-1]
    assert gap(case.solved, (weight.reshape(-1, 5), total)) < 2e-3


@pytest.mark.parametrize("name", [name for name in CASES if "transposed" in name])
def test_taps_of_a_transposed_convolution_are_solved_on_channels(name):
    """With strides outputs add up different taps: no bias can take over means, and it stays."""
    case = seen(name)
    linear_map, (kernel, bias) = case.linear_map, case.solved
    own = np.split(linear_map.weight.values, linear_map.groups)
    biases, weights = [], []
    for part, (whole, keep) in enumerate(zip(own, case.keep, strict=True)):
        width = len(whole)
        old = np.moveaxis(case.x[:, part * width : (part + 1) * width], 1, -1).reshape(-1, width)
        new = np.moveaxis(case.changed, 1, -1)[..., part * width + keep].reshape(-1, keep.size)
        targets = old @ whole.reshape(width, -1)
        if linear_map.upsampling > 1:
            solved = np.linalg.lstsq(new.astype(float), targets.astype(float), rcond=None)[0]
            biases.append(np.zeros(whole.shape[1]))
        else:
            both = least_squares(new, targets)
            solved = both[:-1]
            biases.append(both[-1].reshape(whole.shape[1], -1).sum(axis=1))
        weights.append(solved.reshape(keep.size, *whole.shape[1:]))
    wanted = np.concatenate(weights), np.concatenate(biases) + linear_map.bias_vector()
    assert gap((kernel, bias), wanted) < 1e-2
    if linear_map.upsampling > 1:
        np.testing.assert_allclose(bias, linear_map.bias_vector(), atol=1e-6)
