"""Extents that onnx's shape inference leaves open where a new shape is computed.

Inference gives up on a whole shape where one element of it is computed in a way it cannot follow.
Element by element more is known: channels behind an interpolation, for instance.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_graphsurgeon as gs

from onnxprune.shape_values import INT64, Element, Elements, Extent, elements_of

INVENTED = "unk__"
"""How names begin that inference gives to extents it does not know."""

Extents = list[int | str | None]


def known_extents(graph: gs.Graph) -> dict[str, Extents]:
    """Shapes of tensors made by a computed shape, None for an extent nobody knows."""
    found = {}
    for node in graph.nodes:
        position = _COMPUTED.get(node.op)
        if position is None or len(node.inputs) <= position[0]:
            continue
        sizes = node.inputs[position[0]]
        elements = None if isinstance(sizes, gs.Constant) else elements_of(sizes)
        extents = None if elements is None else position[1](node, elements)
        possible = [None if _impossible(extent) else extent for extent in extents or ()]
        if any(extent is not None for extent in possible):
            found[node.outputs[0].name] = possible
    return found


def _impossible(extent: int | str | None) -> bool:
    """Whether a number that was computed is none that an axis can have."""
    return isinstance(extent, int) and not 0 <= extent < INT64.stop


def may_have_hints(model: onnx.ModelProto) -> bool:
    """Whether some node's new shape is computed and inference left extents of it open."""
    constants = {tensor.name for tensor in model.graph.initializer}
    known = {
        value.name
        for value in model.graph.value_info
        if _has_shape(value) and all(map(_is_known, value.type.tensor_type.shape.dim))
    }
    return any(
        node.op_type in _COMPUTED
        and node.output[0] not in known
        and any(name and name not in constants for name in node.input[_COMPUTED[node.op_type][0] :])
        for node in model.graph.node
    )


def known_count(model: onnx.ModelProto) -> int:
    """How many extents of intermediate tensors are known, and how many numbers of axes."""
    shapes = [v.type.tensor_type.shape for v in model.graph.value_info if _has_shape(v)]
    return len(shapes) + sum(_is_known(dim) for shape in shapes for dim in shape.dim)


def _has_shape(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.HasField("shape"))


def _is_known(dim: onnx.TensorShapeProto.Dimension) -> bool:
    named = dim.dim_param and not dim.dim_param.startswith(INVENTED)
    return bool(dim.HasField("dim_value") or named)


def write_extents(model: onnx.ModelProto, extents: dict[str, Extents]) -> bool:
    """Fill in extents that the model leaves open; whether there were any."""
    changed = False
    for value in model.graph.value_info:
        known = extents.get(value.name)
        if known is None or value.type.WhichOneof("value") != "tensor_type":
            continue
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            kind.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in known)
        if len(kind.shape.dim) != len(known):
            continue
        for dim, extent in zip(kind.shape.dim, known, strict=True):
            if isinstance(extent, int) and not dim.HasField("dim_value"):
                dim.dim_value, changed = extent, True
            elif isinstance(extent, str) and not _is_known(dim):
                dim.dim_param, changed = extent, True
    return changed


def _extent(element: Element) -> int | str | None:
    if isinstance(element, Extent):
        extent = element.tensor.shape[element.axis]
        return extent if isinstance(extent, str) else None
    return element


def _resized(node: gs.Node, sizes: Elements) -> Extents | None:
    x = node.inputs[0]
    if node.attrs.get("keep_aspect_ratio_policy", "stretch") not in ("stretch", b"stretch"):
        return None
    if "axes" not in node.attrs:
        return [_extent(element) for element in sizes]
    if x.shape is None:
        return None
    extents: Extents = list(x.shape)
    for axis, element in zip(node.attrs["axes"], sizes, strict=True):
        extents[axis] = _extent(element)
    return extents


def _expanded(node: gs.Node, shape: Elements) -> Extents | None:
    x = node.inputs[0]
    if x.shape is None:
        return None
    rank = max(len(x.shape), len(shape))
    own: Extents = [1] * (rank - len(x.shape)) + list(x.shape)
    wanted = [1] * (rank - len(shape)) + [_extent(element) for element in shape]
    return [
        new if old == 1 else old if new in (1, old) or isinstance(old, int) else None
        for old, new in zip(own, wanted, strict=True)
    ]


def _reshaped(node: gs.Node, shape: Elements) -> Extents | None:
    extents = [_extent(element) for element in shape]
    return [e if isinstance(e, str) or (isinstance(e, int) and e > 0) else None for e in extents]


def _made(node: gs.Node, shape: Elements) -> Extents | None:
    return [_extent(element) for element in shape]


def _tiled(node: gs.Node, times: Elements) -> Extents | None:
    x = node.inputs[0]
    if x.shape is None or len(x.shape) != len(times):
        return None
    return [
        extent * n if isinstance(extent, int) and isinstance(n, int) else extent if n == 1 else None
        for extent, n in zip(x.shape, times, strict=True)
    ]


_COMPUTED: dict[str, tuple[int, Callable[[gs.Node, Elements], Extents | None]]] = {
    "ConstantOfShape": (0, _made),
    "Expand": (1, _expanded),
    "Reshape": (1, _reshaped),
    "Resize": (3, _resized),
    "Tile": (1, _tiled),
}
"""Which input holds the new shape, and what it says of the output."""
