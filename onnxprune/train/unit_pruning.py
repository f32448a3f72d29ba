"""Training and pruning of units at once: gates on the channels of the graph's channel groups.

Every mini-batch draws which units are on; the weights that read one that is off are multiplied by
zero. theta moves by dNLL/dxi, which one backward pass gives for all units, at 1 for those that are
on and at 0 for those that are off: in the mean theta C'(1) + (1 - theta) C'(0) in the place of
C1 - C0; ``gates`` has the objective. In steps in which a unit is off the weights that read it
decay. A unit is pruned, and off from then on, when theta has been below a tolerance and these
weights have decayed for several tests in a row; the last of a group stays. When training ends, a
plan that keeps the other units is applied, which makes the network smaller.

All units are computed while training goes on. Source: Guenter and Sideris, arXiv 2205.04650.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from onnxprune.arrays import Array
from onnxprune.errors import UnsupportedModelError
from onnxprune.plan import Keep, Plan
from onnxprune.rewrite import apply, digest
from onnxprune.train.gate_options import GateOptions
from onnxprune.train.layer_pruning import UNDECIDED
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.unit_masks import UnitMasks


class UnitPruning(Backpropagation):
    """The method of training; see the module.

    Args:
        network: made of ``model``.
        model: what is trained.
        options: the settings; the estimator is always the gradient.
        samples: how many there are to train on, N.
        seed: of the draws.

    Raises:
        UnsupportedModelError: no unit can have a gate; the message says why.
    """

    def __init__(
        self,
        network: TrainableNetwork,
        model: onnx.ModelProto,
        options: GateOptions,
        *,
        samples: int,
        seed: int = 0,
    ) -> None:
        self._masks = UnitMasks(network, model)
        if not self._masks.count:
            why = "; ".join(f"{frozen.name}: {frozen.reason}" for frozen in self._masks.frozen)
            raise UnsupportedModelError(
                f"no channel can have a gate ({why or 'there is no channel group'})"
            )
        self._options = options
        self._device = network.device
        self._gates = options.gates(self._masks.count, samples, seed)
        self._left = np.arange(self._masks.count)
        self._drawn = torch.ones(self._masks.count, device=self._device)
        self._start = np.full(self._masks.count, np.nan)
        self._passed = np.zeros(self._masks.count, np.int64)
        self._settle()

    @property
    def theta(self) -> dict[str, Array]:
        """The chance of every unit to be on, by group, shape (units,); 0 where it is pruned."""
        theta = self._theta()
        return {group.name: theta[group.gates] for group in self._masks.groups}

    def _theta(self) -> Array:
        theta = np.zeros(self._masks.count)
        theta[self._left] = self._gates.theta
        return theta

    def before_forward(self, step: Step) -> Changes:
        """Draw which units are on."""
        drawn = np.zeros(self._masks.count, np.float32)
        drawn[self._left] = self._gates.draw()
        self._drawn = torch.tensor(drawn, device=self._device, requires_grad=True)
        self._masks.set(self._drawn)
        return Changes()

    def after_backward(self, step: Step) -> None:
        """Move theta."""
        slopes = step.gradient(self._drawn)
        if slopes is not None and self._options.measures(step.number, step.total):
            measured = slopes.double().cpu().numpy()[self._left]
            self._gates.update(np.arange(self._left.size), measured)

    def after_step(self, step: Step) -> None:
        """Let the weights that read units which were off decay, and prune."""
        if not self._options.warms_up(step.number, step.total):
            factor = 1 - self._options.decay
            with torch.no_grad():
                on = self._drawn.detach() > 0
                self._masks.scale(torch.where(on, 1.0, factor))
        if self._options.tests_now(step.number, step.total):
            self._prune(self._passes())
        self._settle()

    def _settle(self) -> None:
        """Between steps the network is the one without chance."""
        on = self._kept()
        self._masks.set(torch.tensor(on, dtype=torch.float32, device=self._device))

    def _kept(self) -> Array:
        """The units that stay if training ends here, shape (gates,), bool: one of every group."""
        theta = self._theta()
        kept = theta >= UNDECIDED
        for group in self._masks.groups:
            if not kept[group.gates].any():
                kept[group.gates[theta[group.gates].argmax()]] = True
        on: Array = kept
        return on

    def _passes(self) -> Array:
        """Which units have passed as many tests as they have to, shape (gates,), bool."""
        options = self._options
        low = self._theta() <= options.tolerance
        sizes = self._masks.sizes().double().cpu().numpy()
        new = low & np.isnan(self._start)
        self._start[new] = sizes[new]
        self._start[~low] = np.nan
        small = low & (sizes <= options.decayed * self._start)
        self._passed = np.where(small, self._passed + 1, 0)
        passes: Array = self._passed >= options.tests
        return passes

    def _prune(self, gone: Array) -> None:
        """Turn units off for good, but the last of a group."""
        gone = gone & ~self._kept()
        stay = ~gone[self._left]
        self._left = self._left[stay]
        self._gates.keep(stay)

    def evaluation(self) -> Changes:
        """Without chance: the units with theta of at least one half."""
        self._settle()
        return Changes()

    def may_keep(self) -> bool:
        """What is pruned last makes the result."""
        return False

    def columns(self) -> Mapping[str, float]:
        """Units that are left and that are not decided yet; units kept and mean theta by group."""
        theta, kept = self._theta(), self._kept()
        low, high = self._options.tolerance, 1 - self._options.tolerance
        groups = {group.name: group.gates for group in self._masks.groups}
        return {
            "units": float(self._left.size),
            "undecided": float(((theta > low) & (theta < high)).sum()),
            **{f"units {name}": float(kept[gates].sum()) for name, gates in groups.items()},
            **{f"theta {name}": float(theta[gates].mean()) for name, gates in groups.items()},
        }

    def notes(self) -> Sequence[str]:
        """How many units are left, and what was not decided."""
        kept, open_ends = self._kept(), int(self.columns()["undecided"])
        lines = [f"units: {int(kept.sum())} of {kept.size} left"]
        if open_ends:
            lines.append(
                f"note: theta is neither near 0 nor 1 for {open_ends} units; they are cut below "
                "one half. Train longer, or with a larger --unit-rate"
            )
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Gates, tests and what was pruned."""
        return {
            "gates": self._gates.state(),
            "left": self._left.tolist(),
            "start": self._start.tolist(),
            "passed": self._passed.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._left = np.array(state["left"], np.int64)
        self._gates.keep(np.isin(np.arange(self._masks.count), self._left))
        self._gates.load(state["gates"])
        self._start = np.array(state["start"], np.float64)
        self._passed = np.array(state["passed"], np.int64)
        self._settle()

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model without the channels whose theta ended below one half."""
        kept = self._kept()
        edits = tuple(
            Keep(group.name, tuple(np.flatnonzero(kept[group.gates]).tolist()), group.gates.size)
            for group in self._masks.groups
            if not kept[group.gates].all()
        )
        return apply(model, Plan(digest(model), edits)) if edits else model
