"""Shapes for inputs of given shapes, and for a batch that is not known.

Exporters of attention merge the heads into a batch that is not known: (S, N, E) becomes
(S, N * H, E / H). Nothing can be said about the indices of an axis without an extent. With a large
prime for N the extent is known, and every division that depends on N shows it as a factor of its
own: it divides nothing else by chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnx
import onnx_graphsurgeon as gs

from onnxprune.model import NO_NAMES, import_graph, without_weights, write_shapes

PRIMES = (251, 257, 263, 269, 307, 311, 313, 317)
"""One for every name that the first axis of an input has; models with more stay unknown."""
OTHER_PRIMES = (271, 277, 281, 283, 331, 337, 347, 349)
SMALL_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23)


def concrete(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int | None, ...]]
) -> onnx.ModelProto:
    """A copy of the model whose inputs have these shapes and whose tensors' shapes follow.

    An extent of None stays unknown. Large weights are inputs of the copy, which holds shapes only.
    """
    copy = without_weights(model)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        for dim, extent in zip(
            value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False
        ):
            if extent is not None:
                dim.dim_value = extent
            elif dim.HasField("dim_value"):  # 0 or -1, which exporters write for any extent
                dim.Clear()
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    write_shapes(copy)
    return copy


@contextmanager
def batch_known(graph: gs.Graph, model: onnx.ModelProto) -> Iterator[None]:
    """Give the tensors of a graph the extents they have for a batch of a prime number.

    Args:
        graph: a model's graph; its shapes are as before when the block ends.
        model: the model itself.
    """
    tensors = _variables(graph)
    before = {name: tensor.shape for name, tensor in tensors.items()}
    for name, shape in _shapes_for(model, PRIMES).items():
        if name in tensors:
            tensors[name].shape = _filled(tensors[name].shape, shape)
    try:
        yield
    finally:
        for name, tensor in tensors.items():
            tensor.shape = before[name]


def shapes_in_small(model: onnx.ModelProto) -> dict[str, Shape]:
    """Shapes of all tensors for a small batch, small enough for arrays of all their entries.

    Nothing if the batch is known: the shapes of the model then are what there is.
    """
    return _shapes_for(model, SMALL_PRIMES)


def name_batches(graph: gs.Graph, model: onnx.ModelProto) -> None:
    """Give equal names to extents that are the same multiple of the batch, and numbers to others.

    Shape inference does not know that N * 16 windows are divided and merged again, and calls the
    results by two names. They are equal if they are the same multiple of two primes tried for N,
    and a number if they are the same for both.
    """
    tried = [_shapes_for(model, primes) for primes in (PRIMES, OTHER_PRIMES)]
    for name, tensor in _variables(graph).items():
        first, second = (shapes.get(name) for shapes in tried)
        if tensor.shape is None or first is None or second is None:
            continue
        if len(tensor.shape) == len(first) == len(second):
            tensor.shape = [
                extent if isinstance(extent, int) else _multiple(a, b) or extent
                for extent, a, b in zip(tensor.shape, first, second, strict=True)
            ]


def _multiple(first: int | str | None, second: int | str | None) -> int | str | None:
    """An extent that does not depend on primes, or the name of a multiple of one of them."""
    if not isinstance(first, int) or not isinstance(second, int):
        return None
    if first == second:
        return first
    for index, (prime, other) in enumerate(zip(PRIMES, OTHER_PRIMES, strict=True)):
        if first % prime == 0 and first // prime * other == second:
            return f"batch {index} * {first // prime}"
    return None


Shape = list[int | str | None]


def _variables(graph: gs.Graph) -> dict[str, gs.Variable]:
    return {t.name: t for t in graph.tensors().values() if isinstance(t, gs.Variable)}


def _shapes_for(model: onnx.ModelProto, primes: tuple[int, ...]) -> dict[str, Shape]:
    """Shapes of all tensors for a batch of these primes; nothing if the batch is known."""
    shapes = _with_primes(model, primes)
    if not shapes:
        return {}
    tensors = import_graph(concrete(model, shapes)).tensors()
    return {name: list(t.shape) for name, t in tensors.items() if t.shape is not None}


def _filled(shape: Shape | None, known: Shape) -> Shape:
    """Extents as they were, with numbers where they had none."""
    if shape is None or len(shape) != len(known):
        return known
    return [a if isinstance(a, int) else b for a, b in zip(shape, known, strict=True)]


def _with_primes(
    model: onnx.ModelProto, primes: tuple[int, ...]
) -> dict[str, tuple[int | None, ...]]:
    """A shape for every input whose first axis is open, a prime on all axes of its name."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = {
        value.name: value.type.tensor_type.shape.dim
        for value in model.graph.input
        if value.name not in initializers and value.type.tensor_type.HasField("shape")
    }

    def key(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> tuple[str, int] | str:
        """What is one extent: those without a name need not be equal."""
        return (name, axis) if dim.dim_param in NO_NAMES else str(dim.dim_param)

    open_axes = {n: dims[0] for n, dims in inputs.items() if dims and dims[0].dim_value <= 0}
    keys = list(dict.fromkeys(key(name, 0, dim) for name, dim in open_axes.items()))
    if not keys or len(keys) > len(primes):
        return {}
    prime_of = dict(zip(keys, primes, strict=False))
    return {
        name: tuple(
            int(dim.dim_value) if dim.dim_value > 0 else prime_of.get(key(name, axis, dim))
            for axis, dim in enumerate(dims)
        )
        for name, dims in inputs.items()
    }
