"""The local rule by which a layer's transform R learns to make its inputs uncorrelated.

A layer reads z = R x in place of x. With C = E[z z^T] - diag(E[z^2]) and V = diag(E[z^2] - 1),

    R <- R - eps [(1 - kappa) C + kappa V] R

(Dalm et al., arXiv 2405.02385). Around it, derived here:

*Cost.* With fewer rows than features, C R = Z^T (Z R) / n - diag(E[z^2]) R, and the sum of C^2 is
that of (Z Z^T / n)^2 less that of E[z^2]^2. C itself is never made then, and a step costs
n features^2 instead of features^3.

*Stability.* Write G = E[z z^T] and s for its diagonal. Near C = 0 a step multiplies C_ij by
1 - eps (1 - kappa) (s_i + s_j): eps (1 - kappa) (s_i + s_j) < 2 is needed. Far from it, with
kappa = 0, the step changes E|z|^2 by -2 eps |C|^2 + eps^2 tr(C G C), where tr(C G C) is at most
|C|^2 times the largest eigenvalue of G, which is at most |C| + max s: it never grows if
eps (|C| + max s) <= 2. V multiplies s_i by (1 - eps kappa (s_i - 1))^2. The guard asks for

    eps [(1 - kappa) (|C| + max (s_i + s_j)) + kappa max(1, |s - 1|)] <= 1,

half of what any of these allow, with the Frobenius norm of C.

*Triangular.* With only the strictly lower part of C and kappa = 0, R stays unit lower triangular,
and at rest z_i is uncorrelated with every z_j before it: R = L^-1 and E[z_i^2] = D_i of
E[x x^T] = L D L^T. The part of z_j in z_i decays by 1 - eps D_j a step, which is slow where D_j is
small. *Relative* steps divide column j of C by E[z_j^2]: every part then decays by 1 - eps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-12
"""Second moments count at least this much of the largest where they divide."""


@dataclass(frozen=True)
class Correlations:
    """What the rows of one step said, before it.

    Attributes:
        second: E[z^2], shape (parts, features).
        squares: the sum of C^2, shape (parts,).
        loss: the decorrelation loss, mean over parts, shape ().
        rate: the step that was taken, shape (parts,).
    """

    second: Tensor
    squares: Tensor
    loss: Tensor
    rate: Tensor


@dataclass(frozen=True)
class DecorrelatingRule:
    """How R moves.

    The *standard* loss is ((1 - kappa) sum C^2 + kappa sum V^2) / d^2. The *normalised* one is
    ((1 - kappa) sum C^2 / (d - 1) + kappa sum V^2) / d, a mean over pairs and one over features,
    and its rule has C / (d - 1) in place of C, so that neither depends on the layer's width.

    Attributes:
        rate: eps.
        kappa: how much unit second moments count beside no correlations, from 0 to 1.
        normalised: whether loss and rule are normalised.
        triangular: whether only the strictly lower part of C counts; kappa has to be 0.
        relative: whether column j of C is divided by E[z_j^2], and by nothing else; only with
            ``triangular``.
        guarded: whether steps are shortened to what is stable.

    Raises:
        ValueError: the settings make no sense together.
    """

    rate: float
    kappa: float
    normalised: bool = False
    triangular: bool = False
    relative: bool = False
    guarded: bool = True

    def __post_init__(self) -> None:
        if self.triangular and self.kappa:
            raise ValueError("a triangular transform keeps its unit diagonal: kappa must be 0")
        if self.relative and not self.triangular:
            raise ValueError("relative steps are for a triangular transform")

    @torch.no_grad()
    def update(self, transform: Tensor, rows: Tensor, scale: Tensor | None = None) -> Correlations:
        """Moves R, in place.

        Args:
            transform: R of every part, shape (parts, features, features).
            rows: inputs x, shape (parts, rows, features).
            scale: for relative steps, what is known of E[z^2] beside these rows, shape
                (parts, features); the larger of both divides.
        """
        outputs = rows @ transform.mT
        second = outputs.square().mean(dim=1)
        pairs = max(rows.shape[2] - 1, 1) if self.normalised and not self.relative else 1
        weight = (1.0 - self.kappa) / pairs
        few = rows.shape[1] < rows.shape[2] and not self.triangular
        correlations = None if few else _correlations(outputs)
        squares = _squares(outputs, second) if correlations is None else _sum(correlations)
        divisor = self._divisor(second, scale)
        norm = squares.sqrt()
        if self.relative and correlations is not None:
            root = divisor.sqrt()
            norm = _sum(correlations / root[:, :, None] / root[:, None, :]).sqrt()
        rate = self._rate(weight, norm, second, divisor)
        step = (rate * weight)[:, None, None]
        own = 1.0 - self.kappa * rate[:, None] * (second - 1.0)  # what is left of each row of R
        if correlations is None:
            own = own + step[:, 0] * second
            products = outputs @ transform
            transform.mul_(own[:, :, None])
            transform.baddbmm_(outputs.mT * (-step / rows.shape[1]), products)
        else:
            if self.triangular:
                correlations = (correlations / divisor[:, None, :]).tril(-1)
            moved = correlations @ transform
            transform.mul_(own[:, :, None]).sub_(step * moved)
        return Correlations(second, squares, self.loss(squares, second), rate)

    def _rate(self, weight: float, norm: Tensor, second: Tensor, divisor: Tensor) -> Tensor:
        """The step to take, shape (parts,)."""
        rate = torch.full_like(norm, self.rate)
        if not self.guarded:
            return rate
        bound = weight * (norm + _two_largest(second / divisor))
        bound = bound + self.kappa * (second - 1.0).abs().amax(dim=1).clamp(min=1.0)
        return torch.minimum(rate, 1.0 / bound.clamp(min=TINY))

    def loss(self, squares: Tensor, second: Tensor) -> Tensor:
        """The decorrelation loss, mean over parts.

        Args:
            squares: the sum of C^2, shape (parts,).
            second: E[z^2], shape (parts, features).
        """
        width = second.shape[1]
        unit = (second - 1.0).square().sum(dim=1)
        if self.normalised:
            squares, divisor = squares / max(width - 1, 1), width
        else:
            divisor = width**2
        return ((1.0 - self.kappa) * squares + self.kappa * unit).mean() / divisor

    def _divisor(self, second: Tensor, scale: Tensor | None) -> Tensor:
        if not self.relative:
            return torch.ones_like(second)
        larger = second if scale is None else torch.maximum(second, scale)
        return torch.maximum(larger, TINY * larger.amax(dim=1, keepdim=True)).clamp(min=TINY)


def _correlations(outputs: Tensor) -> Tensor:
    """C, shape (parts, features, features)."""
    correlations = outputs.mT @ outputs / outputs.shape[1]
    correlations.diagonal(dim1=1, dim2=2).zero_()
    return correlations


def _squares(outputs: Tensor, second: Tensor) -> Tensor:
    """The sum of C^2 without C, shape (parts,)."""
    total = _sum(outputs @ outputs.mT / outputs.shape[1])
    return (total - second.square().sum(dim=1)).clamp(min=0.0)


def _sum(matrices: Tensor) -> Tensor:
    """The sum of squares of each, shape (parts,)."""
    return matrices.square().sum(dim=(1, 2))


def _two_largest(values: Tensor) -> Tensor:
    """The sum of the two largest, shape (parts,)."""
    return values.topk(min(2, values.shape[1]), dim=1).values.sum(dim=1)
