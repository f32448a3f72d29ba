"""Statistics kept between runs: the same result with them, and a broken cache breaks nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import QUICK, run, working_folder
from small_networks import MODELS, digits

from onnxprune import Options, Pruner, Target, choice, study
from onnxprune.cache_folder import FOLDER_VARIABLE
from onnxprune.cli import main
from onnxprune.report import Report
from onnxprune.statistics_cache import Found, StatisticsCache, open_cache
from onnxprune.study_memory import StudyMemory

MODEL = MODELS / "mlp_digits.onnx"
SAMPLES = digits()[:120]
PLAIN = Options(latency=False)
KEY = {"model": "a", "of": [1, 2]}
ARRAYS = {"x": np.arange(600.0).reshape(20, 30), "n": np.arange(5)}


def cache(folder: Path, size: int = 10**9) -> StatisticsCache:
    return StatisticsCache(folder, size)


def entries(folder: Path) -> list[Path]:
    return sorted((folder / "statistics").iterdir())


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """What is made, and not found."""
    made: list[str] = []

    def noting(module: Any, name: str) -> None:
        function = getattr(module, name)

        def noted(*given: Any, **named: Any) -> Any:
            made.append(name)
            return function(*given, **named)

        monkeypatch.setattr(module, name, noted)

    noting(study, "observe")
    noting(study, "rank")
    noting(choice, "measure_sensitivity")
    return made


def pruned(target: Target, options: Options, model: Any = MODEL, samples: Any = SAMPLES) -> Any:
    result = Pruner(model, samples, options).prune([target])
    notes = [note for note in result.report.notes if "cache" not in note]
    return result.model.SerializeToString(deterministic=True), replace(result.report, notes=notes)


def content(report: Report) -> dict[str, Any]:
    """The record without when it was made."""
    return {key: value for key, value in report.to_dict().items() if key != "run"}


def test_the_result_is_the_same_with_and_without(tmp_path, counted):
    kept, bare = replace(PLAIN, cache=tmp_path), Pruner(MODEL, SAMPLES, PLAIN)
    for target in (Target("macs", 0.5), Target("params", 0.3)):
        plain = bare.prune([target])
        model, report = pruned(target, kept)
        assert plain.model.SerializeToString(deterministic=True) == model
        assert content(plain.report) == content(report)
    each = ["observe", "rank", "measure_sensitivity"]
    assert counted == [*each, *each]  # once without, once with; the last run made nothing


@pytest.mark.slow
def test_what_came_from_the_cache_is_said(tmp_path):
    kept = replace(PLAIN, cache=tmp_path)
    notes = [
        Pruner(MODEL, SAMPLES, kept).prune([Target("macs", f)]).report.notes for f in (0.5, 0.7)
    ]
    said = [[note for note in found if "cache" in note] for found in notes]
    assert said[0] == []
    (note,) = said[1]
    assert note.startswith("statistics came from the cache: moments, orders, sensitivity; up to ")
    assert note.endswith(" old")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    """A cache after a run."""
    folder = tmp_path_factory.mktemp("filled")
    Pruner(MODEL, SAMPLES, replace(PLAIN, cache=folder)).plan([Target("macs", 0.5)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({"seed": 1}, 3),
        ({"batch": 16}, 3),
        ({"num_samples": 100}, 3),
        ({"criterion": "l2"}, 2),
        ({"recovery": False}, 3),
        ({"align": 32}, 1),
        ({"exclude": "/5/"}, 3),
        ({"max_memory": 10**9}, 0),
        ({"threads": 2}, 0),
    ],
)
def test_only_what_a_setting_changes_is_made_anew(filled, tmp_path, counted, change, made):
    shutil.copytree(filled, tmp_path / "kept")
    found, anew = (
        Pruner(MODEL, SAMPLES, replace(PLAIN, cache=where, **change)).plan([Target("macs", 0.5)])
        for where in (tmp_path / "kept", "")
    )
    assert len(counted) == made + 3
    assert found.plan == anew.plan


@pytest.mark.slow
def test_other_weights_and_other_samples_are_others(tmp_path, counted):
    options = replace(PLAIN, cache=tmp_path, allocation="uniform")
    target = Target("macs", 0.5)
    pruned(target, options)
    model = onnx.load(MODEL)
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.flat[0] += 1.0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    other = SAMPLES.copy()
    other[-1, 0, 0, 0] += 1.0
    for change in ({"model": model}, {"samples": other}):
        counted.clear()
        pruned(target, options, **change)
        assert counted == ["observe", "rank"]
    counted.clear()
    pruned(target, options, samples={"input": np.array(SAMPLES)})  # the same in another form
    assert counted == []


@pytest.mark.slow
def test_a_criterion_without_a_name_is_not_remembered(tmp_path, counted):
    class Own:
        def rank(self, problem: Any) -> Any:
            return Options().make_criterion().rank(problem)

    options = replace(PLAIN, cache=tmp_path, criterion=Own())
    for _ in range(2):
        pruned(Target("macs", 0.5), options)
    assert counted == ["observe", *["rank", "measure_sensitivity"] * 2]


def damaged(content: bytes, how: str) -> bytes:
    middle = len(content) // 2
    return {
        "cut": content[:middle],
        "empty": b"",
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "other": b"not a zip file at all",
    }[how]


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "other"])
def test_a_damaged_entry_is_thrown_away_and_made_anew(tmp_path, how):
    made = cache(tmp_path)
    made.put("kind", KEY, ARRAYS, {})
    (path,) = entries(tmp_path)
    path.write_bytes(damaged(path.read_bytes(), how))
    later = cache(tmp_path)
    assert later.get("kind", KEY) is None
    assert entries(tmp_path) == []
    (note,) = later.notes
    assert note.startswith(f"a damaged entry of the cache was discarded: {path}")
    assert later.get("kind", KEY) is None
    assert len(later.notes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cut", "flipped", "other"])
def test_a_run_with_damaged_entries_is_as_any_other(tmp_path, how):
    options, target = replace(PLAIN, cache=tmp_path), Target("macs", 0.5)
    right = pruned(target, options)
    for path in entries(tmp_path):
        path.write_bytes(damaged(path.read_bytes(), how))
    result = Pruner(MODEL, SAMPLES, options).prune([target])
    assert result.model.SerializeToString(deterministic=True) == right[0]
    assert sum("damaged entry" in note for note in result.report.notes) == 3
    assert pruned(target, options)[0] == right[0]


def test_wrong_numbers_in_a_sound_file_are_refused(tmp_path):
    def numbers(folder: Path, sums: np.ndarray) -> StudyMemory:
        memory = StudyMemory(cache(folder))
        memory._cache.put("moments", {"features": []}, {"fit.0": sums, "tune.0": sums}, {})
        return memory

    for name, sums in {"nan": np.full((1, 2, 2), np.nan), "flat": np.ones(3)}.items():
        memory = numbers(tmp_path / name, sums)
        memory._remembered(
            "moments",
            {"features": []},
            lambda: ({}, {}),
            lambda _: {},
            lambda found: study.Gram.of(found["fit.0"]),
        )
        assert any("damaged entry" in note for note in memory.notes)


def test_nothing_is_unpickled(tmp_path):
    made = cache(tmp_path)
    made.put("kind", KEY, ARRAYS, {})
    (path,) = entries(tmp_path)

    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "boom"),)

    with np.load(path) as file:
        head = file["head"]
    np.savez(path, head=head, x=np.array([Bomb()], dtype=object))
    assert made.get("kind", KEY) is None
    assert not (tmp_path / "boom").exists()


def test_what_was_used_longest_ago_makes_room(tmp_path):
    large = {"x": np.zeros(1000)}
    made = cache(tmp_path, 30_000)
    for number in range(3):
        made.put("kind", {"n": number}, large, {})
        (entry,) = [e for e in made.entries() if e.path == made._path("kind", {"n": number})]
        os.utime(entry.path, (1000 + number, 1000 + number))
    assert made.get("kind", {"n": 0}) is not None  # used now
    made.put("kind", {"n": 3}, large, {})
    assert [made.get("kind", {"n": n}) is not None for n in range(4)] == [True, False, True, True]
    made.put("kind", {"n": 4}, {"x": np.zeros(2000)}, {})
    assert made.notes[-1].startswith("kind of 0 MB were not kept in the cache")
    assert len(entries(tmp_path)) == 3


def test_an_unfinished_file_of_a_killed_process_goes(tmp_path):
    made = cache(tmp_path)
    made.put("kind", KEY, ARRAYS, {})
    old, new = (tmp_path / "statistics" / f"{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1000, 1000))
    made.put("kind", {"n": 1}, ARRAYS, {})
    assert not old.exists()
    assert new.exists()  # someone may be writing it


def hammer(folder: str, number: int) -> int:
    """Write and read the same few entries; how many reads were wrong or noted damage."""
    made, wrong = StatisticsCache(Path(folder), 40_000), 0
    for turn in range(60):
        key = {"n": (turn + number) % 5}
        found = made.get("kind", key)
        if found is None:
            made.put("kind", key, {"x": np.full(1000, float(key["n"]))}, {})
        else:
            wrong += not np.array_equal(found.arrays["x"], np.full(1000, float(key["n"])))
    return wrong + len(made.notes)


def test_processes_at_once_do_not_disturb_each_other(tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.starmap(hammer, [(str(tmp_path), n) for n in range(3)]) == [0, 0, 0]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 40_000
    assert {path.suffix for path in entries(tmp_path)} == {".npz"}


def test_a_folder_that_cannot_be_written_is_as_good_as_none(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = Pruner(MODEL, SAMPLES, replace(PLAIN, cache=tmp_path / "file", allocation="uniform"))
    notes = result.prune([Target("macs", 0.5)]).report.notes
    assert sum("cannot be written" in note for note in notes) == 1


def test_it_is_private_and_off_unless_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert open_cache(None, 1) is None
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert open_cache(None, 1) is None  # the user's cache folder is not enough
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "named"))
    assert open_cache("", 1) is None
    named = open_cache(None, 10**6)
    assert named is not None
    named.put("kind", KEY, ARRAYS, {})
    (path,) = entries(tmp_path / "named")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_ages_are_those_of_what_was_made(tmp_path, monkeypatch):
    made = cache(tmp_path)
    made.put("kind", KEY, ARRAYS, {})
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    found = made.get("kind", KEY)
    assert isinstance(found, Found)
    assert found.age == pytest.approx(7200, abs=60)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def test_the_command_finds_what_the_command_has_kept(folder, capsys):
    for name in ("a", "b"):
        assert run(*QUICK, "--cache", "kept", "-v", out=f"{name}.onnx") == 0
    said = capsys.readouterr()
    assert "moments: from the cache, " in said.err
    assert "note: statistics came from the cache: moments, orders; up to " in said.out
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert run(*QUICK, "--cache", "kept", "--no-cache") == 2


def test_the_cache_is_listed_summed_and_cleared(folder, capsys, monkeypatch):
    assert run(*QUICK, "-q", "--cache", "kept") == 0
    (folder / "kept" / "timings_here.json").write_text("{}")
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "kept"))

    def said(*words: str) -> str:
        assert main(["cache", *words]) == 0
        return capsys.readouterr().out

    assert said("path") == f"{folder / 'kept'}\n"
    listed = json.loads(said("list", "--json"))
    assert [(row["kind"], row["samples"]) for row in listed] == [("orders", 60), ("moments", 60)]
    assert said("list").count(" 60  ") == 2
    assert said("list", "--cache", str(folder)) == f"{folder} holds no statistics\n"
    found = json.loads(said("info", "--json"))
    sizes = {path.name.split("-")[0]: path.stat().st_size for path in entries(folder / "kept")}
    assert {kind: row["bytes"] for kind, row in found["kinds"].items()} == {**sizes, "timings": 2}
    assert found["bytes"] == sum(sizes.values()) + 2
    assert "moments  1 " in said("info")
    assert said("clear", "--older-than", "1d").startswith("0 files removed")
    (old,) = [path for path in entries(folder / "kept") if path.name.startswith("orders")]
    os.utime(old, (1000, 1000))
    assert json.loads(said("clear", "--older-than", "30d", "--json"))["removed"] == 1
    assert not old.exists()
    assert said("clear", "--max-size", "2MB").startswith("0 files removed")
    assert said("clear", "--max-size", "0").startswith("1 file removed")
    assert (folder / "kept" / "timings_here.json").exists()
    assert said("clear", "--timings").startswith("1 file removed")
    monkeypatch.setenv(FOLDER_VARIABLE, "")
    assert main(["cache", "info"]) == 1
    assert "there is no cache folder" in capsys.readouterr().err
