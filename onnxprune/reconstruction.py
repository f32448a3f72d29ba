"""Recoveries that replace dropped channels by combinations of kept ones, the same at every tap.

They are what other methods without training do, and what the default is compared with: the
consumer's weights of a dropped channel move to the kept ones, W_K + W_D B. ``recovery`` solves for
all weights of the kept features instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IndexArray, Matrix, Vector
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import factor, solve_right
from onnxprune.normal_equations import features_of
from onnxprune.recovery import NoRecovery, Solution
from onnxprune.yardstick import fit_yardstick, tune_yardstick


def channel_gram(problem: LayerProblem) -> Matrix:
    """Uncentred second moments of a consumer's channels, the mean over taps.

    Returns:
        Array of shape (entries, entries).
    """
    entries, taps = len(problem.channels), problem.taps
    features = problem.gram[:-1, :-1] / problem.gram[-1, -1]
    grid = features.reshape(entries, taps, entries, taps)
    mean: Matrix = np.einsum("itjt->ij", grid) / taps
    return mean


def mixed_in(problem: LayerProblem, keep: IndexArray, mix: Matrix) -> Matrix:
    """W_K + W_D B at every tap.

    Args:
        problem: the consumer.
        keep: its surviving entries, sorted.
        mix: B, shape (dropped, kept): what stands for each dropped entry.

    Returns:
        Array of shape (outputs, kept * taps).
    """
    entries, taps = len(problem.channels), problem.taps
    drop = np.setdiff1d(np.arange(entries), keep)
    weight = problem.weight[:, :-1].reshape(-1, entries, taps)
    moved = np.einsum("odt,dk->okt", weight[:, drop], mix, optimize=True)
    mixed: Matrix = weight[:, keep] + moved
    return mixed.reshape(len(weight), -1)


def solution(
    problem: LayerProblem, keep: IndexArray, weight: Matrix, bias: Vector, label: str
) -> Solution:
    """Weights of shape (outputs, kept features) and bias with their errors on both Grams."""
    features = features_of(keep, problem.taps)
    error, tune_error = (
        measure(problem).error(features, weight, bias)
        for measure in (fit_yardstick, tune_yardstick)
    )
    return Solution(weight, bias, error, tune_error, label)


@dataclass(frozen=True)
class Reconstruction:
    """Ridge reconstruction from uncentred moments; the bias stays (as GRAIL, arXiv 2602.23795).

    B = C_DK (C_KK + ridge m I)^-1, where m is the mean of C_KK's diagonal: strong channels are
    ridged less than weak ones, unlike everywhere else in this package.

    Attributes:
        ridge: relative to the mean second moment of the kept channels.
    """

    ridge: float = 1e-3

    def solve(self, problem: LayerProblem, keep: IndexArray) -> Solution:
        """Recovers the consumer by reconstructing the dropped channels."""
        if len(keep) == len(problem.channels):
            return NoRecovery().solve(problem, keep)
        weight = mixed_in(problem, keep, self._mix(channel_gram(problem), keep))
        label = f"reconstruction, ridge {self.ridge:.0e}"
        return solution(problem, keep, weight, problem.weight[:, -1].copy(), label)

    def _mix(self, gram: Matrix, keep: IndexArray) -> Matrix:
        """B, shape (dropped, kept)."""
        drop = np.setdiff1d(np.arange(len(gram)), keep)
        mean = float(gram[keep, keep].mean()) if len(keep) else 0.0
        if mean <= 0:  # what is kept is never active
            return np.zeros((len(drop), len(keep)))
        lower = factor(gram[np.ix_(keep, keep)] / mean, self.ridge)
        return solve_right(lower, gram[np.ix_(drop, keep)] / mean)
