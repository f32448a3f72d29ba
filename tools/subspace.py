"""Bases instead of channels: a 1x1 map onto principal components in front of a convolution.

All of a group's channels are made; an orthonormal basis of rank r turns them into r, which the
k x k convolution reads. With P channels read by the map that makes the group's C channels, and O
outputs, at one position and equal MACs,

    c k^2 (P + O) = P k^2 C + C r + r k^2 O      both maps counted
    c k^2 O       =           C r + r k^2 O      the consumer alone

give the rank r for c kept channels. Only groups with one producer and one consumer, convolutions
of stride 1 with the same number of taps, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnxprune.arrays import Matrix
from onnxprune.layer_problem import LayerProblem
from onnxprune.linalg import quadratic, standardise
from onnxprune.normal_equations import features_of
from onnxprune.ranking import keep_of
from onnxprune.recovery import FixedRidge
from onnxprune.study import Study
from onnxprune.yardstick import fit_yardstick

RIDGE = 1e-6


def compared(study: Study, counts: Mapping[str, int]) -> dict[str, float]:
    """Mean relative least-squares error of the consumers: channels removed, and two bases.

    Args:
        study: the network.
        counts: group name -> channels kept.
    """
    removed, alone, both = [], [], []
    for group, layer, fan_in in _inner(study):
        kept, size, taps = counts[group], len(layer.channels), layer.taps
        outputs = len(layer.weight)
        keep = keep_of(study.rankings[group], kept)
        solved = FixedRidge(RIDGE).solve(layer, keep)
        features = features_of(keep, taps)
        removed.append(fit_yardstick(layer).error(features, solved.weight, solved.bias))
        cost = size + taps * outputs
        alone.append(basis_error(layer, kept * taps * outputs // cost))
        spare = kept * taps * (fan_in + outputs) - fan_in * taps * size
        both.append(basis_error(layer, max(spare // cost, 0)))
    means = [round(float(np.mean(found)), 5) for found in (removed, alone, both)]
    return dict(zip(("removed", "basis_alone", "basis_both"), means, strict=True))


def _inner(study: Study) -> Iterator[tuple[str, LayerProblem, int]]:
    """Groups between two convolutions, with the consumer's problem and what the producer reads."""
    for group in study.groups:
        if len(group.consumers) == 1 == len(group.producers):
            producer = study.network.producers[group.producers[0]]
            (layer,) = study.layers[group.consumers[0]]
            window = study.views[group.consumers[0]].specs[0].window
            dense = window is not None and set(window.strides) == {1}
            if dense and producer.taps == layer.taps > 1:
                yield group.name, layer, producer.inputs


def basis_error(layer: LayerProblem, rank: int) -> float:
    """Relative error of a consumer that reads its input's principal components.

    Args:
        layer: the consumer.
        rank: how many components; without any, all of the variance is lost.
    """
    moments = standardise(layer.gram)
    covariance: Matrix = moments.correlation * np.outer(moments.scale, moments.scale)
    weight = layer.weight[:, :-1]
    total = quadratic(weight, covariance)
    if rank == 0:
        return 1.0
    size, taps = len(layer.channels), layer.taps
    cube = covariance.reshape(size, taps, size, taps)
    _, vectors = np.linalg.eigh(np.einsum("atbt->ab", cube))
    basis = np.kron(vectors[:, -rank:], np.eye(taps))
    own = basis.T @ covariance @ basis
    own[np.diag_indices_from(own)] *= 1 + RIDGE
    cross = weight @ covariance @ basis
    explained = float(np.vdot(np.linalg.solve(own, cross.T), cross.T))
    return max(total - explained, 0.0) / total
