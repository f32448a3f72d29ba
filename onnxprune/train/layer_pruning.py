"""Training and layer pruning at once: gates on the residual sections of the graph.

Every mini-batch draws which sections are on. One that is off is not computed. theta moves by
estimates of C1 - C0, the loss with a section on less that with it off; ``gates`` has the objective:

* two passes: the batch's loss is measured once more with one section switched and the others as
  drawn. C1 - C0 does not depend on the section's own theta, so that this is unbiased, whatever was
  drawn for it;
* the gradient dNLL/dxi through the gate, at 1 where the section is on, and at 0 where it is off,
  for which it is computed and multiplied by zero. Its mean, theta C'(1) + (1 - theta) C'(0), is
  C1 - C0 up to third derivatives at theta = 1/2, and everywhere if the loss is linear in xi. A
  branch is linear in its last weights w, so that theta C'(1) = -lambda |w|^2 once these have
  settled, whatever it is worth: a vital section ends at theta = 1 if the price is below
  lambda |w|^2, and else where (1 - theta) |C'(0)| makes up for the difference.

In the steps in which a section is off the optimiser leaves it alone, and its last weights decay.
Once theta is at its floor and C0 - C1 stays below the price, both go to zero. A section is pruned
when theta has been below a tolerance and its last weights have decayed for several tests in a row;
it is then cut out of the graph, and training goes on with what is left.

Source: Guenter and Sideris, arXiv 2406.04549; the gradient at rest is derived here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from onnxprune.arrays import Array
from onnxprune.errors import UnsupportedModelError
from onnxprune.train.executed_macs import ExecutedMacs, node_macs
from onnxprune.train.gate_options import GateOptions
from onnxprune.train.gated_sections import (
    GatedSection,
    Link,
    Wiring,
    gated_sections,
    inlined,
    remaining,
)
from onnxprune.train.last_weights import LastWeights, last_weights
from onnxprune.train.linear_skips import merge_skips, own_skips
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.section_cut import without_sections

UNDECIDED = 0.5
"""theta below which a section is left out where a network without chance is asked for."""


@dataclass
class _Trial:
    """A section whose theta is below the tolerance.

    Attributes:
        start: size of its last weights when it came there.
        passed: tests in a row that it has passed.
    """

    start: float
    passed: int = 0


class _Switch:
    """Multiplies what a branch makes by its gate; one that is off is not trained.

    Args:
        on: whether the gate is 1, else it is 0.
        device: where the network is.
    """

    def __init__(self, on: bool, device: torch.device) -> None:
        self._on = on
        self.gate = torch.full((), float(on), device=device, requires_grad=True)

    def __call__(self, made: Tensor) -> Tensor:
        return (made if self._on else made.detach()) * self.gate


class LayerPruning(Backpropagation):
    """The method of training; see the module.

    Args:
        network: made of ``model``; sections that are pruned are cut out of it.
        model: what is trained.
        options: the settings.
        samples: how many there are to train on, N.
        seed: of the draws.

    Attributes:
        sections: all that have had a gate, in the order of the graph.
        pruned: names of those that are gone, in the order in which they went.

    Raises:
        UnsupportedModelError: the model has no section that could have a gate; the message says
            why.
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
        self._network = network
        self._options = options
        known = gated_sections(inlined(model))
        self.sections = tuple(s for s in known.found if last_weights(network, s).every)
        if not self.sections:
            why = "; ".join(f"{frozen.name}: {frozen.reason}" for frozen in known.frozen)
            raise UnsupportedModelError(
                "no residual section can have a gate "
                f"({why or 'there is no sum of a skip and a branch'}); for a plain chain of layers "
                "ask for bypasses"
            )
        self.pruned: list[str] = []
        self._left = list(self.sections)
        self._lasts: dict[str, LastWeights] = {}
        self._look()
        self._gates = options.gates(len(self._left), samples, seed)
        self._on: Array = np.ones(len(self._left), np.bool_)
        self._turn = 0
        self._trials: dict[str, _Trial] = {}
        self._macs: ExecutedMacs | None = None
        self._switches: list[_Switch] = []

    @property
    def theta(self) -> dict[str, float]:
        """The chance of every section to be on, by name; 0 of those that are pruned."""
        left = dict(zip((s.name for s in self._left), self._gates.theta.tolist(), strict=True))
        return {section.name: left.get(section.name, 0.0) for section in self.sections}

    # --- one step -------------------------------------------------------------------------------

    def before_forward(self, step: Step) -> Changes:
        """Draw which sections are on; those that are off are absent."""
        if self._macs is None:
            self._macs = ExecutedMacs(self._network, node_macs(self._network, step.feed))
        self._macs.start()
        self._on = self._gates.draw()
        self._switches = []
        if self._options.estimator == "gradient" and self._measures(step):
            device = self._network.device
            self._switches = [_Switch(bool(on), device) for on in self._on]
            made = [section.made for section in self._left]
            return Changes(dict(zip(made, self._switches, strict=True)))
        return Changes(absent=self._absent(self._on))

    def after_backward(self, step: Step) -> None:
        """Measure what sections are worth, and move theta."""
        assert self._macs is not None
        self._macs.trained()
        if not self._measures(step):
            return
        if self._options.estimator == "gradient":
            self._by_gradient(step)
        else:
            self._by_two_passes(step)
            self._macs.measured()

    def after_step(self, step: Step) -> None:
        """Let the last weights of sections that were off decay, and prune."""
        if self._options.warms_up(step.number, step.total):
            return
        factor = 1 - self._options.decay
        with torch.no_grad():
            for section, on in zip(self._left, self._on, strict=True):
                for name in () if on else self._lasts[section.name].every:
                    self._network.weights[name].mul_(factor)
        if self._options.tests_now(step.number, step.total):
            self._prune([section for section in self._left if self._passes(section)])

    def _measures(self, step: Step) -> bool:
        return self._options.measures(step.number, step.total)

    def _absent(self, on: Array) -> frozenset[str]:
        return frozenset(s.made for s, own in zip(self._left, on, strict=True) if not own)

    # --- estimates ------------------------------------------------------------------------------

    def _by_two_passes(self, step: Step) -> None:
        """Measure the next section that can be."""
        for offset in range(len(self._left)):
            place = (self._turn + offset) % len(self._left)
            if not self._is_inside_of_one_that_is_off(place):
                break
        else:
            return
        self._turn = (place + 1) % len(self._left)
        switched = self._on.copy()
        switched[place] = not switched[place]
        assert step.value is not None
        with torch.no_grad():
            other = step.loss(Changes(absent=self._absent(switched)))
        more = float(step.average(step.value - other))
        self._gates.update(np.array([place]), np.array([more if self._on[place] else -more]))

    def _is_inside_of_one_that_is_off(self, place: int) -> bool:
        total = self._left[place].total
        return any(
            total in other.nodes for other, on in zip(self._left, self._on, strict=True) if not on
        )

    def _by_gradient(self, step: Step) -> None:
        """Measure every section that the loss depends on."""
        found = [step.gradient(switch.gate) for switch in self._switches]
        slopes = {place: float(slope) for place, slope in enumerate(found) if slope is not None}
        self._gates.update(np.array(list(slopes), np.int64), np.array(list(slopes.values())))

    # --- pruning --------------------------------------------------------------------------------

    def _size(self, section: GatedSection) -> float:
        """Size of the weights that a branch ends in."""
        names = self._lasts[section.name].outermost
        with torch.no_grad():
            squares = [float(self._network.weights[name].square().sum()) for name in names]
        return float(np.sqrt(sum(squares)))

    def _passes(self, section: GatedSection) -> bool:
        """Whether a section has passed as many tests as it has to."""
        options = self._options
        if self.theta[section.name] > options.tolerance:
            self._trials.pop(section.name, None)
            return False
        size = self._size(section)
        trial = self._trials.setdefault(section.name, _Trial(size))
        trial.passed = trial.passed + 1 if size <= options.decayed * trial.start else 0
        return trial.passed >= options.tests

    def _prune(self, gone: Sequence[GatedSection]) -> None:
        """Cut sections out of the graph, with those inside of them."""
        inside = {name for section in gone for name in section.nodes}
        gone = [s for s in self._left if s in gone or s.total in inside]
        if not gone:
            return
        self._network.cut({section.made for section in gone})
        names = {section.name for section in gone}
        stay = np.array([section.name not in names for section in self._left])
        self.pruned += [section.name for section in gone]
        self._left = [section for section in self._left if section.name not in names]
        self._gates.keep(stay)
        self._on = self._on[stay]
        self._turn = 0
        for name in names:
            self._trials.pop(name, None)
        self._look()

    def _look(self) -> None:
        """Find the sections that are left in what is left of the graph."""
        graph = self._network.graph
        links = (Link(node.op, node.inputs, node.outputs) for node in graph.nodes)
        self._left = remaining(Wiring(links, graph.outputs), self._left)
        self._lasts = {s.name: last_weights(self._network, s) for s in self._left}

    # --- what the loop asks for -----------------------------------------------------------------

    def evaluation(self) -> Changes:
        """Without chance: the sections with theta of at least one half."""
        return Changes(absent=self._absent(self._gates.theta >= UNDECIDED))

    def may_keep(self) -> bool:
        """What is pruned last makes the result."""
        return False

    def columns(self) -> Mapping[str, float]:
        """Every theta, how many sections are left, and MACs executed over those of full passes."""
        return {
            "sections": float(len(self._left)),
            "executed": 1.0 if self._macs is None else self._macs.share,
            **{f"theta {name}": theta for name, theta in self.theta.items()},
        }

    def notes(self) -> Sequence[str]:
        """What was cut, what was not decided, and what of the full passes was computed."""
        theta, tolerance = self.theta, self._options.tolerance
        gone = [name for name, own in theta.items() if own < UNDECIDED]
        open_ends = [
            f"{name} ({own:.2f})" for name, own in theta.items() if tolerance < own < 1 - tolerance
        ]
        executed = self.columns()["executed"]
        left = f"sections: {len(theta) - len(gone)} of {len(theta)} left"
        lines = [f"{left}, {executed:.1%} of the MACs of full training executed"]
        lines += [f"cut: {', '.join(gone)}"] if gone else []
        if open_ends:
            lines.append(
                f"note: theta is neither near 0 nor 1 for {', '.join(open_ends)}; they are cut "
                "below one half. Train longer, or with a larger --section-rate"
            )
        return lines

    def state_dict(self) -> dict[str, Any]:
        """Gates, tests and what was pruned."""
        return {
            "gates": self._gates.state(),
            "pruned": list(self.pruned),
            "turn": self._turn,
            "trials": {name: [trial.start, trial.passed] for name, trial in self._trials.items()},
            "macs": None if self._macs is None else self._macs.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; what was pruned there is cut out of the network."""
        for name in state["pruned"]:
            self._prune([section for section in self._left if section.name == name])
        self._gates.load(state["gates"])
        self._turn = state["turn"]
        self._trials = {name: _Trial(*trial) for name, trial in state["trials"].items()}
        self._macs = ExecutedMacs.of(self._network, state["macs"]) if state["macs"] else None

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The model without what was pruned or has theta below one half, its skips merged."""
        theta = self.theta
        gone = [section for section in self.sections if theta[section.name] < UNDECIDED]
        whole = inlined(model)
        return merge_skips(without_sections(whole, gone), own_skips(whole, gone))
