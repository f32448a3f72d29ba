"""The two linear maps of an LSTM, GRU or RNN: one reads the input, the other the hidden units.

At every step t and in every direction, all gates come from the sum W x_t + Wb + R h_(t-1) + Rb.
Each of the two halves is y = W x + b with a Gram of its own, so both can be refitted. The features
of the second are the output sequence Y, which holds all the h but the first. In a GRU without
``linear_before_reset`` one gate reads h times the reset gate: there this is approximate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from onnxprune.arrays import Array, IndexArray, Matrix, Vector
from onnxprune.linear_map import FeatureSpec, LinearMap

RECURRENT_OPS = ("GRU", "LSTM", "RNN")
WEIGHT, RECURRENCE, BIAS = 1, 2, 3
"""Which inputs are W (directions, gates * units, inputs), R (directions, gates * units, units) and
B (directions, 2 * gates * units)."""
OUT, IN = 1, 2
"""The axes of W and R."""


@dataclass(frozen=True)
class RecurrentMap(LinearMap):
    """W x_t + Wb or, with ``weight_input`` RECURRENCE, R h_(t-1) + Rb of a recurrent node.

    W makes the gates of all directions from one x. R has a part for each direction, and each part
    reads all units, but those of its own direction.
    """

    @property
    def recurrent(self) -> bool:
        """Whether this is R, not W."""
        return self.weight_input == RECURRENCE

    @property
    def name(self) -> str:
        """The node's name, which alone is W's."""
        return f"{self.node.name}/recurrence" if self.recurrent else str(self.node.name)

    @property
    def x(self) -> gs.Tensor:
        """X, or for R the output sequence Y, shape (steps, directions, samples, units)."""
        return self.y if self.recurrent else self.node.inputs[0]

    @property
    def taps(self) -> int:
        """A weight for each pair of output and input."""
        return 1

    @property
    def outputs(self) -> int:
        """Rows of all directions together."""
        return self._directions * int(self.weight.shape[OUT])

    @property
    def _directions(self) -> int:
        return int(self.weight.shape[0])

    def matrices(self, weight: Array | None = None) -> list[Matrix]:
        """R of every direction, or W with the rows of one direction after the other's."""
        values = np.asarray(self.weight.values if weight is None else weight, np.float64)
        return list(values) if self.recurrent else [values.reshape(-1, values.shape[IN])]

    def from_matrices(self, matrices: list[Matrix]) -> Array:
        """The weight tensor of matrices with any number of inputs."""
        rows = np.concatenate(matrices)
        tensor = rows.reshape(self._directions, -1, rows.shape[1])
        return np.ascontiguousarray(tensor, dtype=self.weight.values.dtype)

    def bias_vector(self) -> Vector:
        """This map's half of B, shape (outputs,), float64."""
        return self._half(self.node.inputs[BIAS].values).reshape(-1).astype(np.float64)

    def with_bias(self, tensor: Array, bias: Vector) -> Array:
        """B with another half."""
        result = tensor.copy()
        self._half(result)[...] = bias.reshape(self._directions, -1)
        return result

    def _half(self, tensor: Array) -> Array:
        """A view of Wb or Rb in B."""
        halves: list[Array] = np.split(tensor, 2, axis=1)
        return halves[self.recurrent]

    def rows(self) -> Matrix:
        """The weights that make each unit: its rows of W and R, all gates and directions."""
        units = self.node.inputs[RECURRENCE].shape[IN]
        made = [
            np.moveaxis(tensor.values.reshape(self._directions, -1, units, tensor.shape[IN]), 2, 0)
            for tensor in (self.node.inputs[WEIGHT], self.node.inputs[RECURRENCE])
        ]
        return np.column_stack([rows.reshape(units, -1) for rows in made]).astype(np.float64)

    def read(self, values: Array) -> list[Array]:
        """R of every direction reads all units."""
        return [values] * (self._directions if self.recurrent else 1)

    def slice_inputs(self, weight: Array, keep: list[IndexArray]) -> Array:
        """All parts keep the same inputs."""
        return super().slice_inputs(weight, keep[:1])

    def pad_inputs(self, weight: Array, keep: list[IndexArray]) -> Array:
        """All parts keep the same inputs."""
        return super().pad_inputs(weight, keep[:1])

    def feature_spec(self, tensor: str, rank: int) -> FeatureSpec:
        """Steps and samples are rows; the units of every direction have a Gram."""
        first = self.node.attrs.get("layout", 0) == 1
        if not self.recurrent:
            return FeatureSpec(tensor, rank, self.x_axis, samples=0 if first else 1)
        plain = FeatureSpec(tensor, rank, self.x_axis, samples=0 if first else 2)
        if self._directions == 1:
            return plain
        return replace(plain, parts=self._directions, apart=2 if first else 1)


def recurrent_maps(node: gs.Node) -> tuple[RecurrentMap, RecurrentMap]:
    """W and R of a node."""
    x_axis, y_axis = 2, 3
    return (
        RecurrentMap(node, x_axis, y_axis, IN, OUT, bias_input=BIAS),
        RecurrentMap(node, y_axis, y_axis, IN, OUT, weight_input=RECURRENCE, bias_input=BIAS),
    )
