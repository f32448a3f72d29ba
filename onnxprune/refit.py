"""New weights for every consumer that loses inputs, and for projections that take places over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from onnxprune.arrays import Array, IndexArray
from onnxprune.blas_threads import threads_for
from onnxprune.contractions import ContractionView
from onnxprune.layer_problem import LayerProblem
from onnxprune.linear_map import LinearMap
from onnxprune.normal_equations import features_of
from onnxprune.plan import Weights
from onnxprune.problems import ConsumerView
from onnxprune.progress import shown
from onnxprune.recovery import Recovery, Solution
from onnxprune.yardstick import sliced_error

NO_CONTRACTIONS: Mapping[str, ContractionView] = MappingProxyType({})
NO_OTHERS: Mapping[str, Recovery] = MappingProxyType({})


@dataclass(frozen=True)
class Prior:
    """What a network is before it is refitted in order, or without that.

    Consumers are solved on the original's activations, or only sliced where a refit starts there.

    Attributes:
        weights: of the consumers that lose inputs, and of the projections that take places over.
        targets: weights with all inputs that make the outputs such a projection has now; all
            other consumers still have their own.
        masks: for the products of two activations that lose places.
        alive: which network-wide channels survive, shape (channels,).
        solutions: of every part of the consumers and products.
        emptied: consumers that end a dropped section -> the full-size weight and bias with which
            they make what stands in its place.
        gone: names of the nodes that go with dropped sections, which are not recovered.
    """

    weights: Weights
    targets: Mapping[str, tuple[Array, Array]]
    masks: Mapping[str, Array]
    alive: Array
    solutions: dict[str, list[Solution]]
    emptied: Mapping[str, tuple[Array, Array]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


def refit(
    views: Mapping[str, ConsumerView],
    layers: Mapping[str, Sequence[LayerProblem]],
    alive: Array,
    recovery: Recovery,
    contractions: Mapping[str, ContractionView] = NO_CONTRACTIONS,
    *,
    others: Mapping[str, Recovery] = NO_OTHERS,
    progress: bool = False,
) -> Prior:
    """Solve every consumer that reads a channel which does not survive.

    So are the products of two activations that lose places: the projection of one factor takes
    over. Its inputs may be cut as well, so that comes last.

    Args:
        views: the consumers.
        layers: their problems, and those of the products.
        alive: which network-wide channels survive, shape (channels,), bool.
        recovery: how to solve.
        contractions: the products.
        others: consumers that are solved in another way -> how.
        progress: whether to show a bar.
    """
    arrays: dict[str, tuple[Array, Array]] = {}
    targets: dict[str, tuple[Array, Array]] = {}
    solutions = {}
    for name in shown(views, "recovering weights", progress=progress):
        view = views[name]
        if not view.is_cut(alive):
            continue
        keep = view.keep(alive)
        parts = layers[name]
        with threads_for(len(parts[0].gram)):
            how = others.get(name, recovery)
            solved = [_solved(how, layer, k) for layer, k in zip(parts, keep, strict=True)]
        weight = view.weight_tensor([solution.weight for solution in solved])
        arrays[name] = (weight, view.bias_tensor([solution.bias for solution in solved]))
        solutions[name] = solved
    for name, product in contractions.items():
        if product.fold is not None and product.is_cut(alive):
            fold, keeps = product.fold, product.fold.keep(alive)
            heads = {
                head: _solved(recovery, layers[name][head], own) for head, own in keeps.items()
            }
            own = fold.linear_map.name
            for made in (arrays, targets):
                before = made.get(own) or as_it_is(fold.linear_map)
                made[own] = fold.written(layers[name], heads, keeps, before)
            solutions[name] = list(heads.values())
    cut = {name: product for name, product in contractions.items() if product.is_cut(alive)}
    masks = {name: product.mask(alive) for name, product in cut.items()}
    return Prior(Weights(arrays), targets, masks, alive, solutions)


def _solved(recovery: Recovery, problem: LayerProblem, keep: IndexArray) -> Solution:
    """A solution beside which, if it is measured at all, stands what slicing alone would do."""
    solution = recovery.solve(problem, keep)
    if solution.tune_error is None:
        return solution
    features = features_of(keep, problem.taps)
    own = problem.weight[:, np.append(features, -1)]
    return replace(solution, sliced_error=sliced_error(problem, features, own))


def as_it_is(linear_map: LinearMap) -> tuple[Array, Array]:
    """The weight and bias of a map that keeps its inputs."""
    weight = linear_map.weight.values
    return weight, linear_map.bias_vector().astype(weight.dtype)


def padded(
    views: Mapping[str, ConsumerView], weights: Weights, alive: Array
) -> dict[str, tuple[Array, Array]]:
    """Recovered weights at full size, zeros where inputs are cut, for trials."""
    full = {}
    for name, (weight, bias) in weights.arrays.items():
        if name not in views:  # a projection that takes over places, and reads all it did
            full[name] = weight, bias
            continue
        linear_map = views[name].linear_map
        full[name] = (linear_map.pad_inputs(weight, views[name].kept_inputs(alive)), bias)
    return full
