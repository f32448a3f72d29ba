"""Einsum written as MatMul, where it is a product of matrices.

With constant weights it becomes MatMul with a matrix, whose several input and output axes are
merged by Reshapes; of two activations a MatMul of transposed ones. Any other Einsum stays.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.explicit import LISTS_ARE_INPUTS
from onnxprune.names import fresh

FLOATS = ("bfloat16", "float16", "float32", "float64")
"""Types whose products MatMul computes wherever Einsum does."""


@dataclass(frozen=True)
class Product:
    """The letters of an equation with two operands.

    Attributes:
        left: axes of the first operand.
        right: axes of the second.
        made: axes of the result.
    """

    left: str
    right: str
    made: str

    @property
    def batch(self) -> str:
        """Axes that both operands and the result have."""
        return "".join(c for c in self.left if c in self.right and c in self.made)

    @property
    def summed(self) -> str:
        """Axes that both operands have and the result lacks."""
        return "".join(c for c in self.left if c in self.right and c not in self.made)

    @property
    def rows(self) -> str:
        """Axes that the first operand gives to the result alone."""
        return "".join(c for c in self.left if c not in self.right)

    @property
    def columns(self) -> str:
        """Axes that the second operand gives to the result alone."""
        return "".join(c for c in self.right if c not in self.left)

    @property
    def swapped(self) -> Product:
        """The same with the operands in the other order."""
        return Product(self.right, self.left, self.made)

    def is_matrix_product(self) -> bool:
        """Whether no operand has an axis twice or one that is summed over by itself."""
        single = all(len(set(axes)) == len(axes) for axes in (self.left, self.right, self.made))
        return single and bool(self.summed) and set(self.rows + self.columns) <= set(self.made)


def plain_einsums(graph: gs.Graph) -> None:
    """Replace every Einsum that is a product of two matrices, or a Transpose."""
    names = set(graph.tensors())
    for node in list(graph.nodes):
        if node.op == "Einsum" and node.outputs[0].dtype in FLOATS:
            letters = _letters(node)
            if letters is not None:
                _Writer(graph, node, names).replace(letters)
    graph.cleanup()


def _letters(node: gs.Node) -> list[str] | None:
    """The axes of every operand and of the result.

    None where an ellipsis has no known rank, or where the equation does not fit the operands.
    """
    equation = str(node.attrs["equation"]).replace(" ", "")
    inputs, arrow, made = equation.partition("->")
    operands = inputs.split(",")
    if len(operands) != len(node.inputs):
        return None
    free = [c for c in string.ascii_letters if c not in equation]
    hidden = 0
    for place, axes in enumerate(operands):
        if "..." in axes:
            shape = node.inputs[place].shape
            if shape is None:
                return None
            hidden = max(hidden, len(shape) - len(axes) + 3)
    if hidden > len(free):
        return None
    for place, axes in enumerate(operands):
        own = len(node.inputs[place].shape) - len(axes) + 3 if "..." in axes else 0
        operands[place] = axes.replace("...", "".join(free[hidden - own : hidden]))
    ellipsis = "".join(free[:hidden])
    if not arrow:
        joined = "".join(operands)
        made = "..." + "".join(c for c in sorted(set(joined)) if joined.count(c) == 1)
        made = "".join(c for c in made if c not in ellipsis)
    made = made.replace("...", ellipsis)
    for axes, operand in zip(operands, node.inputs, strict=True):
        if operand.shape is not None and len(operand.shape) != len(axes):
            return None
    return [*operands, made] if set(made) <= set("".join(operands)) else None


class _Writer:
    """Puts nodes in the place of an Einsum."""

    def __init__(self, graph: gs.Graph, node: gs.Node, names: set[str]) -> None:
        self._graph = graph
        self._node = node
        self._names = names
        self._new: list[gs.Node] = []

    def replace(self, letters: list[str]) -> None:
        """Write the nodes that make the same, if there are any."""
        left, made = letters[0], letters[-1]
        if len(letters) == 2:
            if sorted(left) == sorted(made) and len(set(left)) == len(left):
                self._finish(self._transposed(self._node.inputs[0], left, made))
            return
        product = Product(left, letters[1], made)
        if len(letters) > 3 or not product.is_matrix_product():
            return
        operands = list(self._node.inputs)
        if isinstance(operands[0], gs.Constant):
            operands, product = operands[::-1], product.swapped
        if isinstance(operands[1], gs.Constant) and not product.batch:
            y = self._weighted(product, *operands)
        else:
            y = self._multiplied(product, *operands)
        if y is not None:
            self._finish(y)

    def _weighted(self, p: Product, x: gs.Tensor, weight: gs.Constant) -> gs.Tensor | None:
        """MatMul with the weights as a matrix."""
        if not p.rows or not weight.values.size:
            return None  # a single vector, or nothing
        extents = dict(zip(p.right, weight.values.shape, strict=True))
        order = [p.right.index(c) for c in p.summed + p.columns]
        inputs = math.prod(extents[c] for c in p.summed)
        values = weight.values.transpose(order).reshape(inputs, -1)
        matrix = gs.Constant(fresh(f"{weight.name}/matrix", self._names), values)
        x = self._transposed(x, p.left, p.rows + p.summed)
        kept = [0] * len(p.rows)
        if len(p.summed) > 1:
            x = self._reshaped(x, [*kept, inputs])
        y = self._add("MatMul", [x, matrix], self._node.name)
        if len(p.columns) != 1:
            y = self._reshaped(y, [*kept, *(extents[c] for c in p.columns)])
        return self._transposed(y, p.rows + p.columns, p.made)

    def _multiplied(self, p: Product, left: gs.Tensor, right: gs.Tensor) -> gs.Tensor | None:
        """MatMul of two activations, a missing axis of rows or columns added and removed."""
        if len(p.summed) > 1 or len(p.rows) > 1 or len(p.columns) > 1:
            return None
        a = self._transposed(left, p.left, p.batch + p.rows + p.summed)
        b = self._transposed(right, p.right, p.batch + p.summed + p.columns)
        row, column = len(p.batch), len(p.batch) + 1
        if not p.rows:
            a = self._squeezed("Unsqueeze", a, [row])
        if not p.columns:
            b = self._squeezed("Unsqueeze", b, [column])
        y = self._add("MatMul", [a, b], self._node.name)
        missing = [] if p.rows else [row]
        missing += [] if p.columns else [column]
        if missing:
            y = self._squeezed("Squeeze", y, missing)
        return self._transposed(y, p.batch + p.rows + p.columns, p.made)

    def _transposed(self, x: gs.Tensor, letters: str, wanted: str) -> gs.Tensor:
        if letters == wanted:
            return x
        return self._add("Transpose", [x], perm=[letters.index(c) for c in wanted])

    def _reshaped(self, x: gs.Tensor, shape: Sequence[int]) -> gs.Tensor:
        return self._add("Reshape", [x, self._constant("shape", shape)])

    def _squeezed(self, op: str, x: gs.Tensor, axes: list[int]) -> gs.Tensor:
        if self._graph.opset < LISTS_ARE_INPUTS:
            return self._add(op, [x], axes=axes)
        return self._add(op, [x, self._constant("axes", axes)])

    def _constant(self, what: str, values: Sequence[int]) -> gs.Constant:
        name = fresh(f"{self._node.outputs[0].name}/{what}", self._names)
        return gs.Constant(name, np.array(values, np.int64))

    def _add(self, op: str, inputs: list[gs.Tensor], name: str = "", **attrs: object) -> gs.Tensor:
        made = self._node.outputs[0]
        y = gs.Variable(fresh(f"{made.name}/{op}", self._names), made.dtype)
        self._new.append(gs.Node(op, name or y.name, attrs, inputs, [y]))
        return y

    def _finish(self, y: gs.Tensor) -> None:
        """Let the last node make the output of the Einsum."""
        result = self._node.outputs[0]
        if not self._new:
            self._add("Identity", [y])
        self._node.outputs.clear()
        self._new[-1].outputs = [result]
        place = self._graph.nodes.index(self._node)
        self._graph.nodes[place : place + 1] = self._new
