"""Gates: the objective they minimise, and that theta moves by the projected update alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from onnxprune.train.gate_options import GateOptions
from onnxprune.train.gates import Gates

GAMMAS = (0.9, 0.3, 1e-2, 1e-5)
THETAS = (1e-4, 0.1, 0.5, 0.83, 1 - 1e-4)


def prior(chance: float, gamma: float) -> float:
    """The flattening hyper-prior of the chance that a gate is on."""
    return (gamma - 1) / np.log(gamma) / (1 + (gamma - 1) * (1 - chance))


def divergence(theta: float, chance: float) -> float:
    """KL of Bernoulli(theta) from Bernoulli(chance)."""
    return theta * np.log(theta / chance) + (1 - theta) * np.log((1 - theta) / (1 - chance))


# --- the objective ------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_hyper_prior_is_a_density(gamma: float) -> None:
    total, _ = integrate.quad(prior, 0, 1, args=(gamma,))
    assert total == pytest.approx(1)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_divergence_and_hyper_prior_are_a_price(gamma: float) -> None:
    """The least over pi of KL - log p(pi) is theta |log gamma| and a constant."""
    prices = []
    for theta in THETAS:
        found = optimize.minimize_scalar(
            lambda logit, theta=theta: (
                divergence(theta, 1 / (1 + np.exp(-logit)))
                - np.log(prior(1 / (1 + np.exp(-logit)), gamma))
            ),
            bounds=(-30, 30),
            method="bounded",
            options={"xatol": 1e-9},
        )
        best = gamma * theta / (1 - theta + gamma * theta)
        assert 1 / (1 + np.exp(-found.x)) == pytest.approx(best, rel=1e-3)
        prices.append(found.fun)
    slopes = np.diff(prices) / np.diff(THETAS)
    np.testing.assert_allclose(slopes, abs(np.log(gamma)), rtol=1e-5)


def losses(seed: int, gates: int) -> dict[tuple[bool, ...], float]:
    """A loss for every way in which gates can be on."""
    rng = np.random.default_rng(seed)
    return {on: rng.uniform(0, 3) for on in itertools.product((False, True), repeat=gates)}


def objective(theta: np.ndarray, known: dict[tuple[bool, ...], float], price: float) -> float:
    """J without the weights' part, by all ways in which the gates can be on."""
    chance = {on: np.where(on, theta, 1 - theta).prod() for on in known}
    return float(sum(chance[on] * known[on] for on in known) + price * theta.sum())


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_is_affine_in_every_theta_and_least_at_a_corner(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known, price = losses(seed, 3), 0.4
    for gate in range(3):
        theta = rng.uniform(size=3)
        steps = [theta + t * np.eye(3)[gate] for t in (-0.3, 0.0, 0.3)]
        low, middle, high = (objective(step, known, price) for step in steps)
        assert low + high == pytest.approx(2 * middle)
    corners = [objective(np.array(on, float), known, price) for on in known]
    inner = [objective(rng.uniform(size=3), known, price) for _ in range(200)]
    assert min(corners) <= min(inner)


@pytest.mark.parametrize("seed", range(5))
def test_updates_follow_the_slope_of_the_objective(seed: int) -> None:
    """Over all draws, a small step of theta is -rate dJ/dtheta."""
    known, price, rate = losses(seed, 3), 0.4, 1e-3
    theta = np.random.default_rng(seed).uniform(0.2, 0.8, 3)
    moved = np.zeros(3)
    for on in known:
        weight = np.where(on, theta, 1 - theta).prod()
        for gate in range(3):
            pair = [known[(*on[:gate], state, *on[gate + 1 :])] for state in (False, True)]
            gates = Gates(3, price=price, rate=rate)
            gates.load(gates.state() | {"theta": theta.tolist()})
            gates.update(np.array([gate]), np.array([pair[1] - pair[0]]))
            moved += weight * (gates.theta - theta)
    for gate in range(3):
        step = 1e-6 * np.eye(3)[gate]
        change = objective(theta + step, known, price) - objective(theta - step, known, price)
        assert moved[gate] == pytest.approx(-rate * change / 2e-6, rel=1e-5)


# --- the update ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=20),
    st.floats(1e-4, 1),
    st.floats(1e-3, 5),
)
def test_theta_is_what_the_projected_updates_make_it(
    differences: list[float], price: float, rate: float
) -> None:
    gates = Gates(2, price=price, rate=rate, initial=0.7, floor=0.02)
    expected = 0.7
    for difference in differences:
        gates.draw()
        gates.update(np.array([1]), np.array([difference]))
        expected = min(max(expected - rate * (difference + price), 0.02), 1.0)
    np.testing.assert_allclose(gates.theta, [0.7, expected])


def test_nothing_else_moves_theta() -> None:
    gates = Gates(3, price=0.1, rate=1.0, initial=0.6)
    for _ in range(100):
        gates.draw()
    gates.theta[:] = 0.0  # a copy
    gates.update(np.array([], np.int64), np.array([]))
    gates.state()
    np.testing.assert_array_equal(gates.theta, [0.6] * 3)


def test_a_gate_comes_back_from_its_floor() -> None:
    gates = Gates(1, price=0.1, rate=1.0, initial=0.5, floor=0.02)
    gates.update(np.array([0]), np.array([5.0]))
    assert gates.theta == [0.02]
    gates.update(np.array([0]), np.array([-0.4]))
    assert gates.theta == [pytest.approx(0.32)]


def test_gates_are_on_as_often_as_theta_says() -> None:
    gates = Gates(2, price=0.1, rate=1.0, initial=0.8, seed=3)
    gates.update(np.array([1]), np.array([0.5]))
    drawn = np.mean([gates.draw() for _ in range(4000)], axis=0)
    np.testing.assert_allclose(drawn, gates.theta, atol=0.03)


def test_a_state_goes_on_with_the_same_draws() -> None:
    first = Gates(4, price=0.1, rate=0.3, seed=1)
    first.draw()
    first.update(np.array([0, 2]), np.array([0.5, -0.1]))
    first.keep(np.array([True, True, False, True]))
    second = Gates(3, price=0.1, rate=0.3, seed=9)
    second.load(json.loads(json.dumps(first.state())))
    for _ in range(5):
        np.testing.assert_array_equal(first.draw(), second.draw())
    np.testing.assert_array_equal(first.theta, second.theta)
    with pytest.raises(ValueError, match="3 gates, there are 2"):
        Gates(2, price=0.1, rate=0.3).load(first.state())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"price": 0.0}, "price of a gate"),
        ({"rate": -1.0}, "rate of theta"),
        ({"floor": 1.0}, "floor of theta"),
        ({"initial": 0.001}, "start above its floor"),
    ],
)
def test_settings_without_sense_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Gates(2, **({"price": 0.1, "rate": 1.0} | wrong))


def test_estimates_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Gates(1, price=0.1, rate=1.0).update(np.array([0]), np.array([np.nan]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"price": -1}, "price must be a positive number"),
        ({"log_gamma": 0}, "log_gamma must be"),
        ({"floor": 0.2}, "must rise"),
        ({"warm_up": 1}, "warm_up"),
        ({"decayed": 0}, "decayed"),
        ({"decay": 2}, "decay must be a share"),
        ({"estimator": "guess"}, "estimator must be one of two-pass, gradient"),
        ({"tests": 0}, "tests must be at least 1"),
    ],
)
def test_options_say_what_is_wrong(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GateOptions(**wrong)  # type: ignore[arg-type]


def test_gamma_is_priced_over_all_samples() -> None:
    assert GateOptions(log_gamma=50).price_per_sample(1000) == pytest.approx(0.05)
    assert GateOptions(price=0.02).price_per_sample(1000) == 0.02
