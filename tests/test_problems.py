"""Between weights and problems: nothing is lost on the way there and back, stacked or not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from micro_models import build
from onnx import numpy_helper
from small_networks import QUIET, convolutions, perceptron, random_samples

from onnxprune.batches import Batches
from onnxprune.canonical import canonicalise
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.layer_problem import LayerProblem
from onnxprune.network import FROZEN, Network
from onnxprune.options import Options
from onnxprune.problems import (
    ConsumerView,
    consumer_views,
    flattened,
    group_problem,
    layer_problems,
    readers_of,
)
from onnxprune.recovery import FixedRidge
from onnxprune.refit import refit
from onnxprune.runtime import Session
from onnxprune.statistics import collect

ALL = 1000
"""Rows per feature that no sampling can cut down: every position is taken."""

FLOAT32 = 1e-5
"""Relative: weights are stored in float32, and the Grams are summed from float32 products."""


def flat(order: str) -> onnx.ModelProto:
    """Conv 3 -> 8 on 8 x 8, positions flattened after or before the channels, Gemm to 5."""
    shape = {"channels first": (0, -1), "channels last": (0, -1)}[order]
    turn = "t = Identity(r)" if order == "channels first" else "t = Transpose <perm=[0,2,3,1]> (r)"
    nodes = f"c = Conv <strides=[2,2]> (x, w1, b1) r = Relu(c) {turn} h = Reshape(t, shape)"
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (72, 5), "b2": (5,)}
    return build(
        f"{nodes} y = Gemm (h, w2, b2)",
        {**weights, "shape": np.array(shape, np.int64)},
        outputs="float[N,5] y",
    )


def upward(kernel: int = 2, strides: int = 2, **options: object) -> onnx.ModelProto:
    """Conv 3 -> 8 on 8 x 8, ConvTranspose to 6 channels."""
    attributes = f"strides=[{strides},{strides}]" + "".join(
        f", {key}={value}" for key, value in options.items()
    )
    nodes = "c = Conv <pads=[1,1,1,1]> (x, w1, b1) h = Relu(c)"
    outputs = 3 if "group" in options else 6
    weights = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, outputs, kernel, kernel), "b2": (6,)}
    return build(
        f"{nodes} y = ConvTranspose <{attributes}> (h, w2, b2)",
        weights,
        outputs="float[N,6,HY,WY] y",
    )


MODELS = {
    "Conv": convolutions(),
    "Conv without bias": convolutions(
        "r = Relu(c) h = Conv <pads=[1,1,1,1]> (r, w3)", w3=(8, 8, 3, 3)
    ),
    "Conv grouped": convolutions(
        "r = Relu(c) g = Conv <pads=[1,1,1,1], group=2> (r, w3, b3) h = Relu(g)",
        w3=(6, 4, 3, 3),
        b3=(6,),
        w2=(4, 6, 3, 3),
    ),
    "ConvTranspose": upward(),
    "ConvTranspose grouped": upward(group=2),
    "Gemm": perceptron(),
    "Gemm transposed": perceptron(
        nodes="a = Gemm <transB=1> (x, w1, b1) h = Relu(a) y = Gemm <transB=1> (h, w2, b2)",
        w1=(10, 6),
        w2=(5, 10),
    ),
    "MatMul": perceptron(nodes="a = MatMul (x, w1) h = Relu(a) y = MatMul (h, w2)"),
    "flattened, channels first": flat("channels first"),
    "flattened, channels last": flat("channels last"),
}


def views_of(model: onnx.ModelProto, max_features: int = 6000) -> dict[str, ConsumerView]:
    network = find_groups(canonicalise(model))
    return consumer_views(network, readers_of(network.groups), max_features)


def problems_of(
    model: onnx.ModelProto, views: dict[str, ConsumerView], count: int = 60
) -> dict[str, list[LayerProblem]]:
    samples = open_samples(model, random_samples(model, count), Options())
    batches = Batches(samples, np.arange(count), 32)
    grams = collect(
        canonicalise(model),
        [spec for view in views.values() for spec in view.specs],
        batches,
        samples=count,
        executor=QUIET,
        rows_per_feature=ALL,
    )
    return layer_problems(views, grams, grams)


@pytest.mark.parametrize("max_features", [6000, 7], ids=["whole", "stacked"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_go_there_and_back(name, max_features):
    model = MODELS[name]
    views = views_of(model, max_features)
    problems = problems_of(model, views, 4)
    assert views
    for key, view in views.items():
        linear_map = view.linear_map
        matrices = [problem.weight[:, :-1] for problem in problems[key]]
        biases = [problem.weight[:, -1] for problem in problems[key]]
        back = view.weight_tensor(matrices)
        np.testing.assert_array_equal(back, linear_map.weight.values)
        assert back.dtype == linear_map.weight.values.dtype
        np.testing.assert_array_equal(
            view.bias_tensor(biases), linear_map.bias_vector().astype(np.float32)
        )
        for problem in problems[key]:
            width = problem.channels.size * problem.taps
            assert problem.weight.shape[1] == width + 1 == len(problem.gram)


@pytest.mark.parametrize("max_features", [6000, 7], ids=["whole", "stacked"])
@pytest.mark.parametrize("name", MODELS)
def test_cutting_a_problem_is_cutting_the_weights(name, max_features, rng):
    model = MODELS[name]
    views = views_of(model, max_features)
    problems = problems_of(model, views, 4)
    network_channels = 1 + max(int(view.channels.max()) for view in views.values())
    parts = max(view.linear_map.groups for view in views.values())
    alive = rng.permutation(np.arange(network_channels) % 2 == 0) if parts == 1 else None
    if alive is None:  # balanced parts: the even half of each
        alive = np.arange(network_channels) % 2 == 0
    for key, view in views.items():
        keep = view.keep(alive)
        matrices = []
        for problem, part in zip(problems[key], keep, strict=True):
            cube = problem.weight[:, :-1].reshape(len(problem.weight), -1, problem.taps)
            matrices.append(cube[:, part].reshape(len(problem.weight), -1))
        kept = view.kept_inputs(alive)
        linear_map = view.linear_map
        np.testing.assert_array_equal(
            view.weight_tensor(matrices), linear_map.slice_inputs(linear_map.weight.values, kept)
        )
        x = linear_map.node.inputs[0]
        extent = x.shape[linear_map.x_axis] // linear_map.groups
        assert all(part.size == extent // 2 for part in kept)


@pytest.mark.parametrize("name", [name for name in MODELS if "Transpose" not in name])
def test_a_problem_says_what_the_consumer_computes(name):
    """W E[x] + b is the mean output."""
    model = MODELS[name]
    canonical = canonicalise(model)
    views = views_of(model)
    problems = problems_of(model, views, 6)
    feed = random_samples(model, 6)
    for key, view in views.items():
        node = view.linear_map.node
        y = node.outputs[0].name
        output = y if y == "y" else None
        if output is None:
            exposed = onnx.ModelProto()
            exposed.CopyFrom(canonical)
            exposed.graph.output.append(onnx.helper.make_empty_tensor_value_info(y))
            (values,) = Session(exposed).run(feed, [y])
        else:
            (values,) = Session(canonical).run(feed, [y])
        axes = tuple(a for a in range(values.ndim) if a != view.linear_map.y_axis)
        means = np.concatenate([p.weight @ p.gram[:, -1] for p in problems[key]])
        np.testing.assert_allclose(means, values.mean(axis=axes), atol=1e-5)


def test_stacked_views_are_narrow():
    for name in ("Conv", "Conv grouped", "flattened, channels first", "flattened, channels last"):
        for view in views_of(MODELS[name], 7).values():
            assert view.stack == 9, name  # 3 x 3 taps, or 3 x 3 positions
            assert view.channels.size in (8, 6)
    assert all(view.stack == 1 for view in views_of(MODELS["Gemm"], 7).values())


def redundant(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model whose last four of eight channels are sums of the first ones, exactly."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    mix = np.array([[1, 1, 0, 0], [0, 1, -1, 0], [0, 0, 1, 1], [1, 0, 0, -1]], np.float64)
    for tensor in copy.graph.initializer:
        if tensor.name in ("w1", "b1"):
            values = numpy_helper.to_array(tensor).astype(np.float64)
            values[4:] = np.tensordot(mix, values[:4], 1)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    for node in copy.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Identity"
    return copy


@pytest.mark.parametrize(
    "model",
    [convolutions(pads=0), flat("channels first"), flat("channels last")],
    ids=["taps", "channels first", "channels last"],
)
def test_stacked_and_whole_solutions_of_a_redundant_layer_agree(model):
    """Both are exact then, and the exact solution is unique."""
    model = redundant(model)
    alive = np.arange(8) < 4
    found = []
    for max_features in (6000, 7):
        views = views_of(model, max_features)
        weights = refit(views, problems_of(model, views, 200), alive, FixedRidge(1e-9)).weights
        (name,) = views
        assert views[name].stack == (1 if max_features > 7 else 9)
        found.append(weights.arrays[name])
    np.testing.assert_allclose(found[0][0], found[1][0], atol=2e-3 * np.abs(found[0][0]).max())
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2e-3)
    difference = found[0][0].shape
    assert difference[views[name].linear_map.in_axis] in (4, 36)


def test_transposed_convolutions_are_always_stacked():
    for name, outputs in (("ConvTranspose", 6), ("ConvTranspose grouped", 3)):
        (view,) = views_of(MODELS[name]).values()
        assert (view.stack, view.specs[0].window, view.linear_map.taps) == (4, None, 4)
        problems = problems_of(MODELS[name], {view.name: view}, 4)[view.name]
        assert all(problem.weight.shape[0] == outputs * 4 for problem in problems)
        assert all(problem.zero_padded for problem in problems)


def recovered_output(model: onnx.ModelProto, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a network ending in one consumer computes, and with it refitted to some channels."""
    views = views_of(model)
    ((name, view),) = views.items()
    weights = refit(views, problems_of(model, views, 200), alive, FixedRidge(1e-9)).weights
    weight, bias = weights.arrays[name]
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    full = {"w2": view.linear_map.pad_inputs(weight, view.kept_inputs(alive)), "b2": bias}
    for tensor in changed.graph.initializer:
        if tensor.name in full:
            tensor.CopyFrom(numpy_helper.from_array(full[tensor.name], tensor.name))
    feed = random_samples(model, 200)
    (before,), (after,) = (Session(m).run(feed, ["y"]) for m in (model, changed))
    return before, after


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_a_redundant_transposed_convolution_is_recovered_exactly(kernel):
    model = redundant(upward(kernel, pads=[0, 1, 0, 0] if kernel > 1 else [0, 0, 0, 0]))
    before, after = recovered_output(model, np.arange(8) < 4)
    np.testing.assert_allclose(after, before, atol=5e-3)


def test_constants_go_into_the_bias_of_a_transposed_convolution_without_strides():
    model = upward(3, strides=1, pads=[2, 2, 2, 2])  # every output adds up all taps
    for tensor in model.graph.initializer:
        if tensor.name in ("w1", "b1"):
            values = numpy_helper.to_array(tensor).copy()
            values[4:] = 0.0 if tensor.name == "w1" else [1.0, 2.0, 3.0, 4.0]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    before, after = recovered_output(model, np.arange(8) < 4)
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_transposed_convolution_with_strides_is_fitted_through_zero():
    """W_K + W_D B at every tap, B from all positions, uncentred; the bias stays."""
    model = upward()
    views = views_of(model)
    ((name, view),) = views.items()
    alive = np.isin(np.arange(8), [0, 2, 3, 5, 7])
    weights = refit(views, problems_of(model, views, 100), alive, FixedRidge(1e-12)).weights
    canonical = canonicalise(model)
    canonical.graph.output.append(onnx.helper.make_empty_tensor_value_info("h"))
    (maps,) = Session(canonical).run(random_samples(model, 100), ["h"])
    rows = np.moveaxis(maps, 1, -1).reshape(-1, 8).astype(np.float64)
    mix = np.linalg.lstsq(rows[:, alive], rows[:, ~alive], rcond=None)[0]
    weight = view.linear_map.weight.values.astype(np.float64)
    expected = weight[alive] + np.einsum("dohw,kd->kohw", weight[~alive], mix)
    np.testing.assert_allclose(weights.arrays[name][0], expected, atol=1e-4)
    np.testing.assert_allclose(weights.arrays[name][1], view.linear_map.bias.values, atol=1e-6)


def test_the_stacked_solution_is_the_channel_mix():
    """W_K + W_D B at every tap, B from all positions of the map, centred."""
    model = convolutions(pads=0)
    views = views_of(model, 7)
    (name,) = views
    alive = np.isin(np.arange(8), [0, 2, 3, 5, 7])
    problems = problems_of(model, views, 100)
    weights = refit(views, problems, alive, FixedRidge(1e-12)).weights
    canonical = canonicalise(model)
    h = views[name].linear_map.node.inputs[0].name
    canonical.graph.output.append(onnx.helper.make_empty_tensor_value_info(h))
    (maps,) = Session(canonical).run(random_samples(model, 100), [h])
    rows = np.moveaxis(maps, 1, -1).reshape(-1, 8).astype(np.float64)
    rows -= rows.mean(axis=0)
    mix = np.linalg.lstsq(rows[:, alive], rows[:, ~alive], rcond=None)[0]
    weight = views[name].linear_map.weight.values.astype(np.float64)
    expected = weight[:, alive] + np.einsum("odhw,kd->okhw", weight[:, ~alive], mix)
    np.testing.assert_allclose(weights.arrays[name][0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], (3, True)),
        ([0, 1, 2, 0, 1, 2], (2, False)),
        ([0, 1, 2, 3], (1, True)),
        ([5, 5, 5, 5], (4, True)),
        ([0, 0, 2, 2, 1, 1], (2, True)),
        ([3, 1, 3, 1, 3, 1], (3, False)),
        ([0, 1, 2, 0, 1], (1, True)),  # not a whole number of rounds
        ([0, 0, 0, 1, 1], (1, True)),  # blocks of unequal width
        ([0, 1, 0, 2], (1, True)),
        ([FROZEN, FROZEN, FROZEN, FROZEN, 4, 4], (2, True)),
        ([FROZEN, FROZEN, 0, FROZEN, FROZEN, 0], (2, False)),
        ([FROZEN, 0, 1, FROZEN, 0, 1], (2, False)),
        ([0, FROZEN, FROZEN, 0, FROZEN, FROZEN], (2, False)),
        ([7], (1, True)),
    ],
)
def test_flattened_maps_are_recognised(channels, expected):
    assert flattened(np.array(channels)) == expected


def test_a_window_of_unknown_place_is_stacked_too():
    """Padding that depends on an unknown size leaves no patches to take."""
    model = convolutions("h = Relu(c)")
    network = find_groups(canonicalise(model))
    (name,) = network.groups[0].consumers
    network.consumers[name] = replace(network.consumers[name], window=None)
    view = consumer_views(network, readers_of(network.groups))[name]
    assert (view.stack, view.specs[0].window) == (9, None)


def branches() -> Network:
    """Two convolutions whose maps are joined and read by one more, which a third reads half."""
    nodes = "a = Conv <pads=[1,1,1,1]> (x, w1) b = Conv <pads=[1,1,1,1]> (x, w3)"
    nodes += " h = Concat <axis=1> (a, b) y = Conv <pads=[1,1,1,1]> (h, w2)"
    weights = {"w1": (3, 3, 3, 3), "w3": (5, 3, 3, 3), "w2": (4, 8, 3, 3)}
    return find_groups(canonicalise(build(nodes, weights)))


def test_a_group_problem_holds_its_readers_and_makers():
    network = branches()
    views = consumer_views(network, readers_of(network.groups))
    (name,) = views
    problem = LayerProblem(
        name, np.zeros((4, 73)), np.eye(73), np.eye(73), views[name].channels, 9, 100
    )
    first, second = (group_problem(g, network, {name: [problem]}) for g in network.groups)
    for group, found in zip(network.groups, (first, second), strict=True):
        (seen,) = found.consumers  # the other group's channels cannot be cut here
        assert (seen.name, seen.gram is problem.gram) == (name, True)
        own = np.where(np.isin(problem.channels, group.channels), problem.channels, FROZEN)
        np.testing.assert_array_equal(seen.channels, own)
        (made,) = found.producer_weights
        weight = network.producers[group.producers[0]].weight.values
        np.testing.assert_array_equal(made, weight.reshape(group.size, -1))


def test_a_unit_that_several_rows_make_has_all_their_weights():
    nodes = "c = Conv(x, w1) h = DepthToSpace <blocksize=2> (c) y = Conv(h, w2)"
    network = find_groups(canonicalise(build(nodes, {"w1": (12, 3, 3, 3), "w2": (4, 3, 1, 1)})))
    (group,) = network.groups
    problem = LayerProblem("r", np.zeros((4, 4)), np.eye(4), np.eye(4), group.channels, 1, 100)
    found = group_problem(group, network, {name: [problem] for name in group.consumers})
    weight = network.producers[group.producers[0]].weight.values
    expected = [weight[unit::3].reshape(-1) for unit in range(3)]  # one row for each position
    np.testing.assert_array_equal(found.producer_weights[0], expected)


def test_views_are_of_the_readers_of_the_chosen_groups_alone():
    network = find_groups(canonicalise(MODELS["Conv grouped"]))
    for group in network.groups:
        assert set(consumer_views(network, readers_of([group]))) == set(group.consumers)
