"""The pruning papers: their identities, and that their methods are made of nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_models import build
from small_networks import studied

from onnxprune import Options, Pruner, Result, Target, channel_regression, least_squares, recovery
from onnxprune.channel_regression import Affine, Triangular
from onnxprune.criteria import Obs, Squeeze, Subspace, elimination
from onnxprune.criteria.joint_gram import joint_channel_covariance, joint_channel_gram
from onnxprune.criteria.orders import ORDERS, zca_scores
from onnxprune.criteria.spectra import behind, components, pivots
from onnxprune.layer_problem import GroupProblem, LayerProblem
from onnxprune.recovery import NoRecovery

UNITS, ROWS = 7, 400
PAPERS = ("snp", "squeeze")
PAD = "<pads=[1,1,1,1]>"

NETWORKS = {
    "plain": lambda: build(
        f"c = Conv {PAD} (x, w1, b1) h = Relu(c) d = Conv {PAD} (h, w2) g = Relu(d) "
        f"y = Conv {PAD} (g, w3)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (4, 8, 3, 3)},
    ),
    "residual": lambda: build(
        f"c = Conv {PAD} (x, w1, b1) s = Relu(c) d = Conv {PAD} (s, w2) e = Relu(d) "
        f"f = Conv {PAD} (e, w3) z = Add(s, f) y = Conv {PAD} (z, w4)",
        {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (8, 8, 3, 3), "w3": (8, 8, 3, 3),
         "w4": (4, 8, 3, 3)},
    ),
    "depthwise": lambda: build(
        "c = Conv (x, w1, b1) h = Relu(c) d = Conv <pads=[1,1,1,1], group=8> (h, w2) "
        "g = Relu(d) y = Conv (g, w3)",
        {"w1": (8, 3, 1, 1), "b1": (8,), "w2": (8, 1, 3, 3), "w3": (4, 8, 1, 1)},
    ),
    "feed-forward": lambda: build(
        "n = LayerNormalization (x, scale) a = MatMul(n, w1) c = Add(a, b1) h = Gelu(c) "
        "e = MatMul(h, w2) z = Add(x, e) y = MatMul(z, w3)",
        {"scale": np.ones(6, np.float32), "w1": (6, 16), "b1": (16,), "w2": (16, 6),
         "w3": (6, 5)},
        inputs="float[N,7,6] x", outputs="float[N,7,5] y", opset=20,
    ),
}  # fmt: skip


def samples_of(rows: np.random.Generator, seed: int, units: int = UNITS) -> np.ndarray:
    """Correlated activations after a nonlinearity, with the constant last."""
    rng = np.random.default_rng(seed)
    mixed = rows.standard_normal((ROWS, units)) @ (
        rng.standard_normal((units, units)) + np.eye(units)
    )
    return np.column_stack([np.maximum(mixed + rng.standard_normal(units), -0.3), np.ones(ROWS)])


def problem_of(seed: int, units: int = UNITS, silent: int | None = None) -> LayerProblem:
    rng = np.random.default_rng(seed)
    x = samples_of(rng, seed, units)
    if silent is not None:
        x[:, silent] = 0.0
    gram = x.T @ x / ROWS
    weight = rng.standard_normal((3, units + 1))
    return LayerProblem("consumer", weight, gram, gram, np.arange(units), 1, ROWS)


def group_of(*layers: LayerProblem) -> GroupProblem:
    units = len(layers[0].channels)
    return GroupProblem("group", np.arange(units), np.zeros(units, int), layers)


def ldl(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L unit lower triangular and D of L D L^T."""
    lower = np.linalg.cholesky(matrix)
    return lower / np.diag(lower), np.diag(lower) ** 2


seeds = given(seed=st.integers(0, 10_000))


# --- Subspace Node Pruning ----------------------------------------------------------------------


@seeds
@settings(max_examples=20, deadline=None)
def test_triangular_recovery_is_least_squares(seed: int) -> None:
    """(W L)_:k (L^-1)_kk of the whole factor, W_K + W_D L_DK L_KK^-1, and lstsq are one."""
    problem, rng = problem_of(seed), np.random.default_rng(seed)
    keep = np.sort(rng.permutation(UNITS)[: 1 + seed % (UNITS - 1)])
    order, kept = np.append(keep, np.setdiff1d(np.arange(UNITS), keep)), len(keep)
    lower, _ = ldl(problem.gram[np.ix_(order, order)])
    weight = problem.weight[:, order]
    papers = (weight @ lower)[:, :kept] @ np.linalg.inv(lower)[:kept, :kept]
    spread = weight[:, :kept] + weight[:, kept:] @ lower[kept:, :kept] @ np.linalg.inv(
        lower[:kept, :kept]
    )
    x = samples_of(np.random.default_rng(seed), seed)[:, :-1]
    squares = np.linalg.lstsq(x[:, keep], x @ problem.weight[:, :-1].T, rcond=None)[0].T
    found = Triangular().solve(problem, keep)
    for other in (papers, spread, squares):
        np.testing.assert_allclose(found.weight, other, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(found.bias, problem.weight[:, -1])


@seeds
@settings(max_examples=20, deadline=None)
def test_what_is_left_of_dropped_channels_is_their_part_of_the_transform(seed: int) -> None:
    """C_DD - C_DK C_KK^-1 C_KD = L_DD D_D L_DD^T, whose trace is at least the sum of D_D."""
    gram = joint_channel_gram(group_of(problem_of(seed)))
    order, kept = np.random.default_rng(seed).permutation(UNITS), 1 + seed % (UNITS - 1)
    matrix = gram[np.ix_(order, order)]
    lower, diagonal = ldl(matrix)
    k, d = slice(kept), slice(kept, None)
    schur = matrix[d, d] - matrix[d, k] @ np.linalg.solve(matrix[k, k], matrix[k, d])
    np.testing.assert_allclose(
        lower[d, d] * diagonal[d] @ lower[d, d].T, schur, atol=1e-9 * np.trace(matrix)
    )
    assert np.trace(schur) >= diagonal[d].sum() * (1 - 1e-9)
    np.testing.assert_allclose(pivots(group_of(problem_of(seed)), order), diagonal, rtol=1e-6)


@seeds
@settings(max_examples=20, deadline=None)
def test_zca_scores_are_the_variances_of_unnormalised_whitening(seed: int) -> None:
    """Cov of diag(C^-1/2)^-1 C^-1/2 x; between what others leave unexplained and the whole."""
    gram = joint_channel_gram(group_of(problem_of(seed)))
    values, vectors = np.linalg.eigh(gram)
    root = vectors * values**-0.5 @ vectors.T
    whitening = root / np.diag(root)[:, None]
    scores = zca_scores(gram)
    np.testing.assert_allclose(np.diag(whitening @ gram @ whitening.T), scores, rtol=1e-8)
    assert np.all(1 / np.diag(np.linalg.inv(gram)) <= scores * (1 + 1e-9))
    assert np.all(scores <= np.diag(gram) * (1 + 1e-9))


def test_the_fraction_below_the_cut_off_goes() -> None:
    """By the definition: v_i = sum_{j >= i} D_j / sum_j D_j, and units with v_i < p are cut."""
    result = pruner("plain", method="snp", cutoff=0.3).prune()
    for found in result.report.groups:
        diagonal = np.array(found.spectrum.pivots)
        share = diagonal[::-1].cumsum()[::-1] / diagonal.sum()
        assert len(found.keep) == max(1, int((share >= 0.3).sum()))
    assert any(len(found.keep) < found.size for found in result.report.groups)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_an_order_and_the_silent_come_last(order: str) -> None:
    problem = group_of(problem_of(3, silent=2), problem_of(4, silent=2))
    ranking = Subspace(order).rank(problem)
    assert sorted(ranking.order.tolist()) == list(range(UNITS))
    assert ranking.order[-1] == 2


def test_orders_differ_and_given_is_the_models_own() -> None:
    problem = group_of(problem_of(1, units=20))
    orders = {name: tuple(Subspace(name).rank(problem).order.tolist()) for name in ORDERS}
    assert orders["given"] == tuple(range(20))
    assert len({orders[name] for name in ("zca", "pivoted", "variance", "given")}) == 4


def test_saw_sorts_by_the_sum_of_absolute_weights() -> None:
    weights = np.random.default_rng(0).standard_normal((UNITS, 5))
    problem = replace(group_of(problem_of(1)), producer_weights=(weights,))
    expected = np.argsort(-np.abs(weights).sum(axis=1))
    np.testing.assert_array_equal(Subspace("saw").rank(problem).order, expected)


def test_tied_channels_have_joint_importances() -> None:
    """Each reader has one vote, however large its activations are."""
    one, other = problem_of(1), problem_of(2)
    louder = replace(other, gram=other.gram * 100)
    orders = [Subspace().rank(group_of(one, layer)).order.tolist() for layer in (other, louder)]
    assert orders[0] == orders[1]
    assert orders[0] != Subspace().rank(group_of(one)).order.tolist()


# --- Squeezing Correlated Neurons ---------------------------------------------------------------


@pytest.mark.parametrize("moments", ["covariance", "correlation"])
@pytest.mark.parametrize("seed", range(5))
def test_elimination_by_downdates_is_elimination_by_recomputation(moments: str, seed: int) -> None:
    """Over more units than are downdated before the matrix shrinks."""
    units = 80
    covariance = joint_channel_covariance(group_of(problem_of(seed, units)))
    left, expected = list(range(units)), []
    while left:
        own = covariance[np.ix_(left, left)]
        unexplained = 1 / np.diag(np.linalg.inv(own))
        if moments == "correlation":
            unexplained /= np.diag(own)  # 1 - R^2
        # of two that explain each other equally well the later one goes
        equal = np.flatnonzero(unexplained <= unexplained.min() * (1 + 1e-9))
        expected.append(left.pop(int(equal[-1])))
    found = Squeeze(moments, damping=0.0).elimination(covariance, np.zeros(units, int))
    np.testing.assert_array_equal(found, expected)


def test_the_multiple_correlation_is_that_of_regression() -> None:
    problem = group_of(problem_of(5))
    x = samples_of(np.random.default_rng(5), 5)
    shares = []
    for unit in range(UNITS):
        others = np.delete(x, unit, axis=1)
        left = x[:, unit] - others @ np.linalg.lstsq(others, x[:, unit], rcond=None)[0]
        shares.append(left.var() / x[:, unit].var())
    first = Squeeze("correlation").elimination(
        joint_channel_covariance(problem), np.zeros(UNITS, int)
    )[0]
    assert first == int(np.argmin(shares))


@seeds
@settings(max_examples=20, deadline=None)
def test_a_bias_never_does_harm(seed: int) -> None:
    problem = problem_of(seed)
    keep = np.sort(np.random.default_rng(seed).permutation(UNITS)[: seed % UNITS])
    through_zero, affine = (r.solve(problem, keep) for r in (Triangular(), Affine()))
    assert affine.error <= through_zero.error * (1 + 1e-9) + 1e-12
    assert through_zero.error <= NoRecovery().solve(problem, keep).error * (1 + 1e-9) + 1e-12


def test_as_many_channels_stay_as_components_carry_the_information() -> None:
    result = pruner("plain", method="squeeze", information=0.9).prune()
    for found in result.report.groups:
        variances = np.array(found.spectrum.components)
        carried = variances.cumsum() / variances.sum()
        assert len(found.keep) == int((carried < 0.9 - 1e-12).sum()) + 1
    assert any(len(found.keep) < found.size for found in result.report.groups)


def test_components_are_of_covariances_or_correlations() -> None:
    x = samples_of(np.random.default_rng(6), 6)[:, :-1]
    problem = group_of(problem_of(6))
    covariance = np.cov(x.T, bias=True)
    expected = np.linalg.eigvalsh(covariance / np.trace(covariance))[::-1]
    np.testing.assert_allclose(components(problem, "covariance"), expected, rtol=1e-7)
    expected = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    np.testing.assert_allclose(components(problem, "correlation"), expected, rtol=1e-7)
    assert behind(components(problem, "covariance"))[0] == pytest.approx(1.0)


# --- both, from the command's point of view -----------------------------------------------------


def pruner(network: str, **options: object) -> Pruner:
    model = NETWORKS[network]()
    (value,) = model.graph.input
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(0).standard_normal((96, *extents)).astype(np.float32)
    return Pruner(model, {"x": x}, Options(latency=False, **options))


def pruned(network: str, **options: object) -> Result:
    return pruner(network, **options).prune([Target("macs", 0.7)])


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", PAPERS)
def test_they_call_neither_obs_nor_patches(
    method: str, network: str, sequential: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("this is not the paper's")

    monkeypatch.setattr(Obs, "rank", never)
    monkeypatch.setattr(elimination.BlockElimination, "__init__", never)
    for other in (least_squares.LeastSquares, recovery.FixedRidge):
        monkeypatch.setattr(other, "solve", never)
    patches = []
    for own in (channel_regression.Triangular, channel_regression.Affine):
        solve = own.solve

        def seen(self: object, problem: LayerProblem, keep: object, solve=solve) -> object:  # type: ignore[no-untyped-def]
            patches.append(problem.taps > 1)
            return solve(self, problem, keep)

        monkeypatch.setattr(own, "solve", seen)
    result = pruned(network, method=method, sequential=sequential)
    assert result.plan.edits
    assert patches
    assert not any(patches)


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", PAPERS)
def test_recovery_pays_on_every_kind_of_network(
    method: str, network: str, sequential: bool
) -> None:
    found, sliced = (
        pruned(network, method=method, sequential=sequential, recovery=recover)
        for recover in (True, False)
    )
    assert found.plan == sliced.plan
    error, worse = (r.report.outputs[0].relative_error for r in (found, sliced))
    assert error < worse


@pytest.mark.parametrize("options", [{"method": "snp", "cutoff": 0.0},
                                     {"method": "squeeze", "information": 1.0}])  # fmt: skip
@pytest.mark.parametrize("sequential", [False, True])
def test_nothing_goes_where_nothing_may(options: dict[str, object], sequential: bool) -> None:
    result = pruner("residual", sequential=sequential, **options).prune()
    assert not result.plan.edits
    assert result.report.outputs[0].relative_error < 1e-5


@pytest.mark.parametrize("order", ORDERS)
def test_orders_do_not_matter_where_nothing_is_dropped(order: str) -> None:
    result = pruner("residual", method="snp", order=order, cutoff=0.0).prune()
    assert not result.plan.edits


def test_a_target_finds_the_share_that_would_have_met_it() -> None:
    for method, name in (("snp", "cutoff"), ("squeeze", "information")):
        found = pruned("plain", method=method)
        share = found.report.share
        assert share is not None
        assert 0 < share < 1
        # what has exactly this share goes as well: a cut-off cuts what is below it
        level = np.nextafter(share, 1) if name == "cutoff" else 1 - share - 1e-12
        again = pruner("plain", method=method, **{name: float(level)}).prune()
        assert again.plan == found.plan
        assert again.report.share == share
        if name == "cutoff":  # what has exactly the cut-off is not below it
            fewer = pruner("plain", method=method, cutoff=share).prune()
            assert fewer.report.after.params > found.report.after.params


def test_one_way_to_say_how_much() -> None:
    with pytest.raises(ValueError, match="cutoff fixes how much is pruned"):
        pruner("plain", method="snp", cutoff=0.1).prune([Target("macs", 0.5)])
    with pytest.raises(ValueError, match="information fixes"):
        pruner("plain", method="squeeze", information=0.9).prune([Target("macs", 0.5)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"cutoff": 0.1},
            "cutoff is for cumvar, which this run does not use",
        ),
        ({"order": "saw"}, "order is for snp"),
        ({"moments": "correlation", "method": "snp"}, "moments is for squeeze and information"),
        ({"method": "snp", "information": 0.9}, "information is for information"),
        ({"method": "snp", "cutoff": 1.5}, r"cutoff is a share, from 0 to 1, not 1\.5"),
        ({"method": "squeeze", "information": -1}, "information is a share"),
        ({"method": "snp", "order": "best"}, "unknown order 'best'; known: zca, saw"),
        ({"method": "squeeze", "moments": "raw"}, "unknown moments 'raw'; known: covariance"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**options)


def test_plain_channels_need_far_smaller_statistics() -> None:
    """The Gram of a 3 x 3 convolution's patches is 81 times as large."""
    model = NETWORKS["plain"]()
    of_patches, of_channels = (
        studied(model, options=Options(method=name)).study for name in ("onnxprune", "snp")
    )
    for name, (layer,) in of_patches.layers.items():
        (plain,) = of_channels.layers[name]
        assert (len(layer.gram) - 1) == 9 * (len(plain.gram) - 1)
