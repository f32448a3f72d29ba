"""Recurrent layers, step by step.

Gates are in the order of ONNX: input, output, forget, cell for LSTM; update, reset, hidden for GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.train.operators.activations import ACTIVATIONS
from onnxprune.train.operators.registry import Node, Result, operator

DEFAULTS = {"GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "RNN": ("Tanh",)}
"""The activations of each direction unless they are given."""
PARAMETERS: dict[str, tuple[float | None, float | None]] = {
    "Affine": (1.0, 0.0),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
    "LeakyRelu": (0.01, None),
    "ScaledTanh": (1.0, 1.0),
    "ThresholdedRelu": (1.0, None),
}
"""Alpha and beta of activations unless they are given; None where an activation has none."""
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Way:
    """One direction of a layer.

    Attributes:
        recurrent: weights of the state, shape (gates * units, units).
        state_bias: their bias, shape (gates * units,).
        peepholes: of an LSTM, shape (3 * units,).
        activations: see ``DEFAULTS``.
        clip: bounds what goes into an activation.
        coupled: whether the forget gate of an LSTM is 1 - input.
        reset_after: whether a GRU's reset gate multiplies R h + b, not h.
    """

    recurrent: Tensor
    state_bias: Tensor
    peepholes: Tensor | None
    activations: tuple[Activation, ...]
    clip: float | None
    coupled: bool
    reset_after: bool

    def act(self, place: int, x: Tensor) -> Tensor:
        """An activation of what is clipped before."""
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        return self.activations[place](x)


def _lstm(way: _Way, gates: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    i, o, f, c = (gates + functional.linear(state, way.recurrent, way.state_bias)).chunk(4, -1)
    peep_i, peep_o, peep_f = (None,) * 3 if way.peepholes is None else way.peepholes.chunk(3)
    i = way.act(0, i if peep_i is None else i + peep_i * cell)
    f = 1 - i if way.coupled else way.act(0, f if peep_f is None else f + peep_f * cell)
    cell = f * cell + i * way.act(1, c)
    o = way.act(0, o if peep_o is None else o + peep_o * cell)
    return o * way.activations[2](cell), cell


def _gru(way: _Way, gates: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    units = state.shape[-1]
    both, hidden = torch.split(gates, [2 * units, units], -1)
    rows, row_bias = way.recurrent[: 2 * units], way.state_bias[: 2 * units]
    z, r = way.act(0, both + functional.linear(state, rows, row_bias)).chunk(2, -1)
    rows, row_bias = way.recurrent[2 * units :], way.state_bias[2 * units :]
    if way.reset_after:
        hidden = hidden + r * functional.linear(state, rows, row_bias)
    else:
        hidden = hidden + functional.linear(r * state, rows, row_bias)
    return (1 - z) * way.act(1, hidden) + z * state, cell


def _rnn(way: _Way, gates: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return way.act(0, gates + functional.linear(state, way.recurrent, way.state_bias)), cell


STEPS = {"GRU": _gru, "LSTM": _lstm, "RNN": _rnn}


@operator("GRU", "RNN", weights=(1, 2, 3), learnt=(5,))
def gated(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
) -> Result:
    """All states, and the last one."""
    return _layer(node, x, weight, recurrent, bias, lengths, state)[:2]


@operator("LSTM", weights=(1, 2, 3, 7), learnt=(5, 6))
def lstm(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    state: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> Result:
    """All states, the last one and the last cell state."""
    return _layer(node, x, weight, recurrent, bias, lengths, state, cell, peepholes)


def _layer(
    node: Node,
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None,
    lengths: Tensor | None,
    state: Tensor | None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch_first = bool(node.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        state, cell = (s if s is None else s.transpose(0, 1) for s in (state, cell))
    ways, units = recurrent.shape[0], recurrent.shape[2]
    zeros = x.new_zeros((ways, x.shape[1], units))
    starts = [zeros if s is None else s.expand(zeros.shape) for s in (state, cell)]
    results = []
    for way in range(ways):
        backwards = node.get("direction", "forward") == "reverse" or way == 1
        own = _way(node, way, recurrent, bias, peepholes)
        rows = weight.shape[1]
        gates = functional.linear(x, weight[way], None if bias is None else bias[way, :rows])
        begin = (starts[0][way], starts[1][way])
        results.append(_run(node.op, own, gates, begin, lengths, backwards))
    every, last, last_cell = (torch.stack(part, -3) for part in zip(*results, strict=True))
    if batch_first:
        every = every.permute(2, 0, 1, 3)
        last, last_cell = last.transpose(0, 1), last_cell.transpose(0, 1)
    return every, last, last_cell


def _way(
    node: Node, way: int, recurrent: Tensor, bias: Tensor | None, peepholes: Tensor | None
) -> _Way:
    rows = recurrent.shape[1]
    return _Way(
        recurrent[way],
        recurrent.new_zeros(rows) if bias is None else bias[way, rows:],
        None if peepholes is None else peepholes[way],
        tuple(_activations(node, way)),
        node.get("clip", None),
        bool(node.get("input_forget", 0)),
        bool(node.get("linear_before_reset", 0)),
    )


def _activations(node: Node, way: int) -> Iterator[Activation]:
    """The functions of a direction; alphas and betas are given to those that need some in turn."""
    count = len(DEFAULTS[node.op])
    names = list(node.get("activations", ())) or list(DEFAULTS[node.op])
    names = names if len(names) > count else names * (way + 1)
    alphas, betas = (iter(node.get(f"activation_{p}", ())) for p in ("alpha", "beta"))
    for place, name in enumerate(names[: count * (way + 1)]):
        title = {known.lower(): known for known in ACTIVATIONS}[name.lower()]
        values: dict[str, Any] = {}
        for key, given, default in zip(
            ("alpha", "beta"), (alphas, betas), PARAMETERS.get(title, (None, None)), strict=True
        ):
            if default is not None:
                values[key] = next(given, default)
        if place >= count * way:
            yield _with(title, values)


def _with(name: str, values: dict[str, float]) -> Activation:
    return lambda x: ACTIVATIONS[name](x, **values)


def _run(
    op: str,
    way: _Way,
    gates: Tensor,
    start: tuple[Tensor, Tensor],
    lengths: Tensor | None,
    backwards: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction: states, shape (steps, samples, units), and the last state and cell."""
    steps, (state, cell) = range(gates.shape[0]), start
    every: list[Tensor] = [state] * gates.shape[0]
    for step in reversed(steps) if backwards else steps:
        new_state, new_cell = STEPS[op](way, gates[step], state, cell)
        if lengths is None:
            state, cell = new_state, new_cell
            every[step] = state
            continue
        runs = (lengths > step)[:, None]
        state = torch.where(runs, new_state, state)
        cell = torch.where(runs, new_cell, cell)
        every[step] = torch.where(runs, new_state, torch.zeros_like(new_state))
    return torch.stack(every), state, cell
