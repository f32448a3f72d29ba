"""Moments that training learns on the way: R and D of a triangular transform are those of a Gram.

At rest R = L^-1 and E[z^2] = D of E[x x^T] = L D L^T, so that E[x x^T] = R^-1 D R^-T. With the
constant 1 behind x that is all Subspace Node Pruning (arXiv 2405.17506) asks of the samples.
"""

from __future__ import annotations

import torch

from onnxprune.gram import Gram
from onnxprune.train.decorrelator import Decorrelator


def gram_of(decorrelator: Decorrelator, rows_per_step: int) -> Gram:
    """The Gram matrices that R and D stand for, the constant last.

    They rest on as many rows as would tell R as exactly: a step of relative size eps from n rows
    leaves R the noise of 2 n / eps rows (derived here, for small eps), or of all there were.

    Args:
        decorrelator: triangular, with the constant.
        rows_per_step: n.

    Raises:
        ValueError: it is not triangular, has no constant, or has not learnt anything.
    """
    if not (decorrelator.rule.triangular and decorrelator.constant):
        raise ValueError("only a triangular transform with the constant holds a Gram matrix")
    steps = int(decorrelator.steps)
    if not steps:
        raise ValueError("the transform has learnt from no rows")
    transform = decorrelator.transform.double().cpu()
    parts, size = transform.shape[:2]
    lower = torch.linalg.solve_triangular(
        transform, torch.eye(size, dtype=transform.dtype).expand(parts, -1, -1), upper=False
    )
    scaled = lower * decorrelator.second.double().cpu().clamp(min=0.0).sqrt()[:, None, :]
    moments = scaled @ scaled.mT
    # the constant's own moment is 1 only at rest
    unit = torch.ones(parts, size, dtype=moments.dtype)
    unit[:, -1] = moments[:, -1, -1].clamp(min=torch.finfo(torch.float32).tiny).rsqrt()
    moments = moments * unit[:, :, None] * unit[:, None, :]
    known = 2.0 * rows_per_step / max(decorrelator.rule.rate, 1e-12)
    rows = max(1, round(min(known, float(rows_per_step * steps))))
    gram = Gram(parts, size - 1)
    gram.add((moments * rows).numpy())
    return gram
