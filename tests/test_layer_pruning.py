"""Layer pruning in training: planted sections, what is computed, and the file that comes out."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from gated_networks import USELESS, VITAL, Run, batch, planted, torch
from micro_sections import NOT_SECTIONS, RESIDUALS
from oracles import distance, random_feed, structure_ok
from test_section_cut import MODELS, NORMALISED, normalised

from onnxprune.errors import UnsupportedModelError
from onnxprune.runtime import Session
from onnxprune.train.gate_options import ESTIMATORS, Estimator, GateOptions
from onnxprune.train.gated_sections import gated_sections
from onnxprune.train.gates import Gates
from onnxprune.train.layer_pruning import LayerPruning
from onnxprune.train.method import Changes
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.write_back import write_back

STEPS = 400
OPTIONS = GateOptions(price=0.03, decay=0.005, rate=0.5, warm_up=0.1, every=1)
ROUNDING = 2e-5
"""Some layers of float32 sums, in another order."""


def started(
    seed: int = 0, options: GateOptions = OPTIONS, steps: int = STEPS, decay: float = 1e-3
) -> tuple[Run, LayerPruning]:
    model = planted(100 * seed)
    network = TrainableNetwork(model)
    method = LayerPruning(network, model, options, samples=1000, seed=seed)
    samples = partial(drawn_for, seed)
    return Run(network, method, steps, samples, decay=decay), method


def drawn_for(seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return batch(step + 1000 * seed)


def of(method: LayerPruning, total: str) -> float:
    """The theta of the section with this sum."""
    (name,) = (section.name for section in method.sections if section.total == total)
    return method.theta[name]


# --- what is learnt -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("estimator", "decay"), [("two-pass", 1e-3), ("gradient", 1e-2)])
def test_a_useless_section_goes_and_a_vital_one_stays(
    estimator: Estimator, decay: float, seed: int
) -> None:
    """By the gradient the price has to be below decay |w|^2 for theta to come to 1."""
    run, method = started(seed, replace(OPTIONS, estimator=estimator), decay=decay)
    run.to(STEPS - 50)
    assert of(method, USELESS) == 0
    seen = [of(run.to(step) and method, VITAL) for step in range(STEPS - 50, STEPS + 1)]
    assert max(seen) == 1
    assert np.mean(seen) > 0.97
    assert [s.name for s in method.sections if s.total == USELESS] == method.pruned
    features, labels = batch(10**6, 1000)
    run.network.eval()
    with torch.no_grad():
        made = run.network({"x": features}, absent=method.evaluation().absent)["y"]
    assert (made.argmax(1) == labels).float().mean() > 0.93
    final = method.finish(write_back(planted(100 * seed), run.network))
    assert len(gated_sections(final).found) == 1


@pytest.mark.parametrize("seed", range(3))
def test_a_vital_section_settles_near_one_under_a_price_above_its_weights(seed: int) -> None:
    run, method = started(seed, replace(OPTIONS, estimator="gradient", rate=0.2))
    run.to(STEPS - 50)
    seen = [of(run.to(step) and method, VITAL) for step in range(STEPS - 50, STEPS + 1)]
    assert 0.8 < np.mean(seen) < 1


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_theta_is_moved_by_updates_of_the_gates_alone(
    estimator: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    update = Gates.update

    def watched(self: Gates, measured: np.ndarray, differences: np.ndarray) -> None:
        before = self.theta
        update(self, measured, differences)
        moves.append((before, self.theta, differences))

    monkeypatch.setattr(Gates, "update", watched)
    run, method = started(0, replace(OPTIONS, estimator=estimator), 60)
    before = np.array(list(method.theta.values()))
    for end in range(1, 61):
        done = len(moves)
        run.to(end)
        assert len(moves) - done <= 1
        if len(moves) > done:
            np.testing.assert_array_equal(moves[-1][0], before)
            before = moves[-1][1]
        np.testing.assert_array_equal(list(method.theta.values()), before)
    assert len(moves) > 40
    monkeypatch.setattr(Gates, "update", lambda *_: None)
    again, still = started(0, replace(OPTIONS, estimator=estimator), 60)
    again.to(60)
    assert set(still.theta.values()) == {0.5}


def test_nothing_happens_in_the_warm_up() -> None:
    run, method = started(0, replace(OPTIONS, price=10.0, warm_up=0.5, tests=1, test_every=1), 40)
    run.to(20)
    assert set(method.theta.values()) == {0.5}
    assert method.pruned == []
    run.to(40)
    assert max(method.theta.values()) < 0.5


def test_two_passes_measure_the_difference_of_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against both losses, computed by hand before the weights move."""
    run, method = started(0, replace(OPTIONS, warm_up=0.0), 10)
    measured: list[tuple[int, float]] = []
    monkeypatch.setattr(
        Gates,
        "update",
        lambda self, places, differences: measured.append((places[0], differences[0])),
    )
    before_forward = method.before_forward
    expected: list[dict[int, float]] = []

    def remember(step):
        changes = before_forward(step)
        own: dict[int, float] = {}
        for place, section in enumerate(method.sections):
            others = set(changes.absent) - {section.made}
            with torch.no_grad():
                on, off = (
                    float(step.loss(Changes(absent=frozenset(absent))))
                    for absent in (others, others | {section.made})
                )
            own[place] = on - off
        expected.append(own)
        return changes

    monkeypatch.setattr(method, "before_forward", remember)
    run.to(10)
    assert [place for place, _ in measured] == [0, 1] * 5
    for (place, difference), own in zip(measured, expected, strict=True):
        assert difference == pytest.approx(own[place], abs=1e-6)


def test_the_gradient_is_that_of_a_factor_at_the_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against central differences of the loss by a factor of the branch."""
    options = replace(OPTIONS, warm_up=0.0, initial=1.0, estimator="gradient")
    run, method = started(0, options, 3)
    measured: list[np.ndarray] = []
    monkeypatch.setattr(Gates, "update", lambda self, places, slopes: measured.append(slopes))
    before_forward = method.before_forward
    expected: list[list[float]] = []

    def remember(step):
        slopes = []
        for section in method.sections:
            with torch.no_grad():
                high, low = (
                    float(step.loss(Changes({section.made: lambda t, f=f: f * t})))
                    for f in (1.01, 0.99)
                )
            slopes.append((high - low) / 0.02)
        expected.append(slopes)
        return before_forward(step)

    monkeypatch.setattr(method, "before_forward", remember)
    run.to(3)
    np.testing.assert_allclose(measured, expected, rtol=2e-2, atol=1e-4)


# --- what is computed ---------------------------------------------------------------------------


def test_sections_that_are_off_are_not_executed() -> None:
    run, method = started(0, replace(OPTIONS, estimator="gradient", warm_up=0.9), 50)
    sections = method.sections
    on: Counter[str] = Counter()
    before_forward = method.before_forward

    def counted(step):
        changes = before_forward(step)
        run.network.executed.clear() if step.number == 0 else None
        on.update(s.name for s in sections if s.made not in changes.absent)
        return changes

    method.before_forward = counted  # type: ignore[method-assign]
    run.to(40)
    makers = {node.outputs[0]: node.name for node in run.network.graph.nodes}
    for section in sections:
        assert 0 < on[section.name] < 40
        for made in section.nodes:
            assert run.network.executed[makers[made]] == on[section.name]
    assert run.network.executed[makers["y"]] == 40
    share = method.columns()["executed"]
    macs = {"f": 64, "h": 128, "b": 32, "d": 128, "y": 16}
    spent = sum(macs[made] * run.network.executed[makers[made]] for made in macs)
    assert share == pytest.approx(spent / (40 * sum(macs.values())))


def test_measuring_costs_what_it_executes() -> None:
    run, method = started(0, replace(OPTIONS, initial=1.0, warm_up=0.0), 1)
    run.to(1)
    whole, useless = 368, 192
    assert method.columns()["executed"] == pytest.approx(1 + (whole - useless) / (3 * whole))


# --- cutting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_network_that_is_cut_computes_what_it_did_with_branches_absent(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model = normalised(MODELS[name](), 0) if name in NORMALISED else MODELS[name]()
    found = gated_sections(model).found
    feed = {k: torch.tensor(v) for k, v in random_feed(model, rng, 2, 9).items()}
    for size in range(1, len(found) + 1):
        for gone in itertools.combinations(found, size):
            network = TrainableNetwork(model)
            network.eval()
            absent = {section.made for section in gone}
            expected = network(feed, absent=absent)
            weights = set(network.weights)
            network.cut(absent)
            made = network(feed)
            for output, value in expected.items():
                assert torch.equal(made[output], value)
            executed = set(network.executed)
            network.executed.clear()
            network(feed)
            assert set(network.executed) <= executed
            read = {tensor for node in network.graph.nodes for tensor in node.inputs}
            assert set(network.weights) == weights & read
            assert len(list(network.parameters())) == len(network.weights)
            assert set(network.statistics) <= read
            write_back(model, network)


def test_the_file_equals_the_gated_network() -> None:
    run, method = started(1)
    run.to(300)
    assert method.pruned
    model = planted(100)
    final = method.finish(write_back(model, run.network))
    structure_ok(final, model)
    features, _ = batch(3)
    run.network.eval()
    with torch.no_grad():
        changes = method.evaluation()
        made = run.network({"x": features}, taps=changes.taps, absent=changes.absent)["y"]
    ours = Session(final, threads=1).run({"x": features.numpy()})
    assert distance([made.numpy()], ours) < ROUNDING
    assert len(final.graph.node) < len(model.graph.node)
    names = {tensor.name for tensor in final.graph.initializer}
    assert not names & {"w1", "b1", "w2", "b2"}


def test_training_goes_on_with_what_is_left() -> None:
    """Moments of the optimiser and the weights that stay are untouched by a cut."""
    run, method = started(0, replace(OPTIONS, tests=10**6))
    run.to(200)
    (useless,) = (s for s in method.sections if s.total == USELESS)
    stays = {k: v for k, v in run.network.weights.items() if k not in ("w1", "b1", "w2", "b2")}
    values = {name: weight.detach().clone() for name, weight in stays.items()}
    moments = {name: run.optimiser.state[weight] for name, weight in stays.items()}
    method._prune([useless])
    assert set(run.network.weights) == set(stays)
    for name, weight in run.network.weights.items():
        assert weight is stays[name]
        assert torch.equal(weight, values[name])
        assert run.optimiser.state[weight] is moments[name]
    run.to(210)


def test_a_model_without_sections_is_refused() -> None:
    model = NOT_SECTIONS["a chain"]()
    with pytest.raises(
        UnsupportedModelError, match=r"no residual section can have a gate.*bypasses"
    ):
        LayerPruning(TrainableNetwork(model), model, OPTIONS, samples=10)


def test_a_section_inside_of_another_goes_with_it() -> None:
    model = MODELS["nested"]()
    network = TrainableNetwork(model)
    method = LayerPruning(network, model, OPTIONS, samples=10)
    inner, outer = method.sections
    method._prune([outer])
    assert method.pruned == [inner.name, outer.name]
    assert method.theta == {inner.name: 0.0, outer.name: 0.0}
    assert {node.op_type for node in method.finish(model).graph.node} <= {"Conv", "Relu"}


def test_the_input_model_is_left_alone() -> None:
    model = planted()
    before = model.SerializeToString()
    network = TrainableNetwork(model)
    method = LayerPruning(network, model, OPTIONS, samples=10)
    method._prune(list(method.sections))
    method.finish(model)
    assert model.SerializeToString() == before
    assert isinstance(model, onnx.ModelProto)
