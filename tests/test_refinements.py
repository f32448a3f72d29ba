"""The ways of finishing a plan that are compared with the package's make models of its counts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

from curve_methods import macs_of
from refinements import VARIANTS, Bench
from trained import SHARED

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} holds the networks and images"),
]


@pytest.fixture(scope="module")
def bench():
    return Bench("resnet8_large_cifar10", np.arange(60))


def halves(bench):
    return bench.study.keeps({group.name: group.size // 2 for group in bench.study.groups})


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "swaps"])
def test_every_variant_makes_a_model_of_the_same_size(bench, variant):
    keeps = [halves(bench)]
    (base,) = VARIANTS["base"](bench, keeps)
    (made,) = VARIANTS[variant](bench, keeps)
    assert macs_of(made) == macs_of(base) < macs_of(bench.model)
