"""The search under costs that go in steps: every price is a real one, and steps are used up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.allocation import Bound, GroupChoice, Sensitivity
from onnxprune.budget import cost_steps

BLOCK = 8


def ceiled(counts: np.ndarray) -> np.ndarray:
    return np.ceil(np.asarray(counts, float) / BLOCK)


def time_of_chain(counts: np.ndarray) -> np.ndarray:
    """Layers between neighbours, in whole blocks, and what each call costs."""
    blocks = ceiled(counts)
    edge = np.ones((*blocks.shape[:-1], 1))
    widths = np.concatenate([edge, blocks, edge], axis=-1)
    return 0.3 + np.sum(widths[..., :-1] * widths[..., 1:], axis=-1)


def time_of_concat(counts: np.ndarray) -> np.ndarray:
    """One layer that reads all groups side by side: only their sum is in whole blocks."""
    return 0.1 + ceiled(np.sum(counts, axis=-1))


def time_of_two_ways(counts: np.ndarray) -> np.ndarray:
    """Ways side by side on two cores, the slower one counts, then a layer that reads them all."""
    slower = ceiled(np.max(counts, axis=-1))
    return 0.2 + slower + np.ceil(np.sum(counts, axis=-1) / (2 * BLOCK))


def channels(counts: np.ndarray) -> np.ndarray:
    return np.sum(np.asarray(counts, float), axis=-1)


def groups_of(rng: np.random.Generator, length: int, most: int) -> list[GroupChoice]:
    groups = []
    for position in range(length):
        full = int(rng.integers(most // 2, most + 1))
        allowed = np.arange(max(1, full // 10), full + 1, max(1, full // 12))
        allowed = np.unique(np.append(allowed, full))
        steps = rng.exponential(size=allowed.size - 1) * rng.choice([0.1, 1, 3], allowed.size - 1)
        damage = np.append(np.cumsum(steps)[::-1], 0.0)
        groups.append(GroupChoice(f"group{position}", allowed, damage, damage))
    return groups


def damage_of(groups: list[GroupChoice], counts: np.ndarray) -> float:
    return sum(
        float(group.damage[np.flatnonzero(group.allowed == count)[0]])
        for group, count in zip(groups, counts, strict=True)
    )


def best_damage(groups: list[GroupChoice], bounds: list[Bound]) -> float:
    table = np.array(list(itertools.product(*[group.allowed for group in groups])))
    fits = np.all([bound.cost(table) <= bound.limit for bound in bounds], axis=0)
    damages = np.array([sum(d) for d in itertools.product(*[g.damage for g in groups])])
    return float(damages[fits].min())


def bound_at(name: str, cost, groups: list[GroupChoice], share: float, **kind: bool) -> Bound:
    least = float(cost(np.array([g.allowed[0] for g in groups])))
    most = float(cost(np.array([g.allowed[-1] for g in groups])))
    return Bound(name, cost, least + share * (most - least), most, **kind)


@pytest.mark.parametrize("cost", [time_of_chain, time_of_concat, time_of_two_ways])
@pytest.mark.parametrize("also_channels", [False, True])
def test_the_search_is_near_the_brute_force_optimum(cost, also_channels):
    rng = np.random.default_rng(11)
    gaps = []
    for _ in range(40):
        groups = groups_of(rng, int(rng.integers(2, 4)), 40)
        bounds = [bound_at("latency", cost, groups, rng.uniform(0.1, 0.9), multilinear=False)]
        if also_channels:
            bounds.append(bound_at("channels", channels, groups, rng.uniform(0.3, 0.9)))
        counts = Sensitivity().allocate(groups, bounds)
        assert all(bound.cost(counts) <= bound.limit for bound in bounds)
        best = best_damage(groups, bounds)
        found = damage_of(groups, counts)
        gaps.append(found / best - 1 if best > 0 else found)
    assert np.mean(gaps) < 0.02
    assert np.mean(np.array(gaps) < 1e-9) >= 0.9


def test_prices_of_steps_are_real_ones():
    """An affine extrapolation, which is what multilinear costs get, misses them."""
    allowed = np.stack([np.arange(1, 33), np.arange(1, 33)])
    counts = np.array([20, 9])
    for multilinear in (False, True):
        bound = Bound("latency", time_of_chain, 1.0, 2.0, multilinear=multilinear)
        costs, steps = cost_steps([bound], counts, allowed)
        moved = np.array([[[n, 9] for n in range(1, 33)], [[20, n] for n in range(1, 33)]])
        wanted = (time_of_chain(moved) - time_of_chain(counts)) / 2.0
        assert costs == pytest.approx([time_of_chain(counts) / 2.0])
        assert np.allclose(steps[..., 0], wanted) != multilinear


def test_steps_are_used_up():
    """Counts end at the tops of their steps, also where more channels repair nothing."""
    allowed = np.arange(1, 41)
    for damage in (np.linspace(4, 0, 40), np.r_[np.ones(30), np.zeros(10)]):
        groups = [GroupChoice(name, allowed, damage, damage) for name in "ab"]
        bound = bound_at("latency", time_of_chain, groups, 0.5, multilinear=False)
        counts = Sensitivity().allocate(groups, [bound])
        assert set(counts % BLOCK) == {0}
