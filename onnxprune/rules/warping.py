"""Operators that read feature maps between their positions."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnxprune.linear_map import LinearMap
from onnxprune.rules.linear import relate_channels
from onnxprune.rules.registry import Facts, rule

BIAS = 3
"""Which input of a DeformConv is its bias, which canonical models always have; the third one are
offsets."""


@rule("GridSample")
def grid_sample(node: gs.Node, facts: Facts) -> None:
    """Y[:, c] is X[:, c] at the positions that the grid says."""
    x, grid, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if 1 in facts.live(x):
        facts.couple(facts.axis(x, 1), facts.axis(y, 1))
    if 0 in (*facts.live(x), *facts.live(grid)):
        facts.couple(facts.axis(x, 0), facts.axis(y, 0))
        facts.couple(facts.axis(x, 0), facts.axis(grid, 0))


@rule("RoiAlign")
def roi_align(node: gs.Node, facts: Facts) -> None:
    """Y[:, c] holds the regions of X[:, c] that the boxes say."""
    x, y = node.inputs[0], node.outputs[0]
    if 1 in facts.live(x):
        facts.couple(facts.axis(x, 1), facts.axis(y, 1))


@rule("DeformConv")
def deformable_convolution(node: gs.Node, facts: Facts) -> None:
    """As Conv; the channels that share offsets are parts of the input, and keep equal counts.

    Its features are taken where the offsets say, which a sliding window cannot tell: it has none,
    and is refitted from the channels alone.
    """
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    if x.shape is None or not _owned(node, 1) or not _owned(node, BIAS):
        return
    facts.couple(facts.axis(weight, 0), facts.axis(y, 1))
    facts.couple(facts.axis(node.inputs[BIAS], 0), facts.axis(y, 1))
    facts.balance(facts.axis(x, 1), node.attrs.get("offset_group", 1))
    _freeze_places(node, facts)
    groups = node.attrs.get("group", 1)
    relate_channels(LinearMap(node, 1, 1, 1, 0, groups, bias_input=BIAS), facts)


def _freeze_places(node: gs.Node, facts: Facts) -> None:
    """Offsets and masks have an entry for every place of the window, which all stay."""
    for tensor in (node.inputs[2], *node.inputs[BIAS + 1 :]):
        if 1 in facts.live(tensor):
            reason = f"DeformConv '{node.name}' places its window by '{tensor.name}'"
            facts.freeze(facts.axis(tensor, 1), reason)


def _owned(node: gs.Node, place: int) -> bool:
    """Whether an input is constant and read by this node alone."""
    given = node.inputs[place] if len(node.inputs) > place else None
    return isinstance(given, gs.Constant) and len(given.outputs) == 1
