"""Allocation: bounds hold, damage is near the optimum, unreachable targets say why."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.allocation import ALLOCATIONS, Bound, GroupChoice, Sensitivity, fit_damage
from onnxprune.errors import TargetError


def macs(counts: np.ndarray) -> np.ndarray:
    """A chain: 3 inputs, the groups, 10 outputs."""
    counts = np.asarray(counts, dtype=float)
    edge = (*counts.shape[:-1], 1)
    widths = np.concatenate([np.full(edge, 3.0), counts, np.full(edge, 10.0)], axis=-1)
    position = 1.0 + np.arange(widths.shape[-1] - 1) % 3
    return np.sum(widths[..., :-1] * widths[..., 1:] * position, axis=-1)


def params(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, dtype=float)
    return np.sum(counts[..., :-1] * counts[..., 1:], axis=-1) + 7 * counts.sum(axis=-1)


def chain(rng: np.random.Generator, length: int, levels: int) -> list[GroupChoice]:
    """Groups with random allowed counts; half of the damage curves have random steps."""
    groups = []
    for position in range(length):
        full = int(rng.integers(8, 65))
        lower = rng.choice(np.arange(1, full), min(levels, full) - 1, replace=False)
        allowed = np.sort(np.append(lower, full)).astype(np.int64)
        damage = rng.uniform(0.1, 10) * (1 - allowed / full) ** rng.uniform(0.5, 3)
        if rng.random() < 0.5:
            steps = rng.exponential(size=len(lower)) * rng.choice([0.1, 1, 5], len(lower))
            damage = np.append(np.cumsum(steps)[::-1], 0.0)
        error = np.sqrt(damage / damage[0]) if damage[0] > 0 else damage
        unexplained = np.append(np.sort(rng.random(len(lower)))[::-1], 0.0)
        groups.append(GroupChoice(f"group{position}", allowed, damage, error, unexplained))
    return groups


def full_of(groups: list[GroupChoice]) -> np.ndarray:
    return np.array([group.allowed[-1] for group in groups])


def bounds_between(
    groups: list[GroupChoice], shares: dict[str, float]
) -> tuple[list[Bound], np.ndarray]:
    """Bounds at a share of the way from the floors to the full network."""
    full = full_of(groups)
    floors = np.array([group.allowed[0] for group in groups])
    bounds = []
    for name, share in shares.items():
        cost = {"macs": macs, "params": params}[name]
        least, most = float(cost(floors)), float(cost(full))
        bounds.append(Bound(name, cost, least + share * (most - least), most))
    return bounds, full


def damage_of(groups: list[GroupChoice], counts: np.ndarray) -> float:
    return sum(
        float(group.damage[np.flatnonzero(group.allowed == count)[0]])
        for group, count in zip(groups, counts, strict=True)
    )


@pytest.mark.parametrize("name", list(ALLOCATIONS))
@given(
    length=st.integers(1, 6),
    levels=st.integers(1, 9),
    share=st.floats(0, 1),
    other=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None)
def test_all_bounds_hold_and_counts_are_allowed(name, length, levels, share, other, seed):
    groups = chain(np.random.default_rng(seed), length, levels)
    bounds, _ = bounds_between(groups, {"macs": share, "params": other})
    counts = ALLOCATIONS[name].allocate(groups, bounds)
    assert counts.dtype == np.int64
    for group, count in zip(groups, counts, strict=True):
        assert count in group.allowed
    for bound in bounds:
        assert bound.cost(counts) <= bound.limit


@pytest.mark.parametrize("name", list(ALLOCATIONS))
def test_bounds_already_met_keep_everything(name):
    groups = chain(np.random.default_rng(1), 4, 5)
    bounds, full = bounds_between(groups, {"macs": 1.0, "params": 1.0})
    np.testing.assert_array_equal(ALLOCATIONS[name].allocate(groups, bounds), full)
    np.testing.assert_array_equal(ALLOCATIONS[name].allocate(groups, []), full)


def test_sensitivity_is_near_the_brute_force_optimum():
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(60):
        groups = chain(rng, int(rng.integers(2, 5)), int(rng.integers(2, 7)))
        shares = {"macs": rng.uniform(0.05, 0.9), "params": rng.uniform(0.05, 0.9)}
        bounds, _ = bounds_between(groups, shares)
        table = np.array(list(itertools.product(*[group.allowed for group in groups])))
        fits = np.all([bound.cost(table) <= bound.limit for bound in bounds], axis=0)
        damages = np.array([sum(d) for d in itertools.product(*[g.damage for g in groups])])
        best = float(damages[fits].min())
        found = damage_of(groups, Sensitivity().allocate(groups, bounds))
        gaps.append(found / best - 1 if best > 0 else found)
    assert max(gaps) < 0.05
    assert np.mean(gaps) < 0.005


def test_a_flat_start_of_a_curve_does_not_trap_the_descent():
    """Dropping the first channel is dear, dropping all of them hardly dearer."""
    allowed = np.arange(1, 11)
    cliff = GroupChoice("cliff", allowed, np.append(np.linspace(1.1, 1.0, 9), 0.0), allowed * 0.0)
    smooth = GroupChoice("smooth", allowed, np.linspace(9, 0, 10), allowed * 0.0)
    total = Bound("channels", lambda c: np.sum(c, axis=-1).astype(float), 11.0, 20.0)
    np.testing.assert_array_equal(Sensitivity().allocate([cliff, smooth], [total]), [1, 10])


def test_equal_error_levels_are_equal():
    groups = [
        GroupChoice("a", np.array([1, 2, 3]), np.zeros(3), np.array([0.5, 0.2, 0.0])),
        GroupChoice("b", np.array([4, 6, 8]), np.zeros(3), np.array([0.3, 0.1, 0.0])),
    ]
    total = Bound("channels", lambda c: np.sum(c, axis=-1).astype(float), 8.0, 11.0)
    np.testing.assert_array_equal(ALLOCATIONS["error"].allocate(groups, [total]), [2, 6])


def cut_at(groups: list[GroupChoice], p: float) -> list[int]:
    """The rule itself: unit i is kept if v_i, which i - 1 kept units leave, is at least p."""
    return [
        1 + sum(bool(v >= p) for v in group.unexplained[:-1])  # the first unit has v = 1
        for group in groups
        if group.unexplained is not None
    ]


@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_one_cut_off_serves_all_groups_and_is_the_lowest_that_will_do(seed, share):
    rng = np.random.default_rng(seed)
    groups = []
    for name, size in zip("abc", rng.integers(2, 9, 3), strict=True):
        curve = np.append(np.sort(rng.random(size - 1))[::-1], 0.0)
        groups.append(GroupChoice(name, np.arange(1, size + 1), np.zeros(size), curve * 0, curve))
    bounds, full = bounds_between(groups, {"macs": share})
    counts = ALLOCATIONS["cumvar"].allocate(groups, bounds)
    occurring = np.concatenate([group.unexplained for group in groups])
    cut_offs = np.unique(np.append(occurring + 1e-12, 0.0))
    reachable = [cut_at(groups, p) for p in cut_offs]
    assert counts.tolist() in reachable
    step = reachable.index(counts.tolist())
    assert step == 0 or float(bounds[0].cost(np.array(reachable[step - 1]))) > bounds[0].limit
    assert bounds[0].cost(full) > bounds[0].limit or step == 0


def test_a_cut_off_needs_what_counts_leave_unexplained():
    group = GroupChoice("a", np.array([1, 2]), np.array([1.0, 0.0]), np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="needs what counts leave unexplained"):
        ALLOCATIONS["cumvar"].allocate([group], [])


def test_uniform_takes_the_largest_fraction_that_fits():
    groups = [
        GroupChoice(str(full), np.arange(1, full + 1), np.zeros(full), np.zeros(full))
        for full in (10, 20, 40)
    ]
    total = Bound("channels", lambda c: np.sum(c, axis=-1).astype(float), 36.0, 70.0)
    counts = ALLOCATIONS["uniform"].allocate(groups, [total])
    assert counts.sum() in (35, 36)
    np.testing.assert_allclose(counts / [10, 20, 40], 0.5, atol=0.05)


@pytest.mark.parametrize("name", list(ALLOCATIONS))
def test_unreachable_target_says_what_is_reachable_and_what_holds_it_back(name):
    groups = chain(np.random.default_rng(2), 4, 5)
    full = full_of(groups)
    floors = np.array([group.allowed[0] for group in groups])
    bound = Bound("macs", macs, 0.5 * float(macs(floors)), float(macs(full)))
    with pytest.raises(TargetError) as caught:
        ALLOCATIONS[name].allocate(groups, [bound])
    message = str(caught.value)
    assert "macs" in message
    assert f"{macs(floors) / macs(full):.4g}" in message
    assert sum(group.name in message for group in groups) >= 1
    assert "%" in message
    assert "Exclude fewer groups" in message


@pytest.mark.parametrize(("constant", "most"), [(0.0, "passes"), (1e6, "depends on no channel")])
def test_an_unreachable_target_does_not_blame_groups_for_what_is_constant(constant, most):
    groups = chain(np.random.default_rng(2), 4, 5)
    bound = Bound("latency", lambda c: macs(c) + constant, 1.0, float(macs(full_of(groups))))
    with pytest.raises(TargetError, match=f"most of what is left {most}"):
        Sensitivity().allocate(groups, [bound])


def test_without_groups_a_target_is_unreachable_and_none_is_fine():
    bound = Bound("macs", lambda c: np.full(np.shape(c)[:-1], 5.0), 4.0, 5.0)
    with pytest.raises(TargetError, match="No channel group"):
        Sensitivity().allocate([], [bound])
    assert Sensitivity().allocate([], []).shape == (0,)


def test_a_large_network_is_fast():
    rng = np.random.default_rng(3)
    allowed = np.arange(8, 520, 8)
    curves = [rng.uniform(0.1, 10) * (1 - allowed / 512) ** rng.uniform(0.5, 3) for _ in range(60)]
    groups = [GroupChoice(f"g{i}", allowed, curve, curve) for i, curve in enumerate(curves)]
    bounds, _ = bounds_between(groups, {"macs": 0.5, "params": 0.4})
    start = time.perf_counter()
    counts = Sensitivity().allocate(groups, bounds)
    assert time.perf_counter() - start < 10  # 0.4 s alone on a core; shared machines are slower
    uniform = ALLOCATIONS["uniform"].allocate(groups, bounds)
    assert damage_of(groups, counts) < damage_of(groups, uniform)


@given(st.floats(0.6, 2.4), st.floats(1e-3, 1e3), st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_fit_damage_finds_a_power_law(exponent, factor, points):
    errors = np.linspace(0.1, 0.5, points)
    law = fit_damage(list(errors), list(factor * errors**exponent))
    np.testing.assert_allclose([law.a, law.b], [factor, exponent], rtol=1e-9)
    assert law.residual < 1e-9
    np.testing.assert_allclose(law(errors), factor * errors**exponent, rtol=1e-9)
    assert law(np.zeros(1))[0] == 0


def test_fit_damage_is_robust():
    one = fit_damage([0.25], [0.5])
    assert (one.b, one.a, one.residual) == (1.0, pytest.approx(2.0), 0.0)
    assert fit_damage([0.2, 0.2], [0.1, 0.2]).b == 1.0
    steep = fit_damage([0.1, 0.2], [-1e-9, 1.0])
    assert steep.b == 2.5
    assert np.isfinite(steep.a)
    assert fit_damage([0.1, 0.2], [1.0, 0.9]).b == 0.5
    assert fit_damage([0.0, 0.0], [0.0, -1.0]).a >= 0
    with pytest.raises(ValueError, match="at least one"):
        fit_damage([], [])
