"""Damage laws come from trial prunings and tell sensitive groups from others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_networks import Studied, convolutions, perceptron, studied, tried_by

from onnxprune.allocation import fit_damage
from onnxprune.options import Options
from onnxprune.sensitivity import LEVELS, measure_sensitivity, trial_counts


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
    laws = measure_sensitivity(known.study, tried_by(known))
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
    trials = tried_by(known)
    (group,) = known.study.groups
    law = measure_sensitivity(known.study, trials)[group.name]
    error = known.study.rankings[group.name].error
    measured, predicted = [], []
    for count in trial_counts(known.study.allowed[group.name]):
        (tried,) = trials.tried([{group.name: count}])
        measured.append(tried.divergence)
        predicted.append(float(law(error[[count]])[0]))
    assert measured == sorted(measured)
    misses = np.log(measured) - np.log(predicted)
    assert np.sqrt(np.mean(misses**2)) == pytest.approx(law.residual, abs=1e-9)
    assert law.residual < 0.5


def test_every_group_has_the_law_of_its_own_trials():
    """Measured together, each group's are those of it alone, whole groups among them."""
    known = two_branches(0.5)
    whole = known.study.groups[1].name
    allowed = dict(known.study.allowed)
    allowed[whole] = allowed[whole][-1:]
    study, trials = replace(known.study, allowed=allowed), tried_by(known)
    laws = measure_sensitivity(study, trials)
    assert list(laws) == [group.name for group in study.groups]
    for name, law in laws.items():
        counts = trial_counts(allowed[name])
        damage = [trials.tried([{name: count}])[0].divergence for count in counts]
        error = study.rankings[name].error
        if name == whole:
            assert law(error).tolist() == [0.0] * len(error)
        else:
            assert law == fit_damage([float(error[count]) for count in counts], damage)
    assert len({law(np.array([0.1])).item() for law in laws.values()}) == len(laws)


def test_a_group_that_may_not_be_cut_has_no_damage():
    known = studied(perceptron(), options=Options(align=16))
    (group,) = known.study.groups
    law = measure_sensitivity(known.study, tried_by(known))[group.name]
    assert law(np.array([0.5])).tolist() == [0.0]


def test_trying_full_counts_is_no_change():
    known = studied(perceptron())
    (group,) = known.study.groups
    (tried,) = tried_by(known).tried([{group.name: group.size}])
    assert tried.relative_error == 0


def test_trials_without_recovery_are_worse():
    errors = {}
    for recovery in (True, False):
        known = studied(convolutions(), options=Options(recovery=recovery))
        (group,) = known.study.groups
        (tried,) = tried_by(known).tried([{group.name: group.size // 2}])
        errors[recovery] = tried.relative_error
    assert errors[True] < errors[False]
