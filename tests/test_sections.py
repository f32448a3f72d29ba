"""Residual sections: what is found, and that dropping one equals multiplying its branch by zero."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np
import onnx
import pytest
from micro_sections import NOT_SECTIONS, REFUSED, RESIDUALS, without
from oracles import (
    Subject,
    masked,
    outputs_match,
    random_keeps,
    random_recovery,
    scattered,
    structure_ok,
    tolerance,
)
from test_cost import input_shapes, recount

from onnxprune.cost import cost_model
from onnxprune.errors import PlanMismatchError
from onnxprune.plan import Drop, Keep, Plan, Weights
from onnxprune.rewrite import apply
from onnxprune.section_search import find_sections
from onnxprune.sections import Section

Array = np.ndarray


def sections_of(micro: Subject) -> dict[str, Section]:
    """Name of a sum -> its section."""
    found = find_sections(micro.network, micro.canonical).found
    return {section.join.outputs[0].name: section for section in found}


def plan(micro: Subject, keeps: Mapping[str, Array], dropped: Mapping[str, Section]) -> Plan:
    drops = tuple(Drop(section.name) for section in dropped.values())
    return Plan(micro.digest, micro.plan(keeps).edits + drops)


def broadcast(section: Section, constant: Array | None) -> Array | None:
    """A constant per channel in a shape that is added along the section's channels."""
    if constant is None:
        return None
    trailing = len(section.join.outputs[0].shape) - section.tail.axis - 1
    return constant.reshape(-1, *[1] * trailing)


def oracle(
    micro: Subject,
    name: str,
    full_size: onnx.ModelProto,
    dropped: Mapping[str, Section],
    constants: Mapping[str, Array],
) -> onnx.ModelProto:
    """The full-size model without these branches."""
    summands = RESIDUALS[name].sections
    return without(
        full_size,
        {
            total: (summands[total], broadcast(section, constants.get(section.name)))
            for total, section in dropped.items()
        },
    )


def subsets(found: Mapping[str, Section]) -> list[dict[str, Section]]:
    return [
        dict(chosen) for size in range(1, len(found) + 1)
        for chosen in combinations(found.items(), size)
    ]  # fmt: skip


# --- what is found ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESIDUALS)
def test_the_sections_of_a_model(name: str) -> None:
    micro = Subject(RESIDUALS[name].build())
    found = sections_of(micro)
    made = {total: section.join.inputs[section.operand].name for total, section in found.items()}
    assert made == RESIDUALS[name].sections
    for total, section in found.items():
        assert len(section.tail.maps) == RESIDUALS[name].last.get(total, 1)


@pytest.mark.parametrize("name", REFUSED)
def test_joins_whose_branch_has_to_stay(name: str) -> None:
    build, reason = REFUSED[name]
    micro = Subject(build())
    sections = find_sections(micro.network, micro.canonical)
    assert sections.found == ()
    assert sections.frozen
    assert all(re.search(reason, frozen.reason) for frozen in sections.frozen)


@pytest.mark.parametrize("name", NOT_SECTIONS)
def test_sums_that_join_no_branch(name: str) -> None:
    micro = Subject(NOT_SECTIONS[name]())
    sections = find_sections(micro.network, micro.canonical)
    assert (sections.found, sections.frozen) == ((), ())


@pytest.mark.parametrize("name", RESIDUALS)
def test_branches_are_disjoint_or_nested(name: str) -> None:
    found = sections_of(Subject(RESIDUALS[name].build())).values()
    for one, other in combinations(found, 2):
        shared = set(one.branch) & set(other.branch)
        assert shared in (set(), set(one.branch), set(other.branch))


def test_a_branch_is_all_that_only_its_join_needs() -> None:
    micro = Subject(RESIDUALS["nested"].build())
    found = sections_of(micro)
    outputs = {node.name: node.outputs[0].name for node in micro.network.graph.nodes}
    assert [outputs[node] for node in found["l"].branch] == ["i", "j", "k"]
    assert [outputs[node] for node in found["g"].branch] == ["d", "e", "i", "j", "k", "l", "f"]
    assert (found["g"].inputs, found["g"].skip.name) == (("r",), "r")
    assert found["g"].channels == 8
    inner = [group.size for group in micro.network.groups if found["l"].holds(group)]
    outer = [group.size for group in micro.network.groups if found["g"].holds(group)]
    assert (inner, sorted(outer)) == ([5], [5, 6])


# --- dropping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESIDUALS)
def test_a_dropped_branch_is_one_that_is_multiplied_by_zero(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = Subject(RESIDUALS[name].build())
    for dropped in subsets(sections_of(micro)):
        keeps = random_keeps(micro.network, rng)
        pruned = apply(micro.model, plan(micro, keeps, dropped))
        structure_ok(pruned, micro.model)
        reference = oracle(micro, name, masked(micro, micro.alive(keeps)), dropped, {})
        outputs_match(pruned, reference, tolerance(micro.network), rng)
        left = {node.name for node in pruned.graph.node}
        gone = {node for section in dropped.values() for node in section.branch}
        assert not left & gone


@pytest.mark.parametrize("name", RESIDUALS)
def test_constants_and_recovered_weights_take_their_places(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = Subject(RESIDUALS[name].build())
    for dropped in subsets(sections_of(micro)):
        keeps = random_keeps(micro.network, rng)
        alive = micro.alive(keeps)
        recovered = random_recovery(micro, alive, rng)
        constants = {
            section.name: rng.standard_normal(section.channels).astype(np.float32)
            for section in dropped.values()
        }
        pruned = apply(micro.model, plan(micro, keeps, dropped), Weights(recovered, constants))
        structure_ok(pruned, micro.model)
        full_size = scattered(micro, alive, recovered)
        reference = oracle(micro, name, full_size, dropped, constants)
        outputs_match(pruned, reference, tolerance(micro.network), rng)


@pytest.mark.parametrize("name", RESIDUALS)
@pytest.mark.parametrize("known", [False, True])
def test_replaced_weights_do_what_dropping_does(name: str, known: bool) -> None:
    """Zero weights and a bias compute, at full size, what is left with the constant they make."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = Subject(RESIDUALS[name].build())
    for dropped in subsets(sections_of(micro)):
        replaced, constants = {}, {}
        for section in reversed(dropped.values()):  # what lies in another goes with it
            means = {m.name: rng.standard_normal(m.outputs) for m in section.tail.maps}
            own = section.replacements(means if known else {})
            assert all(not weight.any() for weight, _ in own.values())
            replaced = own | replaced
            constants[section.name] = section.constant(own).astype(np.float32)
            assert known or np.abs(constants[section.name]).max() < 1e-6
        alive = micro.alive({})
        full_size = scattered(micro, alive, replaced)
        pruned = apply(micro.model, plan(micro, {}, dropped), Weights({}, constants))
        outputs_match(pruned, full_size, 4 * tolerance(micro.network), rng)


def test_the_oracle_rejects_a_wrong_rewrite(rng: np.random.Generator) -> None:
    micro = Subject(RESIDUALS["nested"].build())
    found = sections_of(micro)
    dropped = {"g": found["g"]}
    constant = rng.standard_normal(8).astype(np.float32)
    constants = {found["g"].name: constant}
    reference = oracle(micro, "nested", micro.canonical, dropped, constants)
    limit = tolerance(micro.network)
    wrong = [
        (plan(micro, {}, {}), Weights({})),
        (plan(micro, {}, dropped), Weights({})),
        (plan(micro, {}, dropped), Weights({}, {found["g"].name: np.roll(constant, 1)})),
        (plan(micro, {}, {"l": found["l"]}), Weights({})),
    ]
    for edits, weights in wrong:
        with pytest.raises(AssertionError, match="outputs differ"):
            outputs_match(apply(micro.model, edits, weights), reference, limit, rng)
    right = apply(micro.model, plan(micro, {}, dropped), Weights({}, constants))
    outputs_match(right, reference, limit, rng)


def test_keeps_of_what_goes_say_nothing() -> None:
    micro = Subject(RESIDUALS["post-activation"].build())
    found = sections_of(micro)
    inner = next(group for group in micro.network.groups if found["g"].holds(group))
    stream = next(group for group in micro.network.groups if not found["g"].holds(group))
    keeps = {stream.name: np.array([1, 5])}
    pruned = apply(micro.model, plan(micro, keeps, found))
    assert pruned == apply(micro.model, plan(micro, keeps | {inner.name: np.array([3])}, found))


def test_what_does_not_fit_is_refused() -> None:
    micro = Subject(RESIDUALS["post-activation"].build())
    name = sections_of(micro)["g"].name
    drop, fitting = Drop(name), np.zeros(8, np.float32)
    for edits, constants, message in [
        ((Drop("nowhere"),), {}, "drops section 'nowhere', which the model lacks"),
        ((drop, drop), {}, "twice"),
        ((drop,), {name: fitting[:5]}, r"has shape \[5\], the model needs \[8\]"),
        ((), {name: fitting}, "which the plan does not drop"),
        ((drop, Keep("nobody", (0,), 3)), {}, "cuts group 'nobody'"),
    ]:
        with pytest.raises(PlanMismatchError, match=message):
            apply(micro.model, Plan(micro.digest, edits), Weights({}, constants))


# --- costs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RESIDUALS)
def test_costs_equal_a_recount_of_what_is_left(name: str) -> None:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    micro = Subject(RESIDUALS[name].build())
    found = sections_of(micro)
    costs = cost_model(
        micro.network, micro.canonical, input_shapes(micro.model), list(found.values())
    )
    sizes = [group.size for group in micro.network.groups]
    kept = [1] * len(found)
    before = recount(micro.canonical)
    assert (costs.macs(sizes + kept), costs.params(sizes + kept)) == pytest.approx(before)
    for dropped in subsets(found):
        keeps = random_keeps(micro.network, rng)
        counts = [keeps[group.name].size for group in micro.network.groups]
        counts += [total not in dropped for total in found]
        after = recount(apply(micro.model, plan(micro, keeps, dropped)))
        assert (costs.macs(counts), costs.params(counts)) == pytest.approx(after)
        assert after[0] < before[0]


def test_sections_leave_the_costs_of_the_others_alone() -> None:
    micro = Subject(RESIDUALS["nested"].build())
    plain = cost_model(micro.network, micro.canonical, input_shapes(micro.model))
    found = list(sections_of(micro).values())
    gated = cost_model(micro.network, micro.canonical, input_shapes(micro.model), found)
    counts = np.array([[3.0] * len(micro.network.groups), [2.0] * len(micro.network.groups)])
    staying = np.concatenate([counts, np.ones((2, len(found)))], axis=1)
    for name in ("macs", "params", "bytes"):
        np.testing.assert_allclose(getattr(gated, name)(staying), getattr(plain, name)(counts))
    assert (gated.node_macs, gated.shrinking) == (plain.node_macs, plain.shrinking)
