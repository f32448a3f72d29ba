"""What a refit in order leaves alone, what it may depend on, and that it helps."""

from __future__ import annotations

import numpy as np
import pytest
from micro_models import MICRO_MODELS, build
from oracles import (
    Subject,
    distance,
    random_feed,
    random_keeps,
    run,
    scattered,
    structure_ok,
    tolerance,
)
from small_networks import (
    QUIET,
    Studied,
    behind_a_cut,
    convolutions,
    in_order,
    one_shot,
    samples_for,
    studied,
)

from onnxprune.errors import CalibrationError
from onnxprune.options import Options
from onnxprune.plan import Weights
from onnxprune.recovery import Recovery
from onnxprune.rewrite import apply
from onnxprune.sequential import Refitted, refit_in_order, solved_in_order
from onnxprune.side_by_side import Frontier, Key, SideBySide
from onnxprune.tensor_store import TensorStore

Array = np.ndarray
ONE = "<pads=[1,1,1,1]>"


@pytest.fixture(scope="module")
def tower() -> Studied:
    """Three convolutions and a skip behind a cut."""
    nodes = f"i = Conv {ONE} (x, w0) s = Tanh(i) a = Conv {ONE} (s, w1) h = Tanh(a)"
    nodes += f" c = Conv {ONE} (h, w2) e = Add(c, s) y = Conv {ONE} (e, w3)"
    shapes = {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "w2": (6, 8, 3, 3), "w3": (4, 6, 3, 3)}
    model = behind_a_cut(build(nodes, shapes))
    return studied(model, samples_for(model), Options(batch=32))


def halves(known: Studied) -> dict[str, Array]:
    return random_keeps(known.network, np.random.default_rng(1), 0.5)


def same(left: Weights, right: Weights) -> bool:
    """Whether two sets of weights are the same, to the last bit."""
    return left.arrays.keys() == right.arrays.keys() and all(
        a.tobytes() == b.tobytes()
        for name in left.arrays
        for a, b in zip(left.arrays[name], right.arrays[name], strict=True)
    )


def test_nothing_cut_is_nothing_solved(tower):
    done = in_order(tower, one_shot(tower, {}))
    assert (dict(done.weights.arrays), done.solutions) == ({}, {})


def of_plans(known: Studied, plans: list[dict[str, Array]], recovery: Recovery) -> list[Refitted]:
    """The refits of several plans, together."""
    priors = [one_shot(known, keeps) for keeps in plans]
    fit, tune = known.batches(known.parts.fit), known.batches(known.parts.tune)
    return refit_in_order(known.study, priors, recovery, fit, tune, QUIET)


def test_plans_together_are_what_each_is_alone(tower):
    rng = np.random.default_rng(3)
    plans = [halves(tower), {}, random_keeps(tower.network, rng, 0.7)]
    together = of_plans(tower, plans, tower.study.recovery)
    for keeps, done in zip(plans, together, strict=True):
        (alone,) = of_plans(tower, [keeps], tower.study.recovery)
        assert same(done.weights, alone.weights)
    assert not together[1].solutions
    assert not same(together[0].weights, together[2].weights)


def test_consumers_wider_than_wanted_stay_as_they_are(tower):
    prior = one_shot(tower, halves(tower))
    whole = in_order(tower, prior)
    widths = {name: parts[0].weight.shape[1] for name, parts in whole.solutions.items()}
    widest = int(np.median(list(widths.values())))
    done = in_order(tower, prior, widest=widest)
    assert set(done.solutions) == {name for name, width in widths.items() if width <= widest}
    wide = set(widths) - set(done.solutions)
    assert wide
    for name in wide & set(prior.weights.arrays):
        before, after = prior.weights.arrays[name], done.weights.arrays[name]
        assert [x.tobytes() for x in before] == [x.tobytes() for x in after]


def test_without_a_change_in_front_one_shot_weights_stay(tower):
    """One layer is cut, all that reads it directly has the inputs it always had."""
    last = tower.study.groups[-1]
    keeps = {last.name: np.arange(last.size // 2)}
    prior = one_shot(tower, keeps)
    done = in_order(tower, prior)
    assert set(prior.weights.arrays) == set(last.consumers)
    assert not set(done.solutions) & set(last.consumers)
    for name in last.consumers:
        for before, after in zip(
            prior.weights.arrays[name], done.weights.arrays[name], strict=True
        ):
            np.testing.assert_array_equal(before, after)


def test_layers_that_lose_nothing_but_see_changes_are_solved(tower):
    """They read what lies behind a cut, and their weights are in the result."""
    first = tower.study.groups[0]
    keeps = {first.name: np.arange(first.size // 2)}
    prior = one_shot(tower, keeps)
    done = in_order(tower, prior)
    assert set(done.solutions) == set(tower.network.consumers) - set(first.consumers) - {"x/pa"} - {
        name for name, m in tower.network.consumers.items() if m.x.name == "x"
    }
    assert set(done.weights.arrays) == set(done.solutions) | set(first.consumers)


def test_redundant_channels_cost_nothing_in_a_row():
    """Two layers in a row with every channel doubled are halved without loss."""
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((4, n, 3, 3)).astype(np.float32) / 5 for n in (3, 8))
    weights = {
        "w1": np.concatenate([first, first]),
        "b1": np.tile(rng.standard_normal(4).astype(np.float32), 2),
        "w3": np.concatenate([second, second]),
        "b3": np.zeros(8, np.float32),
    }
    model = convolutions(f"r = Relu(c) g = Conv {ONE} (r, w3, b3) h = Relu(g)", **weights)
    known = studied(model, samples_for(model, 100))
    half = np.arange(4)
    keeps = {group.name: half for group in known.study.groups}
    assert len(keeps) == 2
    done = in_order(known, one_shot(known, keeps))
    assert done.solutions
    pruned = apply(model, known.plan(keeps), done.weights)
    feed = samples_for(model, 40, seed=1)
    assert distance(run(pruned, feed), run(model, feed)) < 1e-3


def test_memory_changes_no_bit(tower, monkeypatch):
    stores = []

    class Seen(TensorStore[Key]):
        def __init__(self, *limits: int | None) -> None:
            super().__init__(*limits)
            stores.append(self)

    monkeypatch.setattr("onnxprune.sequential.TensorStore", Seen)
    prior = one_shot(tower, halves(tower))
    free, bound = (in_order(tower, prior, max_memory=limit) for limit in (None, 0))
    assert [store.bytes_spilled > 0 for store in stores] == [False, True]
    assert same(free.weights, bound.weights)


def test_seeds_decide_the_bytes(tower):
    prior = one_shot(tower, halves(tower))
    first, again, other = (in_order(tower, prior, seed=seed).weights for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)


def test_every_node_runs_twice_for_a_sample_at_most(tower, monkeypatch):
    networks = []

    class Seen(SideBySide):
        def __init__(self, *settings: object) -> None:
            super().__init__(*settings)  # type: ignore[arg-type]
            networks.append(self)

    monkeypatch.setattr("onnxprune.sequential.SideBySide", Seen)
    in_order(tower, one_shot(tower, halves(tower)))
    (network,) = networks
    batches = len(tower.batches(tower.parts.fit)) + len(tower.batches(tower.parts.tune))
    nodes = len(tower.study.canonical.graph.node)
    assert nodes * batches < network.node_runs <= 2 * nodes * batches


def test_an_input_that_overflows_keeps_the_weights_it_has(tower, caplog, monkeypatch):
    """As activations of the pruned network may in half precision."""
    prior = one_shot(tower, halves(tower))
    whole = in_order(tower, prior)
    last = list(whole.solutions)[-1]
    place = tower.network.consumers[last].x.name
    seen_by = Frontier.of

    def overflown(self: Frontier, variant: int, name: str) -> Array:
        array = seen_by(self, variant, name)
        return np.where(array > array.max() / 2, np.inf, array) if name == place else array

    monkeypatch.setattr(Frontier, "of", overflown)
    with np.errstate(invalid="ignore"):
        done = in_order(tower, prior)
    assert f"{last} is not refitted" in caplog.text
    assert set(done.solutions) == set(whole.solutions) - {last}
    before = prior.weights.arrays.get(last)
    assert before is None or before[0].tobytes() == done.weights.arrays[last][0].tobytes()


BETTER = (
    "residual",
    "residual with projection",
    "dense block",
    "Transpose there and back",
    "ConvTranspose",
    "DeformConv",
    "Einsum over channels of maps",
    "FFN, RMSNorm by Div",
    "FFN of com.microsoft nodes",
    "channels last, squeeze and excite",
    "inverted bottleneck of 1 x 1 convolutions",
)


@pytest.mark.parametrize("name", BETTER)
def test_outputs_of_other_samples_are_nearer(name):
    model = behind_a_cut(MICRO_MODELS[name]())
    known = studied(model, samples_for(model, 400), Options(batch=40))
    keeps = random_keeps(known.network, np.random.default_rng(1), 0.6)
    prior = one_shot(known, keeps)
    done = in_order(known, prior)
    feed = samples_for(model, 200, seed=9)
    reference = run(model, feed)
    errors = [
        sum(
            float(((a - b) ** 2).sum())
            for a, b in zip(run(apply(model, known.plan(keeps), w), feed), reference, strict=True)
        )
        for w in (prior.weights, done.weights)
    ]
    assert done.solutions
    assert errors[1] < errors[0]


NO_SAMPLE_AXIS = {"LSTM, computed initial state"}
"""Micro models whose inputs have no axis of samples in common, so that there are no batches."""
QUICK = [name for place, name in enumerate(MICRO_MODELS) if place % 8 == 0 or name in BETTER]


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in MICRO_MODELS
    ],
)
def test_refitted_weights_fit_the_pruned_model(name, tmp_path):
    """Whatever stands between layers: slicing equals masking, and saved weights make it again."""
    model = behind_a_cut(MICRO_MODELS[name]())
    if name in NO_SAMPLE_AXIS:
        with pytest.raises(CalibrationError, match="disagree on the batch size"):
            studied(model, samples_for(model, 100), Options(batch=20))
        return
    known = studied(model, samples_for(model, 100), Options(batch=20))
    keeps = random_keeps(known.network, np.random.default_rng(0))
    done = in_order(known, one_shot(known, keeps))
    assert solved_in_order(known.study, known.study.survivors(keeps)) == done.solutions.keys()
    pruned = apply(model, known.plan(keeps), done.weights)
    structure_ok(pruned, model)
    subject = Subject(model)
    masked = scattered(subject, subject.alive(keeps), dict(done.weights.arrays))
    feed = random_feed(model, np.random.default_rng(1), 3)
    # weights that cancel each other amplify what rounds
    assert distance(run(pruned, feed), run(masked, feed)) <= 30 * tolerance(subject.network)
    done.weights.save(tmp_path / "weights.npz")
    again = apply(model, known.plan(keeps), Weights.load(tmp_path / "weights.npz"))
    assert again.SerializeToString() == pruned.SerializeToString()
