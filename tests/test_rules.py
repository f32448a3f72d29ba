"""Every rule: slicing equals masking, on the micro models with random keeps."""

from __future__ import annotations

import functools
import zlib

import numpy as np
import onnx
import pytest
from micro_models import MICRO_MODELS
from onnx import parser
from oracles import (
    Subject,
    float_elements,
    masked,
    outputs_match,
    random_keeps,
    random_recovery,
    scattered,
    structure_ok,
    tolerance,
    weights_of,
)

from onnxprune.groups import FROZEN, find_groups
from onnxprune.canonical import canonicalise
from onnxprune.rewrite import apply
from onnxprune.rules import registered
from onnxprune.rules.registry import fixup, rule


@functools.cache
def subject(name: str) -> Subject:
    return Subject(MICRO_MODELS[name]())


@pytest.mark.parametrize("name", MICRO_MODELS)
def test_slicing_equals_masking(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = subject(name)
    fewest = random_keeps(micro.network, rng, 0.0)
    for keeps in (random_keeps(micro.network, rng), random_keeps(micro.network, rng), fewest):
        pruned = apply(micro.model, micro.plan(keeps))
        structure_ok(pruned, micro.model)
        reference = masked(micro, micro.alive(keeps))
        outputs_match(pruned, reference, tolerance(micro.network), rng)
    assert float_elements(pruned) < float_elements(micro.canonical)


@pytest.mark.parametrize("name", MICRO_MODELS)
def test_recovered_weights_equal_scattered_ones(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = subject(name)
    keeps = random_keeps(micro.network, rng)
    recovered = random_recovery(micro, micro.alive(keeps), rng)
    pruned = apply(micro.model, micro.plan(keeps), weights_of(recovered))
    structure_ok(pruned, micro.model)
    reference = scattered(micro, micro.alive(keeps), recovered)
    outputs_match(pruned, reference, tolerance(micro.network), rng)
