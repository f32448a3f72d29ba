"""Solving the consumers of one stage: moments, weights, and steps where a rectifier follows."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

import numpy as np

from onnxprune.arrays import Array
from onnxprune.blas_threads import threads_for
from onnxprune.layer_problem import LayerProblem
from onnxprune.least_squares import LeastSquares
from onnxprune.recovery import Recovery, Solution
from onnxprune.rectified import Misses
from onnxprune.regression import Regression
from onnxprune.side_by_side import Frontier, SideBySide
from onnxprune.stage_rows import FIT, Reader, Seen, StageRows, Sums, add_misses, add_rows
from onnxprune.yardstick import sliced_error

Solved = tuple[list[LayerProblem], list[Solution]]
"""The parts of a consumer as they were to be solved, and as they are."""

logger = logging.getLogger(__name__)


def rectifies(recovery: Recovery | None) -> TypeGuard[LeastSquares]:
    """Whether a recovery goes on towards targets that count where the activation does."""
    return isinstance(recovery, LeastSquares) and recovery.sweeps > 0


def solve_stage(
    networks: SideBySide, rows: StageRows, recovery: Recovery, label: str
) -> dict[Reader, list[Solution]]:
    """The solutions of all consumers of a stage, part by part; none for those that read infinities.

    Args:
        networks: the networks, which go on to the stage.
        rows: what its consumers are regressed on.
        recovery: how they are solved.
        label: what is done, for progress bars.
    """
    solved: dict[Reader, Solved] = {}
    again = {r for r in rows.regressions if rectifies(recovery) and rows.rectifiable(r)}
    for (variant, name), sums in _sums(networks, rows, again, label).items():
        moments = [found.moments() for found in sums]
        if not all(part.finite for part in moments):
            logger.warning("%s is not refitted: its input is infinite or no number", name)
            continue
        regression = rows.regressions[variant, name]
        problems = regression.problems(moments[FIT], moments[-1])
        with threads_for(regression.features):
            solved[variant, name] = problems, _solved(recovery, regression, problems)
    if rectifies(recovery):
        _rectify(solved, rows, networks, recovery, label)
    return {reader: solutions for reader, (_, solutions) in solved.items()}


def _sums(networks: SideBySide, rows: StageRows, again: Collection[Reader], label: str) -> Sums:
    """The sums of a stage; targets that are needed again wait with the tensors at the cut."""

    def collect(total: Sums, seen: Seen) -> Sums:
        targets = {(name, v): y for (v, name), (_, y) in seen.rows.items() if (v, name) in again}
        networks.leave(seen.batch, targets)
        return add_rows(total, seen)

    none: Sums = {}
    return networks.advance(rows.of_batch, collect, none, label=label)


def _solved(
    recovery: Recovery, regression: Regression, problems: Sequence[LayerProblem]
) -> list[Solution]:
    """The parts' solutions; if they are measured at all, beside what slicing alone would do."""
    found = []
    for part, problem in enumerate(problems):
        own = regression.sliced(part)
        if own is not None and not np.array_equal(own[:, :-1], problem.weight[:, :-1]):
            problem = replace(problem, alternative=own)
        solution = recovery.solve(problem, np.arange(len(problem.channels)))
        if solution.tune_error is not None and own is not None:
            missed = sliced_error(problem, np.arange(regression.features), own)
            solution = replace(solution, sliced_error=missed)
        found.append(solution)
    return found


def _rectify(
    solved: dict[Reader, Solved],
    rows: StageRows,
    networks: SideBySide,
    recovery: LeastSquares,
    label: str,
) -> None:
    """Moves the solutions of a stage towards targets that count where the activation does."""
    steppings = {
        reader: [recovery.stepping(p, s) for p, s in zip(problems, solutions, strict=True)]
        for reader, (problems, solutions) in solved.items()
        if rows.rectifiable(reader)
    }
    for _ in range(recovery.sweeps if steppings else 0):
        weights = {reader: _arrays(solved[reader][1]) for reader in steppings}

        def task(
            batch: int, frontier: Frontier, weights: Mapping[Reader, tuple[Array, Array]] = weights
        ) -> dict[Reader, Misses]:
            return rows.misses_of_batch(batch, frontier, weights)

        total: dict[Reader, Misses] = {}
        for reader, misses in networks.again(task, add_misses, total, label=label).items():
            problems, solutions = solved[reader]
            parts = zip(steppings[reader], solutions, misses.mean, strict=True)
            solved[reader] = problems, [step.after(s, missed) for step, s, missed in parts]


def _arrays(solutions: Sequence[Solution]) -> tuple[Array, Array]:
    """Weights and biases of all parts of a consumer, as the networks compute."""
    weights = np.stack([solution.weight for solution in solutions])
    biases = np.stack([solution.bias for solution in solutions])
    return weights.astype(np.float32), biases.astype(np.float32)
