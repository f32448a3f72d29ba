"""Moments of channels without any data: noise through a network whose BatchNorms are re-estimated.

A BatchNormalization states that its outputs had mean beta and deviation |gamma| on real data. With
the stored mean and variance replaced by those that noise has there, layer after layer, every
pre-activation has these first two moments again; correlations between channels are those that the
weights give noise. (Derived here.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import helper, numpy_helper

import onnxprune.study
from onnxprune import Options, Pruner, canonicalise
from onnxprune.arrays import Array
from onnxprune.bounds import bounds_of
from onnxprune.choice import allocate, unexplained_of
from onnxprune.finishing import plan_of
from onnxprune.recovery import Recovery
from onnxprune.refit import refit
from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.study import Study, observed
from onnxprune.target import Target

ESTIMATED_ON = 256
"""Images of noise that means and variances are taken of."""

CHANNELS_ALIKE = 0.9
"""Correlation of the colours in smooth noise."""

Noise = Callable[[Sequence[int], int], Array]
"""Inputs by their shape (n, channels, height, width) and a seed."""


def white(shape: Sequence[int], seed: int) -> Array:
    """Independent normal values, float32."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def smooth(shape: Sequence[int], seed: int) -> Array:
    """Normal values with amplitudes falling as 1 / f, as those of photographs do, float32.

    Colours are correlated, every channel has mean 0 and variance 1 over all images.
    """
    height, width = shape[2:]
    grey, colours = white((shape[0], 1, height, width), seed), white(shape, seed + 1)
    mixed = np.sqrt(CHANNELS_ALIKE) * grey + np.sqrt(1 - CHANNELS_ALIKE) * colours
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    spectrum = np.fft.rfft2(mixed) / frequency
    images = np.fft.irfft2(spectrum, (height, width)).reshape(shape)
    moments = {"axis": (0, 2, 3), "keepdims": True}
    scaled = (images - images.mean(**moments)) / images.std(**moments)
    return scaled.astype(np.float32)


def re_estimated(model: onnx.ModelProto, inputs: Array) -> onnx.ModelProto:
    """The model with every BatchNorm's mean and variance replaced by those of these inputs.

    Args:
        model: a model of one input whose BatchNorms have statistics of their own.
        inputs: one batch.

    Raises:
        ValueError: the model has no BatchNorm.
    """
    probe, result = onnx.ModelProto(), onnx.ModelProto()
    probe.CopyFrom(model)
    result.CopyFrom(model)
    norms = [node for node in probe.graph.node if node.op_type == "BatchNormalization"]
    if not norms:
        raise ValueError("the model has no BatchNormalization whose statistics could be replaced")
    for node in norms:
        _use_batch_moments(node)
    wanted = [name for node in norms for name in node.output[1:]]
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None]) for name in wanted
    )
    found = Session(probe, threads=1).run({model.graph.input[0].name: inputs}, wanted)
    stored = [name for node in norms for name in node.input[3:]]
    values = dict(zip(stored, found, strict=True))
    for tensor in result.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    return result


def _use_batch_moments(node: onnx.NodeProto) -> None:
    """Make a BatchNorm normalise by the batch it sees, and put its mean and variance out."""
    given = [a for a in node.attribute if a.name not in ("training_mode", "momentum")]
    del node.attribute[:]
    node.attribute.extend(given)
    node.attribute.append(helper.make_attribute("training_mode", 1))
    node.attribute.append(helper.make_attribute("momentum", 0.0))  # nothing of what is stored
    node.output.extend(f"{node.output[0]}/{moment}" for moment in ("mean", "variance"))


def study_of(
    model: onnx.ModelProto, options: Options, inputs: Array, stand_in: onnx.ModelProto | None
) -> tuple[Pruner, Study]:
    """What is learnt of a model from the moments that another one has on these inputs.

    Args:
        model: the model; weights are its own.
        options: settings.
        inputs: what both read.
        stand_in: the same graph with other statistics in its BatchNorms; None for the model itself.
    """
    source = None if stand_in is None else canonicalise(stand_in)

    def elsewhere(canonical: onnx.ModelProto, *rest: Any) -> Any:
        return observed(source or canonical, *rest)

    pruner = Pruner(model, {model.graph.input[0].name: inputs}, options)
    with mock.patch.object(onnxprune.study, "observed", elsewhere):
        return pruner, pruner._ground.study


def counts_of(pruner: Pruner, known: Study, options: Options, fraction: float) -> dict[str, int]:
    """Channels kept for a fraction of the MACs, by an allocation that makes no trials."""
    target = [Target("macs", fraction)]
    bounds = bounds_of(target, pruner._ground.cost, known.sizes, known.places, 1)
    allocation = options.composition.allocation
    return allocate(known, bounds, allocation, {}, unexplained_of(known, options))


def finished(
    model: onnx.ModelProto, known: Study, counts: Mapping[str, int], recovery: Recovery
) -> onnx.ModelProto:
    """The model with these channels, its consumers recovered in one shot."""
    alive = known.survivors(known.keeps(counts))
    prior = refit(known.views, known.layers, alive, recovery, known.contractions)
    return apply(model, plan_of(model, known, counts), prior.weights)
