"""ScatterND that assigns to a slice, ``x[:, :, 2:4] = u``, as Slices and a Concat.

Exporters write the place of every single entry. Where these places are a box that spans all axes
but one, the result is the entries before it, the new ones, and those behind it, along that axis.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import IndexArray
from onnxprune.names import fresh

TO_THE_END = 2**63 - 1


def plain_scatters(graph: gs.Graph) -> None:
    """Replace every ScatterND with constant indices that assigns to a slice of one axis."""
    names = set(graph.tensors())
    for node in list(graph.nodes):
        if node.op != "ScatterND" or node.attrs.get("reduction", "none") != "none":
            continue
        x, indices = node.inputs[:2]
        if not isinstance(indices, gs.Constant) or x.shape is None:
            continue
        box = _box(indices.values, list(x.shape))
        if box is not None:
            _assign(graph, node, box, names)
    graph.cleanup()


def _box(indices: IndexArray, extents: list[int | str | None]) -> tuple[int, int, int] | None:
    """The axis, start and end of the only slice that does not span its axis, if there is one."""
    counted = indices.shape[-1]
    if indices.ndim != counted + 1 or not all(isinstance(e, int) for e in extents[:counted]):
        return None
    partial = []
    for axis, extent in enumerate(extents[:counted]):
        places = np.moveaxis(indices[..., axis], axis, -1).reshape(-1, indices.shape[axis])
        start = int(places[0, 0]) if places.size else -1
        if start < 0 or (places != start + np.arange(places.shape[1])).any():
            return None
        if places.shape[1] != extent:
            partial.append((axis, start, start + places.shape[1]))
    return partial[0] if len(partial) == 1 else None


def _assign(graph: gs.Graph, node: gs.Node, box: tuple[int, int, int], names: set[str]) -> None:
    axis, start, end = box
    x, _, updates = node.inputs
    y = node.outputs[0]
    pieces = [updates]
    new = []
    for low, high in ((0, start), (end, TO_THE_END)):
        if low == high or low == x.shape[axis]:
            continue
        piece = gs.Variable(fresh(f"{y.name}/{low}", names), x.dtype)
        bounds = [
            gs.Constant(fresh(f"{piece.name}/{what}", names), np.array([value], np.int64))
            for what, value in (("start", low), ("end", high), ("axis", axis))
        ]
        new.append(gs.Node("Slice", piece.name, {}, [x, *bounds], [piece]))
        pieces.insert(0 if low == 0 else len(pieces), piece)
    node.outputs.clear()
    new.append(gs.Node("Concat", node.name, {"axis": axis}, pieces, [y]))
    place = graph.nodes.index(node)
    graph.nodes[place : place + 1] = new
