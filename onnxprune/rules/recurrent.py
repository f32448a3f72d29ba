"""LSTM, GRU and RNN: hidden units are channels.

Unit j of a layer is entry j of the last axis of all that the layer remembers or puts out, row j of
every gate, and column j of R, by which all units read it at the next step. The two directions of
a bidirectional layer share the axis of units, so that unit j of one goes with that of the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.recurrent_map import BIAS, RECURRENCE, RECURRENT_OPS, WEIGHT, recurrent_maps
from onnxprune.rules.registry import Facts, Kept, fixup, rule
from onnxprune.shape_values import DEPTH_LIMIT

INITIAL_STATES = (5, 6)
PEEPHOLES = 7
PEEPHOLE_GATES = 3
UNITS = 3
"""Where among the inputs they are; how many gates have peepholes; which axis of Y has the units."""


@rule(*RECURRENT_OPS)
def recurrent(node: gs.Node, facts: Facts) -> None:
    """Unit j is made by row j of every gate of W and R, and read by column j of R; W reads X."""
    if not _cuttable(node):
        return
    x, weight, recurrence, bias = node.inputs[:4]
    units = facts.axis(node.outputs[0], UNITS)
    gates = weight.shape[1] // recurrence.shape[2]
    for tensor, copies in ((weight, gates), (recurrence, gates), (bias, 2 * gates)):
        facts.couple(facts.axis(tensor, 1), np.tile(units, copies))
    for peepholes in _given(node, PEEPHOLES):
        facts.couple(facts.axis(peepholes, 1), np.tile(units, PEEPHOLE_GATES))
    facts.couple(facts.axis(recurrence, 2), units)
    for place in INITIAL_STATES:
        for state in _given(node, place):
            given = _graph_input(state)
            if given is not None and not facts.live(state):
                facts.freeze(units, f"its initial state comes from graph input '{given}'")
            facts.couple(facts.axis(state, 2), units)
    for state in node.outputs[1:]:
        if not state.is_empty():
            facts.couple(facts.axis(state, 2), units)
    facts.couple(facts.axis(weight, 2), facts.axis(x, 2))
    reads_input, reads_units = recurrent_maps(node)
    facts.produces(reads_input)
    facts.consumes(reads_input)
    if _steps(node) != 1:  # of a single one, Y is not what R reads
        facts.consumes(reads_units)


@fixup(*RECURRENT_OPS)
def hidden_size(node: gs.Node, kept: Kept) -> None:
    """The number of units is an attribute."""
    if kept.is_cut(node.outputs[0], UNITS):
        node.attrs["hidden_size"] = int(kept.entries(node.outputs[0], UNITS).size)


def _cuttable(node: gs.Node) -> bool:
    """Whether all weights are constants that no other node reads, and there are units."""
    weights = [*node.inputs[WEIGHT : BIAS + 1], *_given(node, PEEPHOLES)]
    own = all(isinstance(w, gs.Constant) and len(w.outputs) == 1 for w in weights)
    ranks = [len(w.shape) for w in weights[: BIAS - WEIGHT + 1]] if own else []
    return ranks == [3, 3, 2] and 0 not in node.inputs[RECURRENCE].shape


def _given(node: gs.Node, place: int) -> Iterator[gs.Tensor]:
    """An optional input, if it is there."""
    yield from (t for t in node.inputs[place : place + 1] if not t.is_empty())


def _graph_input(state: gs.Tensor) -> str | None:
    """The graph input that a tensor's maker reads first, if it is one."""
    for _ in range(DEPTH_LIMIT):
        if not state.inputs:
            return None if isinstance(state, gs.Constant) else str(state.name)
        if not state.inputs[0].inputs:
            return None
        state = state.inputs[0].inputs[0]
    return None


def _steps(node: gs.Node) -> int | str | None:
    """The length of the sequence."""
    shape = node.inputs[0].shape
    extent: int | str | None = shape[node.attrs.get("layout", 0)] if shape is not None else None
    return extent
