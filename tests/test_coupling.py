"""Facts about axes become channels; channels become groups with balanced parts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.arrays import IndexArray
from onnxprune.components import GRID_IN_PARTS, TWO_WAYS, Components
from onnxprune.coupling import Coupling
from onnxprune.partition import UNEVEN, Cell, merge_balanced, same_axes


@dataclass(eq=False)
class Tensor:
    name: str = "t"
    shape: list[int | str | None] | None = field(default_factory=lambda: [4])


def axis_of(extent: int | str | None) -> Tensor:
    return Tensor(shape=[extent])


def merged(coupling: Coupling) -> tuple[list[Cell], dict[int, str]]:
    components = coupling.components()
    reasons = dict(components.reasons)
    prunable = np.setdiff1d(np.arange(components.count), list(reasons))
    cells = same_axes([slots for _, _, slots in coupling.axes()], components, prunable)
    return merge_balanced(components, cells, reasons), reasons


def by_hand(count: int, edges: list[tuple[int, int]]) -> list[int]:
    """Union-find without any shortcut: the smallest member names the set."""
    label = list(range(count))
    for left, right in edges:
        old, new = label[left], label[right]
        label = [min(old, new) if x in (old, new) else x for x in label]
    return label


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 11), min_size=1, max_size=4),
            st.randoms(use_true_random=False),
        ),
        max_size=6,
    )
)
def test_components_are_those_of_union_find(facts: list[tuple[list[int], object]]) -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(12), 0)
    edges: list[tuple[int, int]] = []
    for left, random in facts:
        right = [random.randrange(12) for _ in left]  # type: ignore[attr-defined]
        coupling.couple(slots[left], slots[right])
        edges += zip(left, right, strict=True)
    components = coupling.components()
    expected = by_hand(12, edges)
    assert components.count == len(set(expected))
    same = components.label[:, None] == components.label[None, :]
    assert np.array_equal(same, np.equal.outer(expected, expected))


def test_an_axis_has_the_same_slots_each_time_and_tensors_are_told_apart_by_identity() -> None:
    coupling = Coupling()
    one, two = Tensor("same"), Tensor("same")
    assert np.array_equal(coupling.axis(one, 0), coupling.axis(one, 0))
    assert not set(coupling.axis(one, 0)) & set(coupling.axis(two, 0))
    assert coupling.live(one) == [0]
    assert coupling.live(Tensor()) == []


@pytest.mark.parametrize(
    "tensor", [axis_of("N"), axis_of(None), Tensor(shape=None), Tensor(shape=[])]
)
def test_an_unknown_extent_has_no_slots_and_freezes_what_is_coupled_to_it(tensor: Tensor) -> None:
    coupling = Coupling()
    known = coupling.axis(axis_of(4), 0)
    assert coupling.axis(tensor, 0).size == 0
    coupling.couple(known, coupling.axis(tensor, 0))
    reasons = coupling.components().reasons
    assert len(reasons) == 4
    assert set(reasons.values()) == {"an extent is dynamic or does not match its neighbour's"}


def test_freezing_one_index_freezes_its_channel_everywhere() -> None:
    coupling = Coupling()
    a, b = coupling.axis(axis_of(4), 0), coupling.axis(axis_of(4), 0)
    coupling.freeze(b[1:2], "because")
    coupling.couple(a, b)  # a fact learnt late counts as well
    components = coupling.components()
    assert components.reasons == {int(components.label[a[1]]): "because"}


def test_the_first_reason_stays() -> None:
    coupling = Coupling()
    a = coupling.axis(axis_of(2), 0)
    coupling.freeze(a, "first")
    coupling.freeze(a, "second")
    assert set(coupling.components().reasons.values()) == {"first"}


def test_channels_on_different_axes_do_not_compete() -> None:
    coupling = Coupling()
    whole = coupling.axis(axis_of(6), 0)
    coupling.couple(whole[:2], coupling.axis(axis_of(2), 0))
    cells, _ = merged(coupling)
    assert [cell.channels.size for cell in cells] == [2, 4]
    assert all(cell.parts.max() == 0 for cell in cells)


def test_channels_that_an_axis_holds_unequally_often_do_not_compete() -> None:
    """Cutting one of them would save more than cutting another."""
    coupling = Coupling()
    x, y = coupling.axis(axis_of(3), 0), coupling.axis(axis_of(4), 0)
    coupling.couple(x[[0, 1, 1, 2]], y)
    cells, _ = merged(coupling)
    assert [cell.channels.size for cell in cells] == [2, 1]


def test_balanced_parts_are_numbered_in_axis_order() -> None:
    coupling = Coupling()
    coupling.balance(coupling.axis(axis_of(6), 0), 3)
    (cell,), _ = merged(coupling)
    assert cell.parts.tolist() == [0, 0, 1, 1, 2, 2]


def test_two_partitions_of_one_axis_refine_each_other() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(12), 0)
    coupling.balance(slots, 2)
    coupling.balance(slots, 4)
    (cell,), _ = merged(coupling)
    assert cell.parts.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_crossed_partitions_refine_into_their_common_parts() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(8), 0)
    other = coupling.axis(axis_of(8), 0)
    coupling.couple(slots.reshape(2, 4).T.reshape(-1), other)  # a channel shuffle
    coupling.balance(slots, 2)
    coupling.balance(other, 2)
    (cell,), _ = merged(coupling)
    assert np.bincount(cell.parts).tolist() == [2, 2, 2, 2]


def test_common_parts_of_different_sizes_freeze() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(12), 0)
    coupling.balance(slots, 2)
    coupling.balance(slots, 3)  # common parts of 4, 2, 2 and 4
    cells, reasons = merged(coupling)
    assert cells == []
    assert set(reasons.values()) == {UNEVEN}
    assert len(reasons) == 12


@pytest.mark.parametrize(("parts", "each"), [(3, 8), (2, 5), (4, 6), (3, 20)])
def test_crossed_partitions_without_even_common_parts_have_units_across(
    parts: int, each: int
) -> None:
    """A shuffle between grouped convolutions of 3 * 8 channels, of which 8 / 3 is no number."""
    coupling = Coupling()
    slots = coupling.axis(axis_of(parts * each), 0)
    other = coupling.axis(axis_of(parts * each), 0)
    shuffled = slots.reshape(parts, each).T.reshape(-1)
    coupling.couple(shuffled, other)
    coupling.balance(slots, parts)
    coupling.balance(other, parts)
    (cell,), _ = merged(coupling)
    assert cell.parts.tolist() == [0] * each
    label = coupling.components().label
    unit_of = dict(zip(cell.channels.tolist(), cell.units.tolist(), strict=True))
    for axis in (slots, other):
        for part in axis.reshape(parts, each):
            assert sorted(unit_of[label[slot]] for slot in part) == list(range(each))


def test_an_axis_that_does_not_divide_is_frozen() -> None:
    coupling = Coupling()
    coupling.balance(coupling.axis(axis_of(7), 0), 2)
    cells, reasons = merged(coupling)
    assert cells == []
    assert set(reasons.values()) == {UNEVEN}


def test_frozen_spreads_through_a_balanced_axis_and_keeps_its_reason() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(8), 0)
    free = coupling.axis(axis_of(3), 0)
    coupling.balance(slots, 2)
    coupling.freeze(slots[5:6], "an output")
    cells, reasons = merged(coupling)
    assert [cell.channels.tolist() for cell in cells] == [free.tolist()]
    assert set(reasons.values()) == {"an output"}
    assert len(reasons) == 8


def test_frozen_spreads_from_one_balanced_axis_to_the_next() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(8), 0)
    first, second = coupling.axis(axis_of(6), 0), coupling.axis(axis_of(6), 0)
    coupling.couple(slots[:4], first[:4])
    coupling.couple(slots[4:], second[:4])
    coupling.balance(first, 2)
    coupling.balance(slots, 2)
    coupling.balance(second, 2)
    coupling.freeze(first[5:], "an output")
    cells, _ = merged(coupling)
    assert cells == []


def test_no_cell_of_a_balanced_axis_can_be_emptied() -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(8), 0)
    coupling.balance(slots, 2)
    coupling.couple(slots[:4], coupling.axis(axis_of(4), 0))
    (cell,), _ = merged(coupling)
    assert cell.parts.tolist() == [0] * 4 + [1] * 4
    uneven = Coupling()
    slots = uneven.axis(axis_of(8), 0)
    uneven.balance(slots, 2)
    uneven.couple(slots[:2], uneven.axis(axis_of(2), 0))
    assert merged(uneven)[0] == []


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 24),
    st.lists(st.integers(2, 6), max_size=3),
    st.sets(st.integers(0, 23), max_size=2),
)
def test_every_unit_is_in_one_cell_or_frozen_and_parts_are_even(
    extent: int, partitions: list[int], frozen: set[int]
) -> None:
    coupling = Coupling()
    slots = coupling.axis(axis_of(extent), 0)
    for parts in partitions:
        coupling.balance(slots, parts)
    coupling.freeze(slots[sorted(f for f in frozen if f < extent)], "frozen")
    cells, reasons = merged(coupling)
    members = [int(c) for cell in cells for c in cell.channels]
    assert sorted([*members, *reasons]) == list(range(extent))
    for cell in cells:
        assert np.unique(np.bincount(cell.parts)).size == 1
        for parts in partitions:
            counts = np.bincount(cell.channels * parts // extent, minlength=parts)
            assert np.unique(counts).size == 1


def grid(coupling: Coupling, rows: int, columns: int) -> tuple[IndexArray, IndexArray, IndexArray]:
    """An axis of rows * columns cells, and the axes of rows and of columns it is divided into."""
    cells = coupling.axis(axis_of(rows * columns), 0)
    row, column = coupling.axis(axis_of(rows), 0), coupling.axis(axis_of(columns), 0)
    coupling.factor(cells, row.repeat(columns), np.tile(column, rows))
    return cells, row, column


def needed(components: Components, slots: IndexArray) -> list[set[int]]:
    """The channels that the cells at some slots follow."""
    return [set(components.channels(int(label))) for label in components.label[slots]]


def test_a_cell_follows_its_row_and_its_column() -> None:
    coupling = Coupling()
    cells, row, column = grid(coupling, 2, 3)
    components = coupling.components()
    rows, columns = components.label[row], components.label[column]
    assert needed(components, cells) == [{r, c} for r in rows.tolist() for c in columns.tolist()]
    assert sorted(components.on(cells).tolist()) == sorted(
        [*rows.tolist() * 3, *columns.tolist() * 2]
    )


def test_a_factor_that_is_frozen_no_longer_matters() -> None:
    coupling = Coupling()
    cells, row, column = grid(coupling, 2, 3)
    coupling.freeze(row, "stays")
    components = coupling.components()
    assert components.factors == {}
    assert components.label[cells].tolist() == components.label[column].tolist() * 2


def test_a_frozen_cell_freezes_its_row_and_its_column_for_its_reason() -> None:
    coupling = Coupling()
    cells, row, column = grid(coupling, 2, 3)
    coupling.freeze(cells[4:5], "an output")
    components = coupling.components()
    frozen = {components.label[slot] for slot in (row[1], column[1])}
    assert frozen <= set(components.reasons)
    assert set(components.reasons.values()) == {"an output"}
    # row 0 stays free, and its cell in the frozen column is nothing but the row
    assert components.label[cells[1]] == components.label[row[0]]
    assert needed(components, cells[[0]]) == [
        {components.label[row[0]], components.label[column[0]]}
    ]


def test_equal_cells_have_equal_rows_and_columns() -> None:
    coupling = Coupling()
    first, second = grid(coupling, 2, 3), grid(coupling, 2, 3)
    coupling.couple(first[0], second[0])
    label = coupling.components().label
    for left, right in zip(first, second, strict=True):
        assert label[left].tolist() == label[right].tolist()


def test_a_factor_may_be_divided_itself() -> None:
    coupling = Coupling()
    cells, row, column = grid(coupling, 2, 6)
    outer, inner = coupling.axis(axis_of(2), 0), coupling.axis(axis_of(3), 0)
    coupling.factor(column, outer.repeat(3), np.tile(inner, 2))
    components = coupling.components()
    label = components.label
    assert needed(components, cells[[0, 11]]) == [
        {label[row[i]], label[outer[i]], label[inner[j]]} for i, j in ((0, 0), (1, 2))
    ]


def test_cells_divided_in_two_ways_are_frozen() -> None:
    coupling = Coupling()
    cells, _, _ = grid(coupling, 2, 6)
    other = [coupling.axis(axis_of(n), 0) for n in (2, 2, 3)]
    places = np.indices((2, 2, 3)).reshape(3, -1)
    coupling.factor(cells, *(axis[place] for axis, place in zip(other, places, strict=True)))
    components = coupling.components()
    assert components.factors == {}
    assert {components.reasons[c] for c in components.label[cells].tolist()} == {TWO_WAYS}


def test_a_cell_that_needs_itself_is_frozen() -> None:
    coupling = Coupling()
    a, b, c = (coupling.axis(axis_of(1), 0) for _ in range(3))
    coupling.factor(a, b, c)
    coupling.factor(b, a, c)
    assert TWO_WAYS in coupling.components().reasons.values()


def test_cells_whose_parts_must_keep_equal_counts_are_frozen() -> None:
    coupling = Coupling()
    cells, _, _ = grid(coupling, 2, 3)
    coupling.balance(cells, 3)
    components = coupling.components()
    assert set(components.reasons.values()) == {GRID_IN_PARTS}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_survives_is_a_grid(data: st.DataObject) -> None:
    """Any statements, any channels cut: every divided axis keeps rows times columns."""
    coupling = Coupling()
    grids = [
        grid(coupling, *data.draw(st.sampled_from([(2, 3), (3, 2), (2, 2)]))) for _ in range(3)
    ]
    axes = [axis for one in grids for axis in one]
    for _ in range(data.draw(st.integers(0, 4))):
        left, right = data.draw(st.sampled_from(axes)), data.draw(st.sampled_from(axes))
        size = min(left.size, right.size)
        coupling.couple(left[:size], right[-size:])
    if data.draw(st.booleans()):
        coupling.freeze(data.draw(st.sampled_from(axes))[:1], "frozen")
    components = coupling.components()
    cut = data.draw(st.sets(st.integers(0, components.count - 1)))
    alive = [
        not set(components.channels(c)) & (cut - set(components.reasons))
        for c in range(components.count)
    ]
    for cells, row, column in grids:
        kept = [alive[label] for label in components.label[cells]]
        wanted = [
            alive[components.label[r]] and alive[components.label[c]] for r in row for c in column
        ]
        assert kept == wanted


def test_nothing_stated_gives_no_channels() -> None:
    components = Coupling().components()
    assert isinstance(components, Components)
    assert components.count == 0
    assert same_axes([], components, np.empty(0, np.int64)) == []
