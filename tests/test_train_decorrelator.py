"""Rows that layers multiply, and R fused into their weights, against what torch computes."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from onnxprune.host_gram import feature_rows  # noqa: E402
from onnxprune.linear_map import FeatureSpec, Window  # noqa: E402
from onnxprune.sampling import GramRequest, total_positions  # noqa: E402
from onnxprune.train.decorrelating_rule import DecorrelatingRule  # noqa: E402
from onnxprune.train.decorrelator import Decorrelator, FusedWeight  # noqa: E402
from onnxprune.train.observation import Observer  # noqa: E402
from onnxprune.train.online_moments import gram_of  # noqa: E402
from onnxprune.train.sampled_rows import RowSampler  # noqa: E402

TRIANGULAR = DecorrelatingRule(0.02, 0.0, triangular=True, relative=True)
ALL = RowSampler(1.0, 10**6)

PLAIN = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
ODD = Window((2, 3), (2, 1), (1, 2), (0, 2), (1, 1))
LINE = Window((3,), (2,), (1,), (1,), (0,))
SPECS = {
    "patches": (FeatureSpec("x", 4, 1, PLAIN), (5, 4, 7, 6)),
    "strides, dilations, pads": (FeatureSpec("x", 4, 1, ODD), (5, 4, 7, 6)),
    "grouped": (FeatureSpec("x", 4, 1, PLAIN, parts=2), (5, 4, 7, 6)),
    "depthwise": (FeatureSpec("x", 4, 1, PLAIN, parts=4), (5, 4, 7, 6)),
    "one axis": (FeatureSpec("x", 3, 1, LINE), (5, 4, 9)),
    "channels": (FeatureSpec("x", 4, 1), (5, 4, 7, 6)),
    "channels of groups": (FeatureSpec("x", 4, 1, parts=2), (5, 4, 7, 6)),
    "features": (FeatureSpec("x", 2, 1), (5, 8)),
    "a sequence's": (FeatureSpec("x", 3, 2), (5, 3, 8)),
    "of heads": (FeatureSpec("x", 4, 3, parts=2, apart=1), (5, 2, 6, 4)),
    "of heads, positions last": (FeatureSpec("x", 4, 2, parts=3, apart=1), (5, 3, 4, 6)),
    "flattened": (FeatureSpec("x", 2, 1, fold=4), (5, 12)),
    "flattened, channels last": (FeatureSpec("x", 2, 1, fold=4, fold_major=False), (5, 12)),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SPECS)
def test_all_rows_are_those_of_the_statistics(name: str) -> None:
    spec, shape = SPECS[name]
    x = torch.randn(shape, generator=generator())
    extent = shape[spec.axis] * (spec.parts if spec.apart is not None else 1)
    request = GramRequest(spec, extent, total_positions(spec, shape))
    expected = feature_rows(request, x.numpy(), np.zeros(request.points, np.float32))
    found = ALL.rows(spec, x, generator())
    assert sorted(map(tuple, found.reshape(-1, found.shape[-1]).tolist())) == sorted(
        map(tuple, expected.reshape(-1, expected.shape[-1]).tolist())
    )
    assert found.shape == expected.shape


@pytest.mark.parametrize("name", SPECS)
def test_a_few_rows_are_some_of_all(name: str) -> None:
    spec, shape = SPECS[name]
    x = torch.randn(shape, generator=generator())
    every = ALL.rows(spec, x, generator())
    positions = total_positions(spec, shape)
    found = RowSampler(0.4, 3).rows(spec, x, generator())
    assert found.shape == (spec.parts, 2 * min(3, positions), every.shape[2])
    for part in range(spec.parts):
        known = set(map(tuple, every[part].tolist()))
        assert all(tuple(row) in known for row in found[part].tolist())
    again, *others = (RowSampler(0.4, 3).rows(spec, x, generator(seed)) for seed in range(9))
    assert torch.equal(found, again)
    assert not all(torch.equal(found, other) for other in others)


def test_every_sample_and_position_is_taken_equally_often() -> None:
    x = torch.arange(5 * 12.0).reshape(5, 1, 3, 4)
    draws, own = generator(), RowSampler(0.4, 3)
    seen = torch.cat([own.rows(FeatureSpec("x", 4, 1), x, draws) for _ in range(4000)], dim=1)
    counts = seen.flatten().long().bincount(minlength=60).double()
    expected = 4000 * 0.4 * 3 / 12
    assert float((counts - expected).abs().max()) < 5 * math.sqrt(expected)


def test_rows_follow_from_the_seed_of_the_step_and_draw_nothing_from_torch() -> None:
    spec, shape = SPECS["channels"]
    x = torch.randn(shape, generator=generator())
    observer = Observer(RowSampler(0.4, 3))
    observer.watch("x", "reader", lambda _: spec)

    def taken(seed: int) -> tuple[torch.Tensor, float]:
        torch.manual_seed(seed)
        assert observer.taps({})["x"](x) is x
        return observer.taken()["reader"], float(torch.rand(()))

    (rows, drawn), (again, _), *others = map(taken, (1, 1, 2, 3, 4))
    assert torch.equal(rows, again)
    assert not all(torch.equal(rows, other) for other, _ in others)
    torch.manual_seed(1)
    assert drawn == float(torch.rand(()))
    assert observer.taken() == {}


def test_rows_of_several_tensors_or_passes_are_put_together() -> None:
    x = torch.randn(4, 8, generator=generator())
    observer = Observer(ALL)
    for name in ("x", "y"):
        observer.watch(name, "reader", lambda _: SPECS["features"][0])
    taps = observer.taps({"y": lambda value: 2 * value})
    taps["x"](x)
    taps["y"](x)
    taps["x"](3 * x)
    torch.testing.assert_close(observer.taken()["reader"][0], torch.cat([x, 2 * x, 3 * x]))


def test_rows_hold_no_gradients() -> None:
    spec, shape = SPECS["patches"]
    x = torch.randn(shape, requires_grad=True)
    assert not ALL.rows(spec, x * 2, generator()).requires_grad


# --- A = W R ------------------------------------------------------------------------------------


def moved(parts: int, features: int, *, triangular: bool = False):  # type: ignore[no-untyped-def]
    """A decorrelator that is no longer the identity."""
    rule = TRIANGULAR if triangular else DecorrelatingRule(0.01, 0.0)
    found = Decorrelator(parts, features, rule)
    noise = torch.randn(found.transform.shape, generator=generator(3)) / math.sqrt(features)
    found.transform += noise.tril(-1) if triangular else noise
    return found


def convolved(spec: FeatureSpec, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A convolution of an already padded input."""
    window = spec.window
    pads = [p for pair in zip(window.pads_begin[::-1], window.pads_end[::-1], strict=True)
            for p in pair]  # fmt: skip
    function = functional.conv2d if x.ndim == 4 else functional.conv1d
    return function(functional.pad(x, pads), weight, stride=window.strides,
                    dilation=window.dilations, groups=spec.parts)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["patches", "strides, dilations, pads", "grouped", "depthwise", "one axis"]
)
def test_a_fused_kernel_multiplies_decorrelated_patches(name: str) -> None:
    spec, shape = SPECS[name]
    inputs = shape[1] // spec.parts
    weight = torch.randn(8, inputs, *spec.window.kernel, generator=generator(1))
    x = torch.randn(shape, generator=generator())
    decorrelator = moved(spec.parts, inputs * spec.window.taps)
    fused = FusedWeight(decorrelator)(weight)
    assert fused.shape == weight.shape
    patches = ALL.rows(spec, x, generator()) @ decorrelator.transform.mT
    products = patches @ weight.reshape(spec.parts, 8 // spec.parts, -1).mT
    found = convolved(spec, x, fused)
    positions = found.flatten(2).shape[2]
    expected = products.reshape(spec.parts, shape[0], positions, -1).permute(1, 0, 3, 2)
    torch.testing.assert_close(found.flatten(2), expected.flatten(1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_fused_kernel_reads_decorrelated_channels(parts: int) -> None:
    """Padding included: R x is zero where x is."""
    spec = FeatureSpec("x", 4, 1, PLAIN, parts)
    weight = torch.randn(8, 4 // parts, 3, 3, generator=generator(1))
    x = torch.randn(5, 4, 7, 6, generator=generator())
    decorrelator = moved(parts, 4 // parts, triangular=True)
    channels = x.reshape(5, parts, 4 // parts, 42)
    z = (decorrelator.transform @ channels).reshape(x.shape)
    fused = FusedWeight(decorrelator)(weight)
    torch.testing.assert_close(
        convolved(spec, x, fused), convolved(spec, z, weight), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("inputs_first", [False, True])
@pytest.mark.parametrize("name", ["features", "flattened", "flattened, channels last"])
def test_a_fused_matrix_reads_decorrelated_features(name: str, inputs_first: bool) -> None:
    spec, (_, width) = SPECS[name]
    weight = torch.randn(3, width, generator=generator(1))
    x = torch.randn(5, width, generator=generator())
    decorrelator = moved(1, width // spec.fold, triangular=True)
    rows = ALL.rows(spec, x, generator())[0] @ decorrelator.transform[0].mT
    z = rows.reshape(5, spec.fold, -1)
    z = z.transpose(1, 2).reshape(5, -1) if spec.fold_major else z.reshape(5, -1)
    given = weight.T if inputs_first else weight
    layout = {"inputs_first": inputs_first, "stack_major": spec.fold_major}
    fused = FusedWeight(decorrelator, **layout)(given)
    assert fused.shape == given.shape
    torch.testing.assert_close(x @ (fused if inputs_first else fused.T), z @ weight.T)


def test_the_identity_changes_nothing_and_gradients_reach_w() -> None:
    weight = torch.randn(8, 4, 3, 3, generator=generator(1), requires_grad=True)
    fresh = FusedWeight(Decorrelator(1, 36, DecorrelatingRule(0.01, 0.0)))
    assert torch.equal(fresh(weight), weight)
    decorrelator = moved(1, 36)
    gradient = torch.randn(weight.shape, generator=generator(2))
    FusedWeight(decorrelator)(weight).backward(gradient)
    expected = gradient.reshape(8, 36) @ decorrelator.transform[0].T
    torch.testing.assert_close(weight.grad.reshape(8, 36), expected)


def test_processes_that_average_learn_what_one_learns_from_all_rows() -> None:
    rule = DecorrelatingRule(0.01, 0.1, guarded=False)
    rows = torch.randn(1, 40, 6, generator=generator())
    alone, *parts = (Decorrelator(1, 6, rule) for _ in range(3))
    for own, some in zip(parts, rows.split(20, dim=1), strict=True):
        own.learn(some)
    means = {
        own.shape: (own + other) / 2
        for own, other in zip(parts[0].buffers(), parts[1].buffers(), strict=True)
    }
    together = Decorrelator(1, 6, rule)
    together.learn(rows[:, :20], lambda tensor: means[tensor.shape])
    alone.learn(rows)
    torch.testing.assert_close(together.transform, alone.transform)
    torch.testing.assert_close(together.second, alone.second)


# --- moments of R and D -------------------------------------------------------------------------


def test_moments_are_those_of_the_rows() -> None:
    """As close as a batch of so many rows would be: what is said of the noise holds."""
    width, batch = 16, 64
    mix = torch.randn(width, width, generator=generator()) / 4
    scales = torch.logspace(-2, 1, width)
    x = torch.relu(torch.randn(20000, width, generator=generator(1)) @ mix + 0.2) * scales
    decorrelator = Decorrelator(1, width, TRIANGULAR, constant=True)
    draws = generator(2)
    for _ in range(600):
        decorrelator.learn(x[torch.randint(len(x), (batch,), generator=draws)][None])
    found = gram_of(decorrelator)
    assert found.rows == round(2 * batch / 0.02)
    assert found.part()[-1, -1] == pytest.approx(1.0)
    ones = torch.cat([x, torch.ones(len(x), 1)], dim=1).double()
    exact = (ones.T @ ones / len(x)).numpy()
    scale = np.sqrt(np.diag(exact))
    error = np.abs(found.part() - exact) / scale / scale[:, None]
    assert error.mean() < 0.015
    shares = np.linalg.eigvals(np.linalg.solve(exact, found.part())).real
    edge = math.sqrt((width + 1) / found.rows)
    assert (1 - 2 * edge) ** 2 < shares.min() < 1 < shares.max() < (1 + 2 * edge) ** 2


def test_the_constant_leaves_the_rest_as_it_is() -> None:
    x = torch.relu(torch.randn(500, 8, generator=generator()) + 0.5)[None]
    with_constant, without = (Decorrelator(1, 8, TRIANGULAR, constant=c) for c in (True, False))
    for _ in range(100):
        with_constant.learn(x)
        without.learn(x)
    torch.testing.assert_close(with_constant.transform[:, :-1, :-1], without.transform)


def test_what_holds_no_moments_is_refused() -> None:
    for decorrelator in (
        Decorrelator(1, 4, DecorrelatingRule(0.01, 0.0)),
        Decorrelator(1, 4, TRIANGULAR),
        Decorrelator(1, 4, TRIANGULAR, constant=True),
    ):
        with pytest.raises(ValueError, match=r"constant holds a Gram|learnt from no rows"):
            gram_of(decorrelator)


@pytest.mark.parametrize("stack_major", [True, False])
@pytest.mark.parametrize("inputs_first", [True, False])
def test_a_weight_is_found_for_what_is_to_be_computed(
    inputs_first: bool, stack_major: bool
) -> None:
    decorrelator = Decorrelator(1, 6, DecorrelatingRule(0.1, 0.01))
    for seed in range(20):
        decorrelator.learn(torch.randn(1, 30, 6, generator=generator(seed)) * 2 + 1)
    fused = FusedWeight(decorrelator, inputs_first=inputs_first, stack_major=stack_major)
    weight = torch.randn((18, 5) if inputs_first else (5, 18), generator=generator())
    found = fused.unfused(weight)
    assert float((found - weight).abs().max()) > 0.1
    assert torch.allclose(fused(found), weight, atol=1e-5)
