"""Activations wait in memory up to a limit, in files beyond it, and come back as they were."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from onnxprune.tensor_store import TensorStore

ARRAYS = {
    "matrix": np.arange(600, dtype=np.float32).reshape(20, 30),
    "column order": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
    "every second": np.arange(600, dtype=np.int64)[::2],
    "half": np.linspace(-1, 1, 300).astype(np.float16),
    "brain": np.linspace(-1, 1, 300).astype(ml_dtypes.bfloat16),
    "truth": np.arange(300) % 3 == 0,
    "number": np.array(3.5, np.float32),
    "nothing": np.zeros((0, 4), np.float32),
    "words": np.array(["a", "bc"], object),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Where files go in these tests."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("limit", [0, 2000, None])
def test_what_comes_back_is_what_went_in(limit):
    with TensorStore(limit) as store:
        store.replace(0, (), ARRAYS)
        held = store.get(0)
        assert held.keys() == ARRAYS.keys() == store.keys(0)
        for name, array in ARRAYS.items():
            assert held[name].dtype == array.dtype
            np.testing.assert_array_equal(held[name], array, strict=True)


def test_the_limit_holds(folder):
    array = np.ones(100, np.float32)
    with TensorStore(1000) as store:
        for batch in range(5):
            store.replace(batch, (), {"x": array})
            assert store.bytes_held <= 1000
        assert (store.bytes_held, store.bytes_spilled) == (800, 1200)
        assert len(files(folder)) == 3
        assert sum(path.stat().st_size for path in files(folder)) == 1200


def test_without_a_limit_no_file_is_written(folder):
    with TensorStore() as store:
        store.replace(0, (), ARRAYS)
        assert store.bytes_held == sum(array.nbytes for array in ARRAYS.values())
        assert (store.bytes_spilled, files(folder)) == (0, [])


def test_what_is_forgotten_leaves_memory_and_disk(folder):
    array = np.ones(100, np.float32)
    with TensorStore(400) as store:
        store.replace(0, (), {"a": array, "b": array, "c": array})
        assert len(files(folder)) == 2
        store.replace(0, {"b"}, {"d": array})
        assert store.keys(0) == {"b", "d"}
        assert store.bytes_held == 400  # d took the place of a
        assert len(files(folder)) == 1
        store.replace(0, {"b"}, {"b": 2 * array})
        np.testing.assert_array_equal(store.get(0)["b"], 2 * array)
        assert (store.bytes_held, len(files(folder))) == (400, 0)


def test_other_batches_are_left_alone():
    with TensorStore(0) as store:
        store.replace(0, (), {"x": np.zeros(3)})
        store.replace(1, (), {"x": np.ones(3)})
        store.replace(0, (), {})
        assert (len(store), dict(store.get(0)), dict(store.get(7))) == (2, {}, {})
        np.testing.assert_array_equal(store.get(1)["x"], np.ones(3))


def test_files_go_with_the_store(folder):
    with TensorStore(0) as store:
        store.replace(0, (), {"x": np.ones(3)})
        assert files(folder)
    assert not any(folder.iterdir())


def test_files_go_when_something_fails(folder):
    def fail() -> None:
        with TensorStore(0) as store:
            store.replace(0, (), {"x": np.ones(3)})
            assert files(folder)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(folder.iterdir())


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_files_go_with_a_store_nobody_closed(folder):
    store = TensorStore(0)
    store.replace(0, (), {"x": np.ones(3)})
    assert files(folder)
    del store
    gc.collect()
    assert not any(folder.iterdir())


def test_more_files_than_a_process_may_open():
    """A file that stays mapped would take one of its few descriptors."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        with TensorStore(0) as store:
            for batch in range(200):
                store.replace(batch, (), {"x": np.array([batch])})
            assert sum(int(store.get(batch)["x"][0]) for batch in range(200)) == 19900
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
