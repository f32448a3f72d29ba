"""How far two sets of outputs are apart, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp

from onnxprune.arrays import Array, Feed

TEMPERATURE = 3.0
"""Softens scores where few samples have to tell small damages apart."""


@dataclass
class OutputDistance:
    """Sums that describe how one output of a changed model differs from the original's.

    Attributes:
        name: the output.
        scores: whether the output looks like class scores.
        samples: samples seen.
        reshaped: how many of them came out in another shape, and count as all wrong.
    """

    name: str
    scores: bool
    samples: int = 0
    reshaped: int = 0
    _squared: float = 0.0
    _reference: float = 0.0
    _changed: float = 0.0
    _product: float = 0.0
    _divergence: float = 0.0
    _softened: float = 0.0
    _largest: float = 0.0
    _agree: int = 0
    _rows: int = field(default=0, repr=False)

    def add(self, reference: Array, changed: Array, samples: int | None = None) -> None:
        """Add one batch; an output that is no numeric array is passed over.

        An output whose shape depends on the values (detections, say) may come out in another one;
        it then counts as all wrong: as if it had been zero.

        Args:
            reference: the original's output.
            changed: the changed model's.
            samples: how many samples these are of; None for the extent of the first axis.
        """
        if not is_numeric(reference):
            return
        old = np.asarray(reference, np.float64)
        new = np.asarray(changed, np.float64)
        if new.shape != old.shape:
            new = np.zeros_like(old)
            self.reshaped += old.shape[0] if old.ndim else 1
        self.samples += samples or (old.shape[0] if old.ndim else 1)
        self._squared += float(np.sum((old - new) ** 2))
        self._reference += float(np.sum(old**2))
        self._changed += float(np.sum(new**2))
        self._product += float(np.sum(old * new))
        self._largest = float(np.maximum(self._largest, np.abs(old - new).max(initial=0.0)))
        if self.scores:
            old, new = (a.reshape(a.shape[0], -1) for a in (old, new))
            self._rows += old.shape[0]
            self._agree += int(np.sum(old.argmax(axis=1) == new.argmax(axis=1)))
            self._divergence += float(kl_divergence(old, new).sum())
            self._softened += float(kl_divergence(old, new, TEMPERATURE).sum())

    def to_dict(self) -> dict[str, Any]:
        """The distances as plain values, which may be infinite or no numbers."""
        return {
            "name": self.name,
            "samples": self.samples,
            "relative_error": self.relative_error,
            "cosine": self.cosine,
            "top1_agreement": self.agreement,
            "divergence": self.divergence,
        }

    def merge(self, other: OutputDistance) -> None:
        """Adds what another accumulator has seen of the same output."""
        self.samples += other.samples
        self._squared += other._squared
        self._reference += other._reference
        self._changed += other._changed
        self._product += other._product
        self._divergence += other._divergence
        self._softened += other._softened
        self._largest = float(np.maximum(self._largest, other._largest))
        self.reshaped += other.reshaped
        self._agree += other._agree
        self._rows += other._rows

    @property
    def relative_error(self) -> float:
        """||changed - reference|| / ||reference|| over all samples."""
        return (
            float(np.sqrt(self._squared / self._reference))
            if self._reference
            else np.sqrt(self._squared)
        )

    @property
    def cosine(self) -> float:
        """Cosine of the angle between all outputs of the two models."""
        norms = np.sqrt(self._reference * self._changed)
        return float(self._product / norms) if norms else float(self._squared == 0)

    @property
    def max_abs_error(self) -> float:
        """The largest difference between two values."""
        return self._largest

    @property
    def agreement(self) -> float | None:
        """Share of samples whose highest score is of the same class; None without scores."""
        return self._agree / self._rows if self._rows else None

    @property
    def divergence(self) -> float:
        """Mean Kullback-Leibler divergence in nats for scores, else the squared relative error."""
        return self._divergence / self._rows if self._rows else self.relative_error**2

    @property
    def softened(self) -> float:
        """The same of scores at ``TEMPERATURE``, times its square: less of it is noise.

        Of confident predictions hardly any changes, so that a mean of the divergence itself rests
        on the few that are not.
        """
        return self._softened / self._rows if self._rows else self.relative_error**2


def kl_divergence(reference: Array, changed: Array, temperature: float = 1.0) -> Array:
    """KL(reference || changed) in nats of each row of class scores, shape (rows,).

    Rows are taken as probabilities if those of the reference are, else as logits.

    Args:
        reference: shape (rows, classes).
        changed: of the same shape.
        temperature: what log-probabilities are divided by; the result is multiplied by its square,
            so that small differences count about the same (Hinton et al., arXiv 1503.02531).
    """
    probabilities = is_distribution(reference)
    old, new = (_log_probabilities(r, known=probabilities) for r in (reference, changed))
    if temperature != 1.0:
        old, new = (log_softmax(logs / temperature, axis=1) for logs in (old, new))
    divergence: Array = np.sum(np.exp(old) * (old - new), axis=1)
    return temperature**2 * np.maximum(divergence, 0.0)


def _log_probabilities(rows: Array, *, known: bool) -> Array:
    """Logarithms of probabilities that are known, or of those that logits mean."""
    if known:
        logs = np.log(np.maximum(rows, 1e-12))
        normalised: Array = logs - logsumexp(logs, axis=1, keepdims=True)
        return normalised
    scores: Array = log_softmax(rows, axis=1)
    return scores


def is_distribution(rows: Array) -> bool:
    """Whether every row is non-negative and sums to one."""
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def is_numeric(output: object) -> bool:
    """Whether a model's output is an array of numbers or truth values, not text or a sequence."""
    return isinstance(output, np.ndarray) and output.dtype.kind in "fiub"


def looks_like_scores(output: Array, feed: Feed) -> bool:
    """Whether an output is one row of class scores per sample.

    A matrix, or maps of one pixel, of at least two floating-point columns; one as wide as an input
    is a reconstruction, not scores. An array of shape (samples, positions, 1) is what detectors say
    of their anchors, and not a row of scores either.
    """
    if not is_numeric(output) or output.ndim in (0, 1, 3) or output.dtype.kind != "f":
        return False
    width = output.shape[1]
    matrix = width > 1 and output.size == output.shape[0] * width
    return matrix and all(array.shape[1:] != (width,) for array in feed.values())


def distances(names: Sequence[str], reference: Sequence[Array], feed: Feed) -> list[OutputDistance]:
    """Empty accumulators for the outputs of a model, told apart by a first batch."""
    return [
        OutputDistance(name, looks_like_scores(array, feed))
        for name, array in zip(names, reference, strict=True)
    ]
