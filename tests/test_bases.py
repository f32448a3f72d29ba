"""Convolutions in basis filters: exact at full rank, the best there is below."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from bases import in_bases, of_outputs, of_weights, ranks_under  # noqa: E402
from curve_methods import macs_of  # noqa: E402

from onnxprune import canonicalise  # noqa: E402
from onnxprune.arrays import Array  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402

SHAPE = (3, 8, 8)
IMAGES = 200


def network(nodes: str, weights: dict[str, tuple[int, ...]], outputs: str) -> onnx.ModelProto:
    return canonicalise(build(nodes, weights, outputs=outputs))


@pytest.fixture
def single() -> onnx.ModelProto:
    weights = {"w": (12, 3, 3, 3), "b": (12,)}
    return network("y = Conv <strides=[3,3]> (x, w, b)", weights, "float[N,12,2,2] y")


@pytest.fixture
def chain() -> onnx.ModelProto:
    return network(
        "c = Conv <pads=[1,1,1,1]> (x, w1, b1) h = Relu(c) y = Conv (h, w2)",
        {"w1": (16, 3, 3, 3), "b1": (16,), "w2": (8, 16, 3, 3)},
        "float[N,8,6,6] y",
    )


@pytest.fixture
def images(rng: np.random.Generator) -> Array:
    """Neighbours alike, and not of mean 0: what no weights know of."""
    smooth = rng.standard_normal((IMAGES, 3, 8, 8)).cumsum(axis=3)
    return (1.0 + smooth).astype(np.float32)


def run(model: onnx.ModelProto, images: Array) -> Array:
    return Session(model).run({"x": images})[0].astype(np.float64)


def test_a_full_basis_changes_nothing(chain: onnx.ModelProto, images: Array) -> None:
    for bases in (of_weights(chain, (1, *SHAPE)), of_outputs(chain, images)):
        made = in_bases(chain, bases, {basis.name: len(basis.vectors) for basis in bases})
        assert [node.op_type for node in made.graph.node].count("Conv") == 4
        np.testing.assert_allclose(run(made, images), run(chain, images), rtol=1e-3, atol=1e-3)


def test_the_error_is_the_variance_that_is_left_unexplained(
    single: onnx.ModelProto, images: Array
) -> None:
    """Seen by squaring the difference of the outputs; no other basis does better."""
    (basis,) = of_outputs(single, images)
    (other,) = of_weights(single, (1, *SHAPE))
    y = run(single, images)  # of 4 positions, which all are looked at
    variance = float(np.sum(y.var(axis=(0, 2, 3))))
    for rank in (2, 5, 9):
        errors = []
        for own in (basis, other):
            change = run(in_bases(single, [own], {own.name: rank}), images) - y
            errors.append(float(np.mean(np.sum(change**2, axis=1))))
        assert errors[0] == pytest.approx(basis.unexplained[rank] * variance, rel=1e-2)
        assert errors[0] < errors[1]


def test_means_stay_whatever_the_rank(single: onnx.ModelProto, images: Array) -> None:
    bases, y = of_outputs(single, images), run(single, images)
    made = run(in_bases(single, bases, {bases[0].name: 1}), images)
    np.testing.assert_allclose(made.mean(axis=(0, 2, 3)), y.mean(axis=(0, 2, 3)), atol=1e-2)
    without = run(in_bases(single, of_weights(single, (1, *SHAPE)), {bases[0].name: 1}), images)
    assert np.abs(without.mean(axis=(0, 2, 3)) - y.mean(axis=(0, 2, 3))).max() > 0.1


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.2])
def test_the_limit_holds_and_is_used(
    chain: onnx.ModelProto, images: Array, fraction: float
) -> None:
    bases, full = of_outputs(chain, images), macs_of(chain)
    ranks = ranks_under(bases, full, fraction * full)
    left = macs_of(in_bases(chain, bases, ranks))
    assert left <= fraction * full
    assert left > (fraction - 0.15) * full


def test_ranks_are_multiples(chain: onnx.ModelProto, images: Array) -> None:
    full = macs_of(chain)
    ranks = ranks_under(of_outputs(chain, images), full, 0.7 * full, step=4)
    assert ranks
    assert all(rank % 4 == 0 for rank in ranks.values())


def test_a_limit_out_of_reach_is_refused(chain: onnx.ModelProto, images: Array) -> None:
    with pytest.raises(ValueError, match="the lowest ranks leave"):
        ranks_under(of_outputs(chain, images), macs_of(chain), 1.0)
