"""Random weights to start from."""

from __future__ import annotations

import numpy as np
import pytest
from micro_models import SCORES, build

torch = pytest.importorskip("torch")

from onnxprune.train.initialisation import start_anew  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402

NODES = """c = Conv (x, w1, b1) n = BatchNormalization (c, s, t, m, v) r = Relu (n)
p = GlobalAveragePool (r) f = Flatten (p) g = Gemm <transB=1> (f, w2) a = MatMul (g, w3)
e = Gather (table, i) q = Mul (a, scale) z = Add (q, e) y = Gemm (z, w4, b4)"""
WEIGHTS = {
    "w1": (64, 3, 3, 3), "b1": (64,), "s": (64,), "t": (64,), "m": (64,), "v": (64,),
    "w2": (96, 64), "w3": (96, 80), "table": (30, 80), "scale": (80,), "w4": (80, 5), "b4": (5,),
}  # fmt: skip


def network(seed: int = 0) -> TrainableNetwork:
    inputs = "float[N,3,8,8] x, int64[N] i"
    result = TrainableNetwork(build(NODES, WEIGHTS, inputs=inputs, outputs=SCORES))
    start_anew(result, seed)
    return result


def test_matrices_have_the_variance_of_he_and_vectors_do_nothing() -> None:
    weights = {name: weight.detach() for name, weight in network().weights.items()}
    for name, inputs in (("w1", 27), ("w2", 64), ("w3", 96), ("w4", 80)):
        assert float(weights[name].std()) == pytest.approx(np.sqrt(2 / inputs), rel=0.1), name
        assert abs(float(weights[name].mean())) < 0.02
    assert float(weights["table"].std()) == pytest.approx(0.02, rel=0.1)
    for name, value in (("s", 1), ("scale", 1), ("t", 0), ("b1", 0), ("b4", 0)):
        assert bool((weights[name] == value).all()), name


def test_running_statistics_start_anew() -> None:
    found = network().statistics
    assert bool((found["m"] == 0).all())
    assert bool((found["v"] == 1).all())


def test_the_seed_decides() -> None:
    first, again, other = (network(seed).weights["w2"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
