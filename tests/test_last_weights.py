"""The weights that a section ends in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from gated_networks import torch
from micro_sections import RESIDUALS
from onnx import numpy_helper
from oracles import Subject, outputs_match, tolerance
from test_section_cut import MODELS, NORMALISED, normalised

from onnxprune.train.gated_sections import gated_sections
from onnxprune.train.last_weights import LastWeights, last_weights
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.section_cut import without_sections

assert torch


def last_of(model: onnx.ModelProto) -> list[LastWeights]:
    network = TrainableNetwork(model)
    return [last_weights(network, section) for section in gated_sections(model).found]


def test_the_last_weights_end_at_the_last_layers() -> None:
    normal = normalised(MODELS["post-activation"](), 0)
    (section,) = last_of(normal)
    assert section.every == ("f.scale", "f.shift", "w4", "b4")
    assert section.outermost == ("f.scale", "f.shift")
    (plain,) = last_of(MODELS["layer scale"]())
    assert (plain.every, plain.outermost) == (("scale", "b2", "w2"),) * 2
    (divided,) = last_of(MODELS["scaled and shifted"]())
    assert divided.every == ("few", "scale", "w4", "b4")


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_branch_vanishes_with_its_last_weights(name: str) -> None:
    rng = np.random.default_rng(0)
    base = MODELS[name]()
    model = normalised(base, 0) if name in NORMALISED else base
    limit = tolerance(Subject(model).network)
    for section, last in zip(gated_sections(model).found, last_of(model), strict=True):
        for chosen in (last.every, last.outermost):
            zeroed = onnx.ModelProto.FromString(model.SerializeToString())
            for tensor in zeroed.graph.initializer:
                if tensor.name in chosen:
                    zeros = np.zeros_like(numpy_helper.to_array(tensor))
                    tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
            outputs_match(zeroed, without_sections(model, [section]), limit, rng)
