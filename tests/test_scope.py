"""What may be cut, and that hopeless targets are refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune import Target, prune
from onnxprune.allocation import Bound
from onnxprune.canonical import canonicalise
from onnxprune.errors import TargetError
from onnxprune.groups import find_groups
from onnxprune.model import load
from onnxprune.scope import Scope

MODELS = Path(__file__).resolve().parents[1] / "models"


@pytest.fixture
def scope() -> Scope:
    network = find_groups(canonicalise(load(MODELS / "mlp_digits.onnx")))
    return Scope.of(network, network.groups[1:], 1)


def test_the_groups_left_out_stay_whole(scope):
    total = Bound("channels", lambda counts: counts.sum(axis=-1), 0.0, float(scope.sizes.sum()))
    inner = scope.restricted(total)
    assert scope.places.tolist() == [1, 2]
    assert inner.cost(scope.sizes[1:]) == scope.sizes.sum()
    assert inner.cost(scope.floors) == scope.sizes[0] + scope.floors.sum()
    many = inner.cost(np.stack([scope.floors, scope.sizes[1:]]))
    assert many.tolist() == [scope.sizes[0] + scope.floors.sum(), scope.sizes.sum()]


def test_what_the_floors_cannot_reach_is_refused(scope):
    full = float(scope.sizes.sum())
    least = float(scope.sizes[0] + scope.floors.sum())
    costs = Bound("channels", lambda counts: counts.sum(axis=-1), least, full)
    scope.require_reachable([costs])
    with pytest.raises(TargetError, match="smallest reachable value"):
        scope.require_reachable([Bound("channels", costs.cost, least - 1, full)])


def test_no_sample_is_run_for_a_hopeless_target(monkeypatch):
    def run(*_: object, **__: object) -> None:
        pytest.fail("statistics were collected for a target that cannot be reached")

    monkeypatch.setattr("onnxprune.study.collect", run)
    with pytest.raises(TargetError, match="cannot be reached"):
        prune(MODELS / "mlp_digits.onnx", MODELS / "digits_calib.npz", Target("macs", 1e-4))
