"""Sections as choices: what is lost is measured, and dropping competes with narrowing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from micro_models import build, positive
from micro_sections import RESIDUALS
from small_networks import QUIET, random_samples

from onnxprune.allocation import Bound, GroupChoice
from onnxprune.api import Pruner, apply_plan
from onnxprune.batches import Batches
from onnxprune.calibration import split
from onnxprune.canonical import canonicalise
from onnxprune.choice import Chooser, allocate
from onnxprune.cli import prune
from onnxprune.cli.run_settings import options
from onnxprune.cost import cost_model
from onnxprune.errors import TargetError
from onnxprune.finishing import plan_of
from onnxprune.greedy import CountSearch, least_damage
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.options import Options
from onnxprune.plan import Drop, Plan, Weights
from onnxprune.rewrite import apply, digest
from onnxprune.runtime import Session
from onnxprune.scope import Scope
from onnxprune.section_choice import (
    droppable_sections,
    dropped,
    drops,
    prior_of,
    replacements,
    section_choices,
    settled,
    with_constants,
)
from onnxprune.sensitivity import measure_sections
from onnxprune.sequential import refit_in_order, solved_in_order
from onnxprune.study import Study, study
from onnxprune.target import Target
from onnxprune.trials import Trials
from onnxprune.validation import compare

Array = np.ndarray
OPTIONS = Options(align=1, latency=False, sections=True)


def studied(model: onnx.ModelProto, options: Options = OPTIONS) -> tuple[Study, Batches, Batches]:
    """The study of a model with all sections in its scope, and samples to fit and to tune on."""
    canonical = canonicalise(model)
    network = find_groups(canonical)
    sections = droppable_sections(network, canonical, options)
    scope = Scope.of(network, network.groups, options.composition.align, sections)
    samples = open_samples(model, random_samples(model, 120), options)
    parts = split(len(samples), options.seed)
    known = study(canonical, scope, samples, parts, options, QUIET)
    fit, tune = (Batches(samples, indices, options.batch) for indices in (parts.fit, parts.tune))
    return known, fit, tune


def trials_of(known: Study, fit: Batches, tune: Batches, options: Options = OPTIONS) -> Trials:
    """Trials on all samples."""
    return Trials(known, fit, tune, options, QUIET)


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["post-activation", "nested", "sum of two layers", "gated branch", "layer scale",
             "attention and feed-forward", "scaled and shifted", "down and up again"],
)  # fmt: skip
@pytest.mark.parametrize("sequential", [False, True])
def test_a_trial_is_at_the_distance_of_the_network_without_the_section(
    name: str, sequential: bool
) -> None:
    model = RESIDUALS[name].build()
    known, fit, tune = studied(model)
    options = replace(OPTIONS, sequential=sequential)
    trials = trials_of(known, fit, tune, options)
    damage = measure_sections(known, trials)
    for section in known.sections:
        counts = {section.name: 0}
        (tried,) = trials.tried([counts])
        weights = with_constants(tried.weights, known, dropped(known, counts))
        pruned = apply(model, Plan(digest(model), drops(known, counts)), weights)
        (wanted,) = compare(model, pruned, tune, QUIET)
        assert wanted.divergence > 0
        assert damage[section.name] == pytest.approx(wanted.divergence, rel=2e-3)
        feed = next(iter(tune))
        predicted, made = trials.predict(feed, tried)[0], Session(pruned).run(feed)[0]
        np.testing.assert_allclose(predicted, made, rtol=1e-3, atol=1e-4)


def test_a_trial_narrows_and_drops_at_once() -> None:
    model = RESIDUALS["nested"].build()
    known, fit, tune = studied(model)
    inner = known.sections[0]
    counts = {group.name: group.size // 2 for group in known.groups} | {inner.name: 0}
    counts = settled(known, counts)
    assert 0 < len(known.keeps(counts)) < len(known.groups)
    (tried,) = trials_of(known, fit, tune).tried([counts])
    plan = plan_of(model, known, counts)
    pruned = apply(model, plan, with_constants(tried.weights, known, [inner]))
    (wanted,) = compare(model, pruned, tune, QUIET)
    assert tried.divergence == pytest.approx(wanted.divergence, rel=2e-3)


def test_the_mean_takes_the_place_of_a_branch() -> None:
    """What is added is the mean of what the branch added, to the last map's own statistics."""
    model = RESIDUALS["scaled and shifted"].build()
    known, *_ = studied(model)
    (section,) = known.sections
    constant = with_constants(Weights({}), known, [section]).constants[section.name]
    with_branch = onnx.ModelProto.FromString(known.canonical.SerializeToString())
    made = section.join.inputs[section.operand].name
    del with_branch.graph.output[:]
    with_branch.graph.output.append(onnx.helper.make_tensor_value_info(made, 1, None))
    samples = open_samples(model, random_samples(model, 120), OPTIONS)
    fit = split(len(samples), 0).fit
    feed = {"x": random_samples(model, 120)["x"][fit]}
    (observed,) = Session(with_branch).run(feed)
    mean, spread = observed.mean(axis=(0, 2, 3)), observed.std(axis=(0, 2, 3))
    assert np.all(np.abs(constant - mean) < 0.15 * spread)
    assert np.abs(constant).max() > 0.1 * spread.max()


def test_means_are_known_where_no_channel_is_cut() -> None:
    """The last map reads units that an option leaves whole."""
    model = RESIDUALS["post-activation"].build()
    known, *_ = studied(model)
    (section,) = known.sections
    everywhere = with_constants(Weights({}), known, [section]).constants[section.name]
    stream = [group for group in known.groups if not section.holds(group)]
    (last,) = section.tail.maps
    assert not any(last.name in group.consumers for group in stream)
    canonical = known.canonical
    network = find_groups(canonical)
    scope = Scope.of(network, stream, 1, droppable_sections(network, canonical, OPTIONS))
    samples = open_samples(model, random_samples(model, 120), OPTIONS)
    narrow = study(canonical, scope, samples, split(len(samples), 0), OPTIONS, QUIET)
    found = with_constants(Weights({}), narrow, [section]).constants[section.name]
    np.testing.assert_allclose(found, everywhere, rtol=1e-5)


def test_replacements_of_nested_sections_are_those_of_the_outer_one() -> None:
    known, *_ = studied(RESIDUALS["nested"].build())
    inner, outer = known.sections
    both = replacements(known, [inner, outer])
    assert set(both) == {m.name for s in (inner, outer) for m in s.tail.maps}
    assert all(not weight.any() for weight, _ in both.values())


# --- the allocation -----------------------------------------------------------------------------


def problem(rng: np.random.Generator) -> tuple[list[GroupChoice], list[Bound]]:
    """Five groups in two sections, one of them in a section inside, and a cost with gates."""

    def group(name: str) -> GroupChoice:
        allowed = np.sort(rng.choice(np.arange(1, 20), 3, replace=False))
        damage = np.append(np.sort(rng.exponential(size=2))[::-1], 0.0)
        return GroupChoice(name, allowed, damage, damage)

    def section(name: str, *inner: str) -> GroupChoice:
        lost = np.array([rng.exponential() * 2, 0.0])
        return GroupChoice(name, np.arange(2), lost, lost, inner)

    groups = [group(name) for name in "abcde"]
    groups += [section("in", "b"), section("out", "b", "c", "in"), section("other", "d")]
    weights = rng.uniform(0.5, 3, 6)

    def cost(counts: Array) -> Array:
        a, b, c, d, e, inner, outer, other = np.moveaxis(np.asarray(counts, float), -1, 0)
        terms = (
            a * e,
            a * b * inner * outer,
            a * c * outer,
            b * c * outer * inner,
            a * d * other,
            e,
        )
        return sum(w * term for w, term in zip(weights, terms, strict=True))

    full = float(cost(np.array([g.allowed[-1] for g in groups])))
    least = float(cost(np.array([g.allowed[0] for g in groups])))
    return groups, [Bound("cost", cost, least + rng.uniform(0.1, 0.9) * (full - least), full)]


def damage_by_hand(groups: list[GroupChoice], levels: tuple[int, ...]) -> float:
    gone = {
        name for group, level in zip(groups, levels, strict=True)
        if group.allowed[level] == 0 for name in group.inner
    }  # fmt: skip
    return sum(
        float(group.damage[level]) for group, level in zip(groups, levels, strict=True)
        if group.name not in gone
    )  # fmt: skip


def test_prices_are_differences_of_the_total() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        groups, bounds = problem(rng)
        search = CountSearch(groups, bounds)
        start = tuple(int(rng.integers(len(g.allowed))) for g in groups)
        levels = np.array(start)
        assert search.damage(levels) == pytest.approx(damage_by_hand(groups, start))
        prices = search._prices(levels)
        for place, group in enumerate(groups):
            for level in range(len(group.allowed)):
                moved = (*start[:place], level, *start[place + 1 :])
                wanted = damage_by_hand(groups, moved) - damage_by_hand(groups, start)
                found = prices[place, level] - prices[place, start[place]]
                assert found == pytest.approx(wanted)


def test_the_search_is_near_the_best_mix() -> None:
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(12):
        groups, bounds = problem(rng)
        found = least_damage(groups, bounds, 600)
        assert float(bounds[0].cost(found)) <= bounds[0].limit
        levels = tuple(
            int(np.searchsorted(g.allowed, n)) for g, n in zip(groups, found, strict=True)
        )
        every = np.array(list(itertools.product(*(range(len(g.allowed)) for g in groups))))
        counts = np.stack([g.allowed[every[:, i]] for i, g in enumerate(groups)], axis=1)
        allowed = every[bounds[0].cost(counts) <= bounds[0].limit]
        best = min(damage_by_hand(groups, tuple(row)) for row in allowed)
        ratios.append((damage_by_hand(groups, levels) + 1e-9) / (best + 1e-9))
    assert np.median(ratios) < 1.02
    assert max(ratios) < 1.6


def test_a_dropped_section_leaves_its_groups_whole() -> None:
    known, *_ = studied(RESIDUALS["nested"].build())
    inner, outer = known.sections
    halves = {group.name: group.size // 2 for group in known.groups}
    choices = {choice.name: choice for choice in section_choices(known, {outer.name: 1.0})}
    assert choices[inner.name].allowed.tolist() == [1]
    assert choices[outer.name].allowed.tolist() == [0, 1]
    inside = [g.name for g in known.groups if outer.holds(g)]
    assert choices[outer.name].inner == (*sorted(inside), inner.name)
    kept = settled(known, halves | {inner.name: 0, outer.name: 0})
    assert dropped(known, kept) == [outer]
    for group in known.groups:
        assert kept[group.name] == (group.size if group.name in inside else group.size // 2)
    assert settled(known, halves | {inner.name: 1, outer.name: 1}) == halves | {
        inner.name: 1, outer.name: 1,
    }  # fmt: skip


# --- whole runs ---------------------------------------------------------------------------------


def blocks(*scales: float) -> onnx.ModelProto:
    """Residual blocks on eight channels, their last layers multiplied by these numbers."""
    nodes, weights = ["c = Conv <pads=[1,1,1,1]> (x, w1) r0 = Relu(c)"], {"w1": (8, 3, 3, 3)}
    for i, scale in enumerate(scales):
        nodes.append(
            f"a{i} = Conv <pads=[1,1,1,1]> (r{i}, u{i}) b{i} = Relu(a{i})"
            f" f{i} = Conv <pads=[1,1,1,1]> (b{i}, v{i}) g{i} = Add(r{i}, f{i})"
            f" r{i + 1} = Relu(g{i})"
        )
        made = np.random.default_rng(i).standard_normal((8, 8, 3, 3)) / np.sqrt(72)
        weights |= {f"u{i}": (8, 8, 3, 3), f"v{i}": (scale * made).astype(np.float32)}
    nodes.append(f"p = GlobalAveragePool(r{len(scales)}) q = Flatten(p) y = MatMul (q, w2)")
    return build(" ".join(nodes), weights | {"w2": positive(3, 8, 5)}, outputs="float[N,5] y")


def test_the_section_that_does_nothing_is_dropped() -> None:
    model = blocks(1.0, 0.01, 1.0)
    pruner = Pruner(model, random_samples(model, 160), OPTIONS)
    result = pruner.prune([Target("macs", 0.69)])
    (section,) = result.report.sections
    assert result.plan.drops == (section.name,)
    assert section.name == "Add_10"
    left = {node.name for node in result.model.graph.node}
    assert not left & set(section.layers)
    assert section.macs_share == pytest.approx(1152 / 3672, rel=0.02)
    assert result.report.after.macs <= 0.69 * result.report.before.macs
    assert all(group.name not in section.groups for group in result.report.groups)
    assert "dropped:\n  Add_10: 3 nodes (31." in result.report.table()
    record = json.loads(json.dumps(result.report.to_dict()))
    assert record["sections"][0]["divergence"] == section.divergence


def test_the_plan_makes_the_model_again(tmp_path) -> None:
    model = blocks(1.0, 0.01)
    result = Pruner(model, random_samples(model, 160), OPTIONS).prune([Target("macs", 0.6)])
    assert result.plan.drops
    onnx.save(model, tmp_path / "in.onnx")
    result.plan.save(tmp_path / "plan.json")
    result.weights.save(tmp_path / "plan.npz")
    plan, weights = Plan.load(tmp_path / "plan.json"), Weights.load(tmp_path / "plan.npz")
    apply_plan(tmp_path / "in.onnx", plan, tmp_path / "out.onnx", weights)
    assert onnx.load(tmp_path / "out.onnx") == result.model


@pytest.mark.parametrize(
    "options",
    [
        {"sections": False},
        {"allocation": "uniform"},
        {"allocation": "error"},
        {"exclude": "^Conv_7$"},
        {"include": "^Conv_2$"},
    ],
)
def test_sections_that_must_stay(options: dict[str, object]) -> None:
    model = blocks(1.0, 0.01, 1.0)
    settings = replace(OPTIONS, **options)  # type: ignore[arg-type]
    result = Pruner(model, random_samples(model, 160), settings).prune([Target("macs", 0.85)])
    assert "Add_10" not in result.plan.drops
    assert result.report.sections == [] or "include" in options


def test_a_target_only_dropping_can_reach() -> None:
    model = blocks(1.0, 1.0, 1.0)
    samples = random_samples(model, 160)
    kept = Options(align=1, latency=False, sections=False, include="^Conv_2$")
    with pytest.raises(TargetError):
        Pruner(model, samples, kept).prune([Target("macs", 0.69)])
    both = replace(OPTIONS, include="^Conv_2$")
    result = Pruner(model, samples, both).prune([Target("macs", 0.69)])
    assert result.plan.drops == ("Add_5",)


def test_allocations_without_damage_keep_sections() -> None:
    model = blocks(1.0, 0.01)
    known, fit, tune = studied(model)
    macs = Bound("channels", lambda counts: counts.sum(axis=-1), 20.0, 26.0)
    counts = allocate(known, [macs], "uniform", {})
    assert all(counts[section.name] == 1 for section in known.sections)
    chooser = Chooser(known, fit, tune, Options(allocation="uniform"), QUIET)
    assert chooser.drops == {}


def test_the_command_asks_for_sections() -> None:
    words = ["in.onnx", "out.onnx", "--calib", "x.npz"]
    assert not options(prune.parser().parse_args(words)).sections
    assert options(prune.parser().parse_args([*words, "--sections"])).sections


def test_one_drop_edit_for_one_section() -> None:
    known, *_ = studied(RESIDUALS["nested"].build())
    inner, outer = known.sections
    assert drops(known, {inner.name: 0}) == (Drop(inner.name),)
    assert drops(known, {inner.name: 1, outer.name: 1}) == ()


# --- by trial -----------------------------------------------------------------------------------


class Judged(Chooser):
    """Whose trials say what they are told to."""

    def __init__(self, *arguments: object, damage: Callable[[Mapping[str, int]], float]) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        judge = SimpleNamespace(
            tried=lambda plans, _label: [SimpleNamespace(divergence=damage(p)) for p in plans]
        )
        self.__dict__["finalists"] = judge


@pytest.mark.parametrize("worse", [True, False])
def test_sections_are_dropped_only_if_the_whole_plan_is_better(worse: bool) -> None:
    model = blocks(1.0, 0.01, 1.0)
    known, fit, tune = studied(model)
    canonical = known.canonical
    cost = cost_model(known.network, canonical, {"x": (1, 3, 8, 8)}, known.sections)
    full = float(cost.macs(known.sizes))
    bound = Bound("macs", cost.macs, 0.69 * full, full)

    def damage(counts: Mapping[str, int]) -> float:
        return 1.0 + (len(dropped(known, counts)) * (1 if worse else -1))

    counts = Judged(known, fit, tune, OPTIONS, QUIET, damage=damage).under([bound]).counts
    assert float(cost.macs(known.counts(counts))) <= bound.limit
    if worse:
        assert dropped(known, counts) == []
        assert known.keeps(counts)
    else:
        assert [section.name for section in dropped(known, counts)] == ["Add_10"]


def test_channels_of_dropped_sections_are_not_kept() -> None:
    known, *_ = studied(RESIDUALS["nested"].build())
    inner, outer = known.sections
    everything = known.channels(known.sizes)
    sizes = {group.name: group.size for group in known.groups}
    assert everything == sum(sizes.values())
    for section in (inner, outer):
        inside = sum(g.size for g in known.groups if section.holds(g))
        assert inside
        assert known.channels(known.counts({section.name: 0})) == everything - inside
    both = known.counts({inner.name: 0, outer.name: 0})
    assert known.channels(both) == known.channels(known.counts({outer.name: 0}))
    rows = np.stack([known.sizes, both])
    assert known.channels(rows).tolist() == [everything, known.channels(both)]


def test_a_ratio_holds_where_sections_are_dropped() -> None:
    model = blocks(1.0, 0.01, 1.0)
    result = Pruner(model, random_samples(model, 160), OPTIONS).prune([Target("ratio", 0.3)])
    assert result.plan.drops
    (check,) = result.report.targets
    left = sum(len(group.keep) for group in result.report.groups)
    assert check.reached == left <= check.limit


# --- refitted in order --------------------------------------------------------------------------


def test_a_section_is_priced_with_what_follows_refitted() -> None:
    model = blocks(0.5, 0.5, 0.5)
    known, fit, tune = studied(model)
    in_order = Chooser(known, fit, tune, OPTIONS, QUIET).drops
    alone = Chooser(known, fit, tune, replace(OPTIONS, sequential=False), QUIET).drops
    assert set(in_order) == set(alone) == {section.name for section in known.sections}
    assert all(in_order[name] < 0.9 * alone[name] for name in alone)


@pytest.mark.parametrize("name", ["projection", "post-activation", "nested"])
def test_what_follows_a_dropped_section_takes_its_part_over(name: str) -> None:
    model = RESIDUALS[name].build()
    known, fit, tune = studied(model)
    samples, parts = tune.samples, split(len(tune.samples), 0)
    section = known.sections[-1]
    gone = set(section.branch)
    prior = prior_of(known, {section.name: 0}, known.recovery)
    (refitted,) = refit_in_order(known, [prior], known.recovery, fit, tune, QUIET)
    ordered = refitted.weights
    assert ordered.arrays
    alive = known.survivors(known.keeps({section.name: 0}))
    assert solved_in_order(known, alive, [section]) == refitted.solutions.keys()
    assert not gone & set(ordered.arrays)
    plan = Plan(digest(model), (Drop(section.name),))
    held_out = Batches(samples, parts.held_out, tune.size)
    errors = []
    for weights in (prior.weights, ordered):
        pruned = apply(model, plan, with_constants(weights, known, [section]))
        errors.append(compare(model, pruned, held_out, QUIET))
    before, after = (found.relative_error for (found,) in errors)
    assert after < 0.98 * before
