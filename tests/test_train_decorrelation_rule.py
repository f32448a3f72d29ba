"""The local rule of decorrelated backpropagation, on plain tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnxprune.train.decorrelating_rule import DecorrelatingRule  # noqa: E402

WIDTH, BATCH = 24, 96


def correlated(count: int = 4000, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    """Rectified mixtures, as activations are: correlated, with means that are not 0."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / math.sqrt(width) + torch.eye(width)
    return torch.relu(torch.randn(count, width, generator=generator) @ mix.T + 0.3)


def moments(x: torch.Tensor) -> torch.Tensor:
    return x.mT @ x / x.shape[-2]


def correlation(transform: torch.Tensor, x: torch.Tensor) -> float:
    """Root mean square of the correlation coefficients (about zero) of R x."""
    second = moments(x @ transform.mT)
    scale = second.diagonal().sqrt()
    coefficients = second / scale[:, None] / scale
    return float(coefficients.fill_diagonal_(0.0).square().mean().sqrt())


def learnt(rule: DecorrelatingRule, x: torch.Tensor, steps: int) -> torch.Tensor:
    """R after steps on random rows of x."""
    generator = torch.Generator().manual_seed(1)
    transform = torch.eye(x.shape[1])[None].clone()
    for _ in range(steps):
        rows = x[torch.randint(len(x), (BATCH,), generator=generator)]
        rule.update(transform, rows[None])
    return transform[0]


@pytest.mark.parametrize(
    "rule",
    [
        DecorrelatingRule(0.01, 0.0),
        DecorrelatingRule(0.01, 0.01),
        DecorrelatingRule(0.01, 0.5),
        DecorrelatingRule(0.01 * (WIDTH - 1), 0.01, normalised=True),
        DecorrelatingRule(0.01, 0.0, triangular=True),
        DecorrelatingRule(0.02, 0.0, triangular=True, relative=True),
    ],
)
def test_planted_correlations_fall_tenfold(rule: DecorrelatingRule) -> None:
    x = correlated(5000)
    seen, unseen = x[:4000], x[4000:]
    before = correlation(torch.eye(WIDTH), unseen)
    assert before > 0.3
    assert correlation(learnt(rule, seen, 1000), unseen) < before / 10


def explicit(rule: DecorrelatingRule, transform: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """One unguarded step of one part, spelt out as the paper has it."""
    z = x @ transform.T
    second = moments(z)
    c = second - torch.diag(second.diagonal())
    v = torch.diag(second.diagonal() - 1)
    if rule.normalised:
        c = c / (x.shape[1] - 1)
    return transform - rule.rate * ((1 - rule.kappa) * c + rule.kappa * v) @ transform


@pytest.mark.parametrize("count", [7, 200])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
def test_a_step_is_the_papers_with_many_rows_and_few(
    kappa: float, normalised: bool, count: int
) -> None:
    rule = DecorrelatingRule(0.003, kappa, normalised, guarded=False)
    x = torch.stack([correlated(count, seed) for seed in (1, 2)]).double()
    start = torch.eye(WIDTH).double() + 0.1 * torch.randn(2, WIDTH, WIDTH).double()
    found = start.clone()
    rule.update(found, x)
    for part in range(2):
        torch.testing.assert_close(found[part], explicit(rule, start[part], x[part]))


@pytest.mark.parametrize("count", [7, 200])
def test_losses_are_what_they_are_said_to_be(count: int) -> None:
    x = correlated(count)
    second = moments(x)
    c = second - torch.diag(second.diagonal())
    v = second.diagonal() - 1
    kappa, d = 0.2, WIDTH
    standard = ((1 - kappa) * c.square().sum() + kappa * v.square().sum()) / d**2
    pairs = c.square().sum() / (d * (d - 1))
    normalised = (1 - kappa) * pairs + kappa * v.square().mean()
    for own, expected in ((False, standard), (True, normalised)):
        rule = DecorrelatingRule(0.0, kappa, own)
        found = rule.update(torch.eye(d)[None].clone(), x[None])
        torch.testing.assert_close(found.loss, expected)
        torch.testing.assert_close(found.squares[0], c.square().sum())


@pytest.mark.parametrize("triangular", [False, True])
def test_without_the_guard_loud_inputs_diverge_and_with_it_they_do_not(triangular: bool) -> None:
    x = 100 * correlated()
    for guarded in (False, True):
        rule = DecorrelatingRule(0.01, 0.0, triangular=triangular, guarded=guarded)
        transform = learnt(rule, x, 300)
        assert bool(transform.isfinite().all()) == guarded
    assert correlation(transform, x) < correlation(torch.eye(WIDTH), x) / 3


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_steps_stay_where_they_are_stable(scale: float, kappa: float) -> None:
    """The bound on pairs holds, and E|z|^2 of these rows never grows with kappa = 0."""
    rule = DecorrelatingRule(10.0, kappa)
    x = scale * correlated(64)
    transform = torch.eye(WIDTH)[None].clone()
    for _ in range(50):
        before = (x @ transform[0].T).square().sum()
        found = rule.update(transform, x[None])
        two = found.second[0].topk(2).values.sum()
        assert float(found.rate[0] * (1 - kappa) * two) < 2
        after = (x @ transform[0].T).square().sum()
        assert bool(after.isfinite())
        if kappa == 0:
            assert float(after) <= float(before) * (1 + 1e-5)


def test_the_bound_on_pairs_is_where_overshooting_begins() -> None:
    """Two features, almost uncorrelated: C_12 is multiplied by 1 - eps (s_1 + s_2)."""
    x = torch.tensor([[1.0, 1.0], [1.0, -0.999], [-1.0, 1.0], [-1.0, -1.0]]).double()
    before = moments(x)
    for rate in (0.3, 0.9, 1.1):
        transform = torch.eye(2).double()[None].clone()
        DecorrelatingRule(rate, 0.0, guarded=False).update(transform, x[None])
        ratio = moments(x @ transform[0].T)[0, 1] / before[0, 1]
        assert float(ratio) == pytest.approx(1 - rate * float(before.trace()), abs=1e-3)


def ldl(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lower = np.linalg.cholesky(matrix)
    return lower / np.diag(lower), np.diag(lower) ** 2


@pytest.mark.parametrize("relative", [False, True])
def test_a_triangular_transform_becomes_the_inverse_factor(relative: bool) -> None:
    x = correlated(400)
    rule = DecorrelatingRule(0.3 if relative else 0.05, 0.0, triangular=True, relative=relative)
    transform = torch.eye(WIDTH)[None].clone()
    for _ in range(2000):  # all rows: nothing is left to chance
        found = rule.update(transform, x[None])
    lower, diagonal = ldl(moments(x.double()).numpy())
    np.testing.assert_allclose(transform[0].numpy(), np.linalg.inv(lower), atol=2e-4)
    np.testing.assert_allclose(found.second[0].numpy(), diagonal, rtol=2e-3)
    assert torch.equal(transform[0].diagonal(), torch.ones(WIDTH))
    assert not transform[0].triu(1).any()


def test_relative_steps_do_not_care_for_scales() -> None:
    """Where plain ones hardly move what is small."""
    x = correlated(400) * torch.logspace(-2, 0, WIDTH)
    inverse = np.linalg.inv(ldl(moments(x.double()).numpy())[0])
    missed = {}
    for relative in (False, True):
        rule = DecorrelatingRule(0.05, 0.0, triangular=True, relative=relative)
        transform = torch.eye(WIDTH)[None].clone()
        for _ in range(600):
            rule.update(transform, x[None])
        missed[relative] = float(np.abs(transform[0].numpy() - inverse).max())
    assert missed[True] < 0.01 < 1 < missed[False]


def test_silent_features_do_no_harm() -> None:
    x = correlated()
    x[:, 3] = 0.0
    for rule in (DecorrelatingRule(0.01, 0.01), DecorrelatingRule(0.02, 0.0, False, True, True)):
        assert bool(learnt(rule, x, 50).isfinite().all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kappa": 0.1, "triangular": True}, "kappa must be 0"),
        ({"kappa": 0.0, "relative": True}, "for a triangular transform"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecorrelatingRule(0.1, **settings)
