"""The transform R of one weight tensor: what it learns from, and how it is fused into the weight.

The layer computes W (R x) + b. Since R is linear, that is one ordinary kernel A = W R of the shape
of W: the forward pass costs what it did, gradients reach W through A, and A is what is exported
(Dalm et al., arXiv 2405.02385). The bias stays outside, as R x is zero where x is.

W is seen as an array of shape (parts, outputs, features, stack): a grouped convolution has a part
for every group, and what shares one R is stacked. Over *patches* a convolution's features are
(channel, tap) and nothing is stacked; over plain *channels* its taps are, and so are the positions
that a flattened map has of each channel.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxprune.train.decorrelating_rule import Correlations, DecorrelatingRule


class Decorrelator(torch.nn.Module):
    """R of the features of some rows, and the second moments of z = R x.

    Args:
        parts: independent transforms.
        features: of each.
        rule: how R moves.
        constant: whether R is over x with a constant 1 behind it. In a triangular R the last row
            then predicts the constant and all others are as without it.

    Attributes:
        transform: R, the identity at first, shape (parts, size, size).
        second: a running mean of E[z^2], shape (parts, size).
        steps: how often it has learnt, shape ().
        rows: from how many rows, shape ().
    """

    transform: Tensor
    second: Tensor
    steps: Tensor
    rows: Tensor

    def __init__(
        self, parts: int, features: int, rule: DecorrelatingRule, *, constant: bool = False
    ) -> None:
        super().__init__()
        size = features + constant
        self.rule = rule
        self.constant = constant
        self.register_buffer("transform", torch.eye(size).repeat(parts, 1, 1))
        self.register_buffer("second", torch.zeros(parts, size))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def learn(
        self, rows: Tensor, average: Callable[[Tensor], Tensor] = lambda x: x
    ) -> Correlations:
        """Takes one step.

        Args:
            rows: x, shape (parts, rows, features).
            average: a tensor's mean over all processes that train together: R and D stay the same
                in all of them.
        """
        if self.constant:
            rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], dim=2)
        with torch.autocast(rows.device.type, enabled=False):
            found = self.rule.update(self.transform, rows, self.second)
        self.transform.copy_(average(self.transform))
        self.steps += 1
        self.rows += rows.shape[1]
        gain = self.steps.float().reciprocal().clamp(min=min(self.rule.rate, 1.0))
        self.second.lerp_(average(found.second), gain)
        return found


class FusedWeight(torch.nn.Module):
    """A = W R.

    Args:
        decorrelator: R, without a constant.
        inputs_first: whether W has shape (inputs, outputs). Otherwise outputs come first, and
            parts lie along them.
        stack_major: whether what is stacked runs fastest along the inputs, or the features do.
    """

    def __init__(
        self, decorrelator: Decorrelator, *, inputs_first: bool = False, stack_major: bool = True
    ) -> None:
        super().__init__()
        self.decorrelator = decorrelator
        self._inputs_first = inputs_first
        self._stack_major = stack_major

    def forward(self, weight: Tensor) -> Tensor:
        """The weight the layer uses, of the shape of W."""
        with torch.autocast(weight.device.type, enabled=False):
            return self._times(weight, self.decorrelator.transform)

    def unfused(self, weight: Tensor) -> Tensor:
        """The W with which the layer uses this weight."""
        inverse = torch.linalg.inv(self.decorrelator.transform.double())
        return self._times(weight.double(), inverse).to(weight.dtype)

    def _times(self, weight: Tensor, transform: Tensor) -> Tensor:
        outputs_first = weight.T if self._inputs_first else weight
        matrices = self._spread(outputs_first)
        mixed = (matrices.mT @ transform[:, None].to(weight.dtype)).mT
        product = self._joined(mixed).reshape(outputs_first.shape)
        return product.T if self._inputs_first else product

    def _spread(self, weight: Tensor) -> Tensor:
        """W, outputs first, as an array of shape (parts, outputs, features, stack)."""
        parts, features = self.decorrelator.transform.shape[:2]
        shaped = weight.reshape(parts, weight.shape[0] // parts, -1)
        if self._stack_major:
            return shaped.reshape(*shaped.shape[:2], features, -1)
        return shaped.reshape(*shaped.shape[:2], -1, features).transpose(2, 3)

    def _joined(self, matrices: Tensor) -> Tensor:
        """The inverse of ``_spread`` but for the shape."""
        return matrices if self._stack_major else matrices.transpose(2, 3)
