"""New weights for every consumer that loses inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnxprune.arrays import Array
from onnxprune.plan import LayerProblem, Weights
from onnxprune.problems import ConsumerView
from onnxprune.progress import shown
from onnxprune.recovery import Recovery, Solution


def refit(
    views: Mapping[str, ConsumerView],
    layers: Mapping[str, Sequence[LayerProblem]],
    alive: Array,
    recovery: Recovery,
    *,
    progress: bool = False,
) -> tuple[Weights, dict[str, list[Solution]]]:
    """Solve every consumer that reads a channel which does not survive.

    Args:
        views: the consumers.
        layers: their problems.
        alive: which network-wide channels survive, shape (channels,), bool.
        recovery: how to solve.
        progress: whether to show a bar.

    Returns:
        The weights, and the solutions of every part they were made from.
    """
    arrays, solutions = {}, {}
    for name in shown(views, "recovering weights", progress=progress):
        view = views[name]
        if not view.is_cut(alive):
            continue
        keep = view.keep(alive)
        solved = [
            recovery.solve(layer, part) for layer, part in zip(layers[name], keep, strict=True)
        ]
        weight = view.weight_tensor([solution.weight for solution in solved])
        arrays[name] = (weight, view.bias_tensor([solution.bias for solution in solved]))
        solutions[name] = solved
    return Weights(arrays), solutions


def padded(
    views: Mapping[str, ConsumerView], weights: Weights, alive: Array
) -> dict[str, tuple[Array, Array]]:
    """Recovered weights at full size, zeros where inputs are cut, for trials."""
    full = {}
    for name, (weight, bias) in weights.arrays.items():
        linear_map = views[name].linear_map
        full[name] = (linear_map.pad_inputs(weight, views[name].kept_inputs(alive)), bias)
    return full
