"""Timings are kept between runs, and a broken cache breaks nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune import kernel_timer
from onnxprune import timing_cache as module
from onnxprune.arrays import Feed
from onnxprune.cache_folder import FOLDER_VARIABLE
from onnxprune.kernel_timer import KernelTimer
from onnxprune.micro_model import MicroModel
from onnxprune.timing_cache import TimingCache, timing_cache

LAYER = MicroModel("MatMul", (), 17, "float32", (1, 4), ((4, 4),))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_saved_is_found_again(tmp_path):
    cache = timing_cache("cpu", 1, tmp_path / "new")
    cache.put("a", 1.5)
    assert files(tmp_path) == []
    cache.save()
    assert len(files(tmp_path)) == 1  # and no temporary file stays
    assert timing_cache("cpu", 1, tmp_path / "new").get("a") == 1.5
    assert timing_cache("cpu", 2, tmp_path / "new").get("a") is None
    assert timing_cache("cuda", 1, tmp_path / "new").get("a") is None


@pytest.mark.parametrize("what", ["VERSION", "machine_name", "block_size"])
def test_another_machine_or_runtime_has_its_own(what, tmp_path, monkeypatch):
    cache = timing_cache("cpu", 1, tmp_path)
    cache.put("a", 1.5)
    cache.save()
    monkeypatch.setattr(module, what, "other" if what == "VERSION" else lambda: "other")
    assert timing_cache("cpu", 1, tmp_path).get("a") is None


def test_runs_at_the_same_time_do_not_lose_each_others_timings(tmp_path):
    one, two = (timing_cache("cpu", 1, tmp_path) for _ in range(2))
    one.put("a", 1.0)
    two.put("b", 2.0)
    one.save()
    two.save()
    both = timing_cache("cpu", 1, tmp_path)
    assert (both.get("a"), both.get("b")) == (1.0, 2.0)


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", "null", '{"a": "x", "b": -1, "c": null}', "\udcff"]
)
def test_a_corrupted_file_is_as_good_as_none(content, tmp_path):
    path = tmp_path / "timings.json"
    path.write_text(content, errors="surrogateescape")
    cache = TimingCache(path)
    assert [cache.get(key) for key in "abc"] == [None] * 3
    cache.put("a", 1.0)
    cache.save()
    assert json.loads(path.read_text()) == {"a": 1.0}


def test_a_folder_that_cannot_be_written_is_as_good_as_none(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = timing_cache("cpu", 1, tmp_path / "file")
    cache.put("a", 1.0)
    cache.save()
    assert cache.get("a") == 1.0
    assert timing_cache("cpu", 1, tmp_path / "file").get("a") is None


def test_the_environment_chooses_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "linux")

    def saved() -> set[Path]:
        cache = timing_cache("cpu", 1)
        cache.put("a", 1.0)
        cache.save()
        return {path.parent for path in files(tmp_path)}

    monkeypatch.setenv(FOLDER_VARIABLE, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert saved() == set()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "own"))
    assert saved() == {tmp_path / "own"}
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert saved() == {tmp_path / "own", tmp_path / "xdg" / "onnxprune"}


def test_a_layer_is_timed_once(tmp_path, monkeypatch):
    calls: list[Feed] = []

    def layer_time(model, feed, **_) -> float:
        calls.append(feed)
        return 0.25

    monkeypatch.setattr(kernel_timer, "layer_time", layer_time)
    timer = KernelTimer("cpu", 1, timing_cache("cpu", 1, tmp_path))
    assert timer.layers([LAYER, LAYER]) == [0.25, 0.25]
    later = KernelTimer("cpu", 1, timing_cache("cpu", 1, tmp_path))
    assert later.layers([LAYER]) == [0.25]
    assert (timer.timed, later.timed, len(calls)) == (1, 0, 1)
