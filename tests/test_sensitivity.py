"""Damage laws come from trial prunings and tell sensitive groups from others."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import QUIET, Studied, convolutions, perceptron, studied

from onnxprune.options import Options
from onnxprune.sensitivity import LEVELS, measure_sensitivity, trial_counts, try_counts
from onnxprune.trials import TrialNetwork


@pytest.mark.parametrize(
    ("allowed", "counts"),
    [
        (range(2, 21), [15, 8, 3]),
        (range(10, 101), [75, 40, 15]),
        ([4, 8], [4]),
        ([8, 16, 24, 32], [24, 16, 8]),
        ([1, 2], [1]),
        ([7], []),
        ([3, 30, 40], [30, 3]),
    ],
)
def test_trials_are_near_their_levels(allowed, counts):
    found = trial_counts(np.array(list(allowed)))
    assert found == counts
    assert len(found) <= len(LEVELS)
    assert list(allowed)[-1] not in found


def trials(known: Studied) -> TrialNetwork:
    return TrialNetwork(known.study.canonical, known.batches(), QUIET)


def two_branches(weight: float) -> Studied:
    """Two branches of equal make, the second one's maps multiplied by ``weight``."""
    middle = (
        "r = Relu(c) d = Conv <pads=[1,1,1,1]> (x, w4) s = Relu(d)"
        " p = Conv <pads=[1,1,1,1]> (r, w3) q = Conv <pads=[1,1,1,1]> (s, w5)"
        " t = Mul(q, scale) h = Add(p, t)"
    )
    shapes = {"w3": (8, 8, 3, 3), "w4": (8, 3, 3, 3), "w5": (8, 8, 3, 3)}
    model = convolutions(middle, **shapes, scale=np.array([weight], np.float32))
    return studied(model, options=Options(align=1))


def test_the_branch_that_matters_less_is_damaged_less():
    known = two_branches(0.01)
    laws = measure_sensitivity(known.study, trials(known))
    error = {name: ranking.error for name, ranking in known.study.rankings.items()}
    names = {g.consumers: g.name for g in known.study.groups}
    loud = next(
        n for c, n in names.items() if known.network.consumers[c[0]].node.inputs[1].name == "w3"
    )
    quiet = next(
        n for c, n in names.items() if known.network.consumers[c[0]].node.inputs[1].name == "w5"
    )
    damage = {n: float(laws[n](error[n][[4]])[0]) for n in (loud, quiet)}
    assert damage[loud] > 100 * damage[quiet] > 0


def test_laws_follow_the_measurements():
    known = studied(convolutions(), options=Options(align=1))
    network = trials(known)
    (group,) = known.study.groups
    law = measure_sensitivity(known.study, network)[group.name]
    error = known.study.rankings[group.name].error
    measured, predicted = [], []
    for count in trial_counts(known.study.allowed[group.name]):
        (distance,) = try_counts(known.study, network, {group.name: count})
        measured.append(distance.divergence)
        predicted.append(float(law(error[[count]])[0]))
    assert measured == sorted(measured)
    misses = np.log(measured) - np.log(predicted)
    assert np.sqrt(np.mean(misses**2)) == pytest.approx(law.residual, abs=1e-9)
    assert law.residual < 0.5


def test_a_group_that_may_not_be_cut_has_no_damage():
    known = studied(perceptron(), options=Options(align=16))
    (group,) = known.study.groups
    law = measure_sensitivity(known.study, trials(known))[group.name]
    assert law(np.array([0.5])).tolist() == [0.0]


def test_trying_full_counts_is_no_change():
    known = studied(perceptron())
    (group,) = known.study.groups
    (distance,) = try_counts(known.study, trials(known), {group.name: group.size})
    assert distance.relative_error == 0


def test_trials_without_recovery_are_worse():
    errors = {}
    for recovery in (True, False):
        known = studied(convolutions(), options=Options(recovery=recovery))
        (group,) = known.study.groups
        (distance,) = try_counts(known.study, trials(known), {group.name: group.size // 2})
        errors[recovery] = distance.relative_error
    assert errors[True] < errors[False]
