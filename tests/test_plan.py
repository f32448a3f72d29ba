"""Plans and weights are files that can be read, edited and applied again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from micro_models import MICRO_MODELS
from oracles import Subject, masked, outputs_match, tolerance

from onnxprune.errors import PlanMismatchError
from onnxprune.plan import Drop, Edit, Keep, Plan, Weights
from onnxprune.ranking import Ranking, keep_of
from onnxprune.rewrite import apply


@st.composite
def keeps(draw: st.DrawFn) -> Keep:
    size = draw(st.integers(1, 40))
    units = draw(st.sets(st.integers(0, size - 1), min_size=1))
    return Keep(draw(st.text(min_size=1)), tuple(sorted(units)), size)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(keeps() | st.builds(Drop, st.text(min_size=1)), max_size=5),
    st.text("0123456789abcdef"),
)
def test_a_plan_survives_its_file(
    tmp_path_factory: pytest.TempPathFactory, edits: list[Edit], model: str
) -> None:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    plan = Plan(model, tuple(edits))
    plan.save(path)
    assert Plan.load(path) == plan
    assert len(plan.keeps) + len(plan.drops) == len(edits)


def test_weights_survive_their_file(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {
        name: (
            rng.standard_normal((3, 2, 1, 1)).astype(dtype),
            rng.standard_normal(3).astype(dtype),
        )
        for name, dtype in [
            ("Conv_0", np.float32),
            ("/model.3/conv", np.float16),
            ("ü ?", np.float64),
        ]
    }
    constants = {"ü ?": np.arange(3.0), "/layer/Add": np.ones(2, np.float16)}
    Weights(arrays, constants).save(tmp_path / "weights")
    both = Weights.load(tmp_path / "weights")
    assert list(both.constants) == list(constants)
    for name, constant in constants.items():
        assert both.constants[name].dtype == constant.dtype
        assert np.array_equal(both.constants[name], constant)
    loaded = both.arrays
    assert list(loaded) == list(arrays)
    for name, pair in arrays.items():
        for left, right in zip(loaded[name], pair, strict=True):
            assert left.dtype == right.dtype
            assert np.array_equal(left, right)
    Weights({}).save(tmp_path / "none.npz")
    assert Weights.load(tmp_path / "none.npz").arrays == {}


@pytest.mark.parametrize("units", [(), (1, 0), (0, 0), (-1, 2), (0, 4)])
def test_a_keep_is_sorted_without_repeats_and_in_range(units: tuple[int, ...]) -> None:
    with pytest.raises(PlanMismatchError, match="group 'g': keep must be sorted"):
        Keep("g", units, 4)


EDIT = '"type": "keep", "group": "g", "size": 2'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "3",
        '{"format": 2, "model": "a"}',
        '{"format": 3, "model": "a", "edits": []}',
        '{"format": 2, "model": "a", "edits": [{"type": "drop"}]}',
        '{"format": 2, "model": "a", "edits": [{"type": "swap", "section": "s"}]}',
        f'{{"format": 2, "model": "a", "edits": [{{{EDIT}}}]}}',
        f'{{"format": 2, "model": "a", "edits": [{{{EDIT}, "keep": [5]}}]}}',
        f'{{"format": 2, "model": "a", "edits": [{{{EDIT}, "keep": "x"}}]}}',
        '{"format": 2, "model": "a", "edits": 7}',
        '{"format": 2, "model": "a", "edits": [7]}',
    ],
)
def test_what_is_no_plan_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(PlanMismatchError):
        Plan.load(path)


def test_a_plan_of_another_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"format": 1, "model": "a", "edits": []}')
    with pytest.raises(PlanMismatchError, match="a plan of format 1, made by another version"):
        Plan.load(path)


def test_missing_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanMismatchError, match="not a readable plan"):
        Plan.load(tmp_path / "missing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PlanMismatchError, match="not a readable plan"):
        Plan.load(tmp_path / "binary")
    with pytest.raises(PlanMismatchError, match="not a readable weights file"):
        Weights.load(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(PlanMismatchError, match="not a readable weights file"):
        Weights.load(tmp_path / "text.npz")
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(PlanMismatchError, match="not a readable weights file"):
        Weights.load(tmp_path / "array.npy")
    np.savez(tmp_path / "other.npz", a=1, b=2, c=3)
    with pytest.raises(PlanMismatchError, match="not a readable weights file"):
        Weights.load(tmp_path / "other.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    pickled = np.array([{"a": 1}], object)
    np.savez(
        tmp_path / "evil.npz",
        allow_pickle=True,
        **{"name.0": "n", "weight.0": pickled, "bias.0": 0},
    )
    with pytest.raises(PlanMismatchError, match="not a readable weights file"):
        Weights.load(tmp_path / "evil.npz")


def test_an_edited_plan_can_be_applied_again(tmp_path: Path, rng: np.random.Generator) -> None:
    micro = Subject(MICRO_MODELS["residual"]())
    path = tmp_path / "plan.json"
    micro.plan({"Conv_0": np.arange(4)}).save(path)
    document = json.loads(path.read_text())
    document["edits"][0]["keep"] = [0, 5, 7]
    path.write_text(json.dumps(document))
    pruned = apply(micro.model, Plan.load(path))
    alive = micro.alive({"Conv_0": np.array([0, 5, 7])})
    outputs_match(pruned, masked(micro, alive), tolerance(micro.network), rng)


def test_the_keep_of_a_ranking_is_its_sorted_head() -> None:
    ranking = Ranking(np.array([3, 0, 2, 1]), np.array([1.0, 0.5, 0.2, 0.1, 0.0]))
    assert keep_of(ranking, 2).tolist() == [0, 3]
    assert keep_of(ranking, 4).tolist() == [0, 1, 2, 3]
