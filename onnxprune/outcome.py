"""What the stages of a run made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.choice import Choice
from onnxprune.cost import CostModel
from onnxprune.measurement import Measured
from onnxprune.plan import Plan, Weights
from onnxprune.recovery import Solution
from onnxprune.refinement import Refinement
from onnxprune.section_choice import dropped
from onnxprune.study import Study
from onnxprune.verdict import Check


@dataclass(frozen=True)
class Outcome:
    """What the stages of a run made.

    Attributes:
        original: the model as it was read.
        pruned: the pruned model.
        study: what was learnt about it.
        choice: what was decided.
        plan: what was cut.
        weights: the consumers' recovered weights.
        solutions: consumer -> how its parts were recovered.
        cost: costs of the canonical model.
        measured: what was measured on the pruned model.
        checks: every target beside that.
        refinement: what training did to the weights; None without.
    """

    original: onnx.ModelProto
    pruned: onnx.ModelProto
    study: Study
    choice: Choice
    plan: Plan
    weights: Weights
    solutions: Mapping[str, Sequence[Solution]]
    cost: CostModel
    measured: Measured
    checks: Sequence[Check]
    refinement: Refinement | None = None

    @property
    def macs(self) -> float:
        """Multiply-accumulates of the pruned model."""
        return self.measured.after.macs

    @property
    def plan_cuts(self) -> bool:
        """Whether any group lost channels, or a section went."""
        counts = self.choice.counts
        return bool(self.study.keeps(counts) or dropped(self.study, counts))
