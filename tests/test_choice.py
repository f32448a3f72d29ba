"""Counts under targets on costs and on damage, and what cannot be reached."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import MODELS, QUIET, Studied, convolutions, digits, studied

from onnxprune.allocation import ALLOCATIONS, Bound
from onnxprune.bounds import bounds_of
from onnxprune.choice import Choice, Chooser
from onnxprune.errors import TargetError
from onnxprune.options import Options
from onnxprune.sensitivity import LEVELS
from onnxprune.target import SAFE_ERROR, Target
from onnxprune.trials import JUDGED, MIN_TRIAL_SAMPLES, TRIAL_PASSES


@pytest.fixture(scope="module")
def mlp() -> Studied:
    return studied(onnx.load(MODELS / "mlp_digits.onnx"), {"input": digits()[:200]})


def chooser_of(known: Studied, options: Options | None = None) -> Chooser:
    fit, tune = known.batches(known.parts.fit), known.batches(known.parts.tune)
    return Chooser(known.study, fit, tune, options or known.options, QUIET)


def chosen(known: Studied, *targets: Target, options: Options | None = None) -> Choice:
    """Counts under targets on costs; without any, under one on the error."""
    chooser = chooser_of(known, options)
    sizes = known.study.sizes
    if targets and all(target.is_cost for target in targets):
        return chooser.under(bounds_of(targets, known.cost, sizes, known.study.channels, 75_530.0))
    macs = Bound("macs", known.cost.macs, 0.0, float(known.cost.macs(sizes)))
    gauges = chooser.gauges(targets or [Target("error", SAFE_ERROR)], None)
    found = chooser.within(gauges, macs, chooser.least(macs), 1.0)
    assert found is not None
    return found[1]


def macs_of(counts: dict[str, int]) -> int:
    """The digits' perceptron, 64-a-b-c-10, counted by hand."""
    a, b, c = counts.values()
    return 64 * a + a * b + b * c + c * 10


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_every_allocation_meets_several_targets(mlp, allocation):
    options = Options(allocation=allocation)
    counts = chosen(mlp, Target("macs", 0.4), Target("ratio", 0.5), options=options).counts
    assert macs_of(counts) <= 0.4 * macs_of({"a": 192, "b": 192, "c": 128})
    assert sum(counts.values()) <= 0.5 * 512
    for name, count in counts.items():
        assert count in mlp.study.allowed[name]
    tight = macs_of(counts) > 0.38 * 75_008 or sum(counts.values()) > 0.48 * 512
    assert tight, "more was cut than asked for"


def test_only_the_sensitivity_allocation_measures(mlp):
    assert chosen(mlp, Target("macs", 0.5), options=Options(allocation="uniform")).laws == {}
    assert set(chosen(mlp, Target("macs", 0.5)).laws) == {g.name for g in mlp.study.groups}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_an_unreachable_target_says_what_can_be_reached(mlp, allocation):
    options = Options(allocation=allocation)
    with pytest.raises(TargetError, match=r"the target macs = 0\.01 of the original") as caught:
        chosen(mlp, Target("macs", 0.01), options=options)
    least = macs_of({"a": 20, "b": 20, "c": 13}) / 75_008
    assert f"smallest reachable value is {least:.4g}" in str(caught.value)
    assert all(group.name in str(caught.value) for group in mlp.study.groups)


def test_an_unreachable_ratio_is_told_as_what_is_kept(mlp):
    with pytest.raises(TargetError, match=r"kept channels \(1 - ratio\) = 0.05 .* 0.1035"):
        chosen(mlp, Target("ratio", 0.95))


def test_a_target_above_the_model_cuts_nothing(mlp):
    counts = chosen(mlp, Target("macs", 1e9), options=Options(allocation="uniform")).counts
    assert list(counts.values()) == [192, 192, 128]


@pytest.mark.parametrize("allocation", ["sensitivity", "uniform"])
def test_under_a_bound_on_the_error_as_much_goes_as_it_allows(mlp, allocation):
    counts = chosen(mlp, options=Options(allocation=allocation)).counts
    (tried,) = chooser_of(mlp).trials.tried([counts])
    assert tried.relative_error <= SAFE_ERROR
    assert macs_of(counts) < 0.6 * 75_008


def test_more_than_that_would_not_be_within_the_bound(mlp):
    """Two hundredths fewer MACs than chosen are over the bound: the search found the edge."""
    counts = chosen(mlp).counts
    less = chosen(mlp, Target("macs", macs_of(counts) / 75_008 - 0.02)).counts
    (tried,) = chooser_of(mlp).trials.tried([less])
    assert tried.relative_error > SAFE_ERROR


def test_counts_that_may_not_fall_are_said():
    known = studied(convolutions(), options=Options(align=16))
    with pytest.raises(TargetError, match="no channel group may keep fewer channels"):
        chosen(known)


def test_a_small_prunable_part_is_pruned_as_well():
    """The one group that may be cut has under one part in a hundred of the MACs."""
    middle = (
        "r = Relu(c) d = Conv <strides=[8,8]> (r, w3) e = Relu(d)"
        ' g = Conv <group=1> (e, w4) f = Resize <mode="nearest"> (g, none, eights)'
        " h = Add(f, r)"
    )
    model = convolutions(
        middle,
        w1=(40, 3, 3, 3),
        b1=(40,),
        w2=(4, 40, 3, 3),
        w3=(4, 40, 1, 1),
        w4=np.full((40, 4, 1, 1), 1e-3, np.float32),
        none=np.zeros(0, np.float32),
        eights=np.array([1, 1, 8, 8], np.float32),
    )
    whole = studied(model)
    small = [g for g in whole.network.groups if g.size == 4]
    known = studied(model, groups=small)
    (count,) = chosen(known).counts.values()
    assert count == 1


def test_groups_that_were_not_chosen_stay_whole(mlp):
    known = studied(mlp.model, {"input": digits()[:100]}, groups=list(mlp.network.groups[:1]))
    counts = chosen(known, Target("macs", 0.7), options=Options(allocation="uniform")).counts
    assert set(counts) == {mlp.network.groups[0].name}
    assert macs_of({**counts, "b": 192, "c": 128}) <= 0.7 * 75_008


def test_trials_take_a_few_passes_over_the_samples_at_most(mlp):
    (tried,) = chooser_of(mlp).trials.tried([{}])
    taken = tried.distances[0].samples
    trials = len(LEVELS) * len(mlp.study.groups)
    assert taken <= JUDGED * max(MIN_TRIAL_SAMPLES, TRIAL_PASSES * 200 / trials)
    assert taken >= min(MIN_TRIAL_SAMPLES, mlp.parts.tune.size)


def test_trials_are_refitted_as_the_result_will_be(mlp):
    """In order, on the samples to fit on; one-shot where the options say so."""
    plan = {group.name: group.size // 4 for group in mlp.study.groups}
    (ordered,), (quick,) = (
        chooser_of(mlp, Options(sequential=sequential)).trials.tried([plan])
        for sequential in (True, False)
    )
    assert ordered.distances[0].divergence < quick.distances[0].divergence
