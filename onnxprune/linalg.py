"""Linear algebra of Gram matrices: standardising, ridges, triangular factors, least squares.

A Gram matrix here is E[x x^T] with the constant feature 1 last. The constant is always kept and
never ridged, so it is eliminated first: what remains is the covariance of the other features, and
the bias follows from their means. The covariance is then scaled to unit diagonal, which makes
every ridge relative to the feature it acts on: scaling the data changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, lapack, solve_triangular

from onnxprune.arrays import IndexArray, Matrix, Vector

# A feature whose variance is below this part of its second moment is constant: the Gram is summed
# from float32 products. Of a constant every product rounds alike (up to 6e-8 of it), and so do the
# partial sums of a batch's thousands of rows: 5e-6 is seen.
DEAD_VARIANCE = 1e-5

# What is left of a second moment after projection counts as rounding below this part of it.
DEPENDENT = 1e-10

# A matrix that is not positive definite gets ten times the ridge, this many times at most: from
# 1e-10 the last try is 1. Then noise is larger than the correlations, as it is with very few rows,
# and the ridge is the largest absolute row sum, which no eigenvalue exceeds.
RIDGE_STEPS = 11


@dataclass(frozen=True)
class Moments:
    """A Gram matrix without its constant, in units of each feature's standard deviation.

    Attributes:
        correlation: shape (features, features); unit diagonal. A dead feature (no variance) is
            uncorrelated with every other.
        mean: shape (features,).
        scale: shape (features,); standard deviations, 0 for a dead feature.
    """

    correlation: Matrix
    mean: Vector
    scale: Vector

    @property
    def inverse_scale(self) -> Vector:
        """1 / scale, and 0 for a dead feature; shape (features,)."""
        return reciprocal(self.scale)


def reciprocal(values: Vector) -> Vector:
    """1 / value where the value is positive, else 0; any shape."""
    inverse = np.zeros_like(values)
    np.divide(1.0, values, out=inverse, where=values > 0)
    return inverse


def standardise(gram: Matrix) -> Moments:
    """Eliminates the constant from a Gram matrix and scales the rest to unit diagonal.

    Args:
        gram: E[x x^T], the constant last; shape (features + 1, features + 1).
    """
    mean = gram[:-1, -1] / gram[-1, -1]
    correlation = gram[:-1, :-1] / gram[-1, -1]
    second = np.diag(correlation).copy()
    correlation -= np.outer(mean, mean)
    variance = np.diag(correlation).copy()
    scale = np.sqrt(np.where(variance > DEAD_VARIANCE * second, variance, 0.0))
    inverse = reciprocal(scale)
    correlation *= inverse[:, None]
    correlation *= inverse
    np.fill_diagonal(correlation, 1.0)
    return Moments(correlation=correlation, mean=mean, scale=scale)


def ridged(matrix: Matrix, ridge: float) -> Matrix:
    """A copy with ``ridge`` added to the diagonal; shape as the square input."""
    result = matrix.copy()
    result[np.diag_indices_from(result)] += ridge
    return result


def try_factor(matrix: Matrix, ridge: float) -> Matrix | None:
    """Lower Cholesky factor of matrix + ridge I, or None if that is not positive definite."""
    if matrix.size == 0:
        return matrix.copy()
    try:
        factor: Matrix = cholesky(
            ridged(matrix, ridge), lower=True, overwrite_a=True, check_finite=False
        )
    except LinAlgError:
        return None
    return factor


def factor(matrix: Matrix, ridge: float) -> Matrix:
    """Lower Cholesky factor of matrix + ridge I, with more ridge where rounding demands it.

    Args:
        matrix: symmetric with a diagonal near 1, positive semidefinite up to rounding.
        ridge: the smallest ridge wanted; 0 is allowed.
    """
    lower = try_factor(matrix, ridge)
    step = max(ridge, DEPENDENT)
    for _ in range(RIDGE_STEPS):
        if lower is not None:
            return lower
        step *= 10.0
        lower = try_factor(matrix, step)
    bound = float(np.abs(matrix).sum(axis=1).max())
    definite: Matrix = cholesky(ridged(matrix, 2.0 * bound), lower=True, check_finite=False)
    return definite


def solve_right(lower: Matrix, right: Matrix) -> Matrix:
    """The product of ``right``, shape (rows, size), and (L L^T)^-1, for the lower factor L."""
    if right.size == 0:
        return right.copy()
    solution: Matrix = cho_solve((lower, True), right.T, check_finite=False).T
    return solution


def inverse_of(lower: Matrix) -> Matrix:
    """(L L^T)^-1 as a full symmetric matrix, from the lower factor L."""
    if lower.size == 0:
        return lower.copy()
    inverse, info = lapack.dpotri(lower, lower=1)
    if info != 0:
        raise ValueError("the triangular factor is singular")
    filled: Matrix = inverse + inverse.T  # of either, only one triangle is not zero
    np.fill_diagonal(filled, np.diag(inverse))
    return np.ascontiguousarray(filled)


def condition_on(matrix: Matrix, given: IndexArray, wanted: IndexArray) -> Matrix:
    """The second moments of the wanted features that the given ones cannot explain linearly.

    The Schur complement M_ww - M_wg M_gg^-1 M_gw; shape (wanted, wanted).

    Args:
        matrix: positive definite, shape (features, features).
        given: indices to condition on; may be empty.
        wanted: indices of the rest that matter.
    """
    own: Matrix = matrix[np.ix_(wanted, wanted)]
    if given.size == 0:
        return own
    lower = factor(matrix[np.ix_(given, given)], 0.0)
    explained = solve_triangular(
        lower, matrix[np.ix_(given, wanted)], lower=True, check_finite=False
    )
    own -= explained.T @ explained
    return own


def fitted_weight(
    weight: Matrix, gram: Matrix, cross: Matrix | None, moments: Moments, ridge: float
) -> Matrix:
    """The weights that predict the targets best from all features, without the bias.

    W* = H G^-1, written as W plus a ridged correction, so that directions the data do not
    show keep the original weights. Without ``cross`` the targets are W x + b and W* = W.

    Args:
        weight: shape (outputs, features + 1), the bias last.
        gram: shape (features + 1, features + 1).
        cross: E[y x^T], shape (outputs, features + 1), or None.
        moments: ``standardise(gram)``.
        ridge: relative ridge of the correction.

    Returns:
        Array of shape (outputs, features).
    """
    if cross is None:
        return weight[:, :-1]
    missing = centred(cross - weight @ gram, gram) * moments.inverse_scale
    lower = factor(moments.correlation, ridge)
    return weight[:, :-1] + solve_right(lower, missing) * moments.inverse_scale


def centred(cross: Matrix, gram: Matrix) -> Matrix:
    """Covariance of targets and features from E[y x^T] and E[x x^T], both with the constant last.

    Args:
        cross: shape (outputs, features + 1).
        gram: shape (features + 1, features + 1).

    Returns:
        Array of shape (outputs, features).
    """
    count = gram[-1, -1]
    covariance: Matrix = cross[:, :-1] / count - np.outer(
        cross[:, -1] / count, gram[:-1, -1] / count
    )
    return covariance


def quadratic(rows: Matrix, matrix: Matrix) -> float:
    """tr(R M R^T), at least 0: the expected squared norm of R x when M = E[x x^T]."""
    return max(float(np.vdot(rows @ matrix, rows)), 0.0)


def pivoted_ldl(matrix: Matrix, parts: IndexArray) -> tuple[IndexArray, Vector]:
    """Pivoted Cholesky M[order][:, order] = L D L^T, the largest remaining pivot first.

    D_i is the second moment of unit order[i] that the units before it cannot explain. Units that
    are explained up to rounding come last, the larger raw moment first; ties go by index.

    Args:
        matrix: positive semidefinite, shape (units, units).
        parts: shape (units,); a pivot is only taken from the parts with fewest pivots so far.

    Returns:
        The order, a permutation of range(units), and the pivots D, shape (units,), never negative.
    """
    units = len(matrix)
    raw = np.diag(matrix).copy()
    rest = raw.copy()
    lower = np.zeros((units, units))
    order = np.zeros(units, dtype=np.int64)
    pivots = np.zeros(units)
    open_units = np.ones(units, dtype=bool)
    taken = np.zeros(int(parts.max(initial=0)) + 1, dtype=np.int64)
    for step in range(units):
        allowed = np.flatnonzero(open_units)
        allowed = allowed[taken[parts[allowed]] == taken[parts[allowed]].min()]
        shown = np.where(rest[allowed] > DEPENDENT * raw[allowed], rest[allowed], 0.0)
        pivot = int(allowed[np.argmax(shown if shown.any() else raw[allowed])])
        order[step] = pivot
        open_units[pivot] = False
        taken[parts[pivot]] += 1
        if rest[pivot] > DEPENDENT * raw[pivot]:
            pivots[step] = rest[pivot]
            column = matrix[:, pivot] - lower[:, :step] @ lower[pivot, :step]
            lower[:, step] = column / np.sqrt(pivots[step])
            rest -= lower[:, step] ** 2
    return order, pivots
