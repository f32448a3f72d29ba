"""DepthToSpace and SpaceToDepth: blocks of positions become channels, and the other way round."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.rules.registry import Facts, rule


@rule("DepthToSpace")
def depth_to_space(node: gs.Node, facts: Facts) -> None:
    """Channel c of Y is written by one channel of X for each position of its blocks."""
    x, y = node.inputs[0], node.outputs[0]
    positions = node.attrs["blocksize"] ** 2
    channel_major = node.attrs.get("mode", "DCR") == "CRD"
    _couple_blocks(facts, facts.axis(x, 1), facts.axis(y, 1), positions, channel_major)
    _pass_batch(x, y, facts)


@rule("SpaceToDepth")
def space_to_depth(node: gs.Node, facts: Facts) -> None:
    """Channel c of X is read by one channel of Y for each position of its blocks."""
    x, y = node.inputs[0], node.outputs[0]
    positions = node.attrs["blocksize"] ** 2
    _couple_blocks(facts, facts.axis(y, 1), facts.axis(x, 1), positions, channel_major=False)
    _pass_batch(x, y, facts)


def _couple_blocks(
    facts: Facts, deep: IndexArray, flat: IndexArray, positions: int, channel_major: bool
) -> None:
    """Couple a channel with its copy for every position: deep is flat repeated or tiled."""
    facts.couple(deep, np.repeat(flat, positions) if channel_major else np.tile(flat, positions))


def _pass_batch(x: gs.Tensor, y: gs.Tensor, facts: Facts) -> None:
    if 0 in facts.live(x):
        facts.couple(facts.axis(x, 0), facts.axis(y, 0))
