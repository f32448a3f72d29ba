"""Samples in .npy and .npz files and in folders of them."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import Array
from onnxprune.calibration import Calibration, InputSpec, Preprocessing, load_calibration
from onnxprune.errors import CalibrationError

INPUT = InputSpec("x", ("N", 2), np.dtype(np.float32))
PAIR = (INPUT, InputSpec("y", ("N",), np.dtype(np.int64)))


def samples(*values: int) -> Array:
    """Sample i is filled with values[i]."""
    return np.array([[value, value] for value in values], dtype=np.float32)


def values_of(calibration: Calibration) -> list[float]:
    every = np.arange(len(calibration))
    return [float(v) for feed in calibration.batches(every, 2) for v in feed["x"][:, 0]]


def refusal(source: Any, *inputs: InputSpec) -> str:
    with pytest.raises(CalibrationError) as caught:
        load_calibration(source, inputs or (INPUT,))
    return str(caught.value)


class Trap:
    """Unpickling an instance fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


# --- files ---


@pytest.mark.parametrize("as_text", [True, False])
def test_npy(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "data.npy"
    np.save(path, samples(1, 2, 3))
    calibration = load_calibration(str(path) if as_text else path, [INPUT])
    assert values_of(calibration) == [1, 2, 3]
    assert calibration.summary().startswith(f"3 samples: arrays of {path}\nx: float32 [3, 2]")


def test_npy_is_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npy"
    np.save(path, samples(1, 2, 3))
    load, modes = np.load, []

    def spy(*args: Any, **options: Any) -> Any:
        modes.append((options["mmap_mode"], options["allow_pickle"]))
        return load(*args, **options)

    monkeypatch.setattr(np, "load", spy)
    assert values_of(load_calibration(path, [INPUT])) == [1, 2, 3]
    assert modes == [("r", False)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, save: Any) -> None:
    path = tmp_path / "data.NPZ"
    with path.open("wb") as stream:
        save(stream, x=samples(1, 2, 3), y=np.arange(3))
    calibration = load_calibration(path, PAIR)
    assert values_of(calibration) == [1, 2, 3]
    assert [feed["y"].tolist() for feed in calibration.batches(np.arange(3), 2)] == [[0, 1], [2]]


def test_an_array_saved_without_a_name_feeds_the_only_input(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, samples(1, 2))
    assert values_of(load_calibration(path, [INPUT])) == [1, 2]
    message = refusal(path, *PAIR)
    assert all(word in message for word in (str(path), "'arr_0'", "'x', 'y'")), message


def test_names_with_slashes(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"model/in:0": samples(1, 2)}
    np.savez(tmp_path / "data.npz", **arrays)
    spec = InputSpec("model/in:0", ("N", 2), np.dtype(np.float32))
    assert len(load_calibration(tmp_path / "data.npz", [spec])) == 2


# --- folders ---


def test_folder_of_npy_by_rank_and_sorted(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    np.save(tmp_path / "more" / "a.npy", samples(4))
    np.save(tmp_path / "b.npy", samples(2, 3))
    np.save(tmp_path / "a.npy", samples(1)[0])  # one sample without the sample axis
    (tmp_path / "readme.txt").write_text("ignored")
    np.save(tmp_path / "._a.npy", samples(9))
    assert values_of(load_calibration(tmp_path, [INPUT])) == [1, 2, 3, 4]


def test_folder_of_npz(tmp_path: Path) -> None:
    for number in (2, 1, 3):
        np.savez(tmp_path / f"{number}.npz", x=samples(number), y=np.array(number))
    calibration = load_calibration(tmp_path, PAIR)
    assert values_of(calibration) == [1, 2, 3]
    assert next(calibration.batches(np.array([2, 0]), 2))["y"].tolist() == [3, 1]


def test_folder_with_dynamic_extents(tmp_path: Path) -> None:
    spec = InputSpec("x", ("N", "length"), np.dtype(np.float32))
    for number, length in enumerate((2, 2, 3)):
        np.save(tmp_path / f"{number}.npy", np.zeros((1, length)))
    feeds = load_calibration(tmp_path, [spec]).batches(np.arange(3), 8)
    assert [feed["x"].shape for feed in feeds] == [(2, 2), (1, 3)]


def test_subset_of_a_folder_opens_only_its_files(tmp_path: Path) -> None:
    for number in range(20):
        np.save(tmp_path / f"{number:02}.npy", samples(number) * (1 if number == 13 else np.nan))
    seeds = range(200)
    kept = [s for s in seeds if np.random.default_rng(s).choice(20, 1, replace=False)[0] == 13]
    assert values_of(load_calibration(tmp_path, [INPUT], num_samples=1, seed=kept[0])) == [13]


def test_folders_without_samples(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    message = refusal(tmp_path)
    assert all(word in message for word in (str(tmp_path), "no samples", ".npz", ".png"))


def test_folder_of_several_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", samples(1))
    np.savez(tmp_path / "b.npz", x=samples(1))
    (tmp_path / "c.png").write_bytes(b"")
    message = refusal(tmp_path)
    assert all(word in message for word in (".npy: 1", ".npz: 1", "images: 1", "one kind"))


# --- refusals name the file, the input, what was found and what was expected ---


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 3), np.float32), ["[3]", "[2]"]),
        (np.zeros((2, 2, 2), np.float32), ["[2, 2, 2]", "[N, 2]"]),
        (np.zeros((0, 2), np.float32), ["empty", "[0, 2]"]),
        (np.zeros((2, 2), np.uint8), ["uint8", "float32"]),
        (np.array([["a", "b"]]), ["<U1", "float32"]),
        (np.array([[1, np.nan], [1, 1]]), ["sample 0", "1 of 2 values are NaN or Inf"]),
        (np.full((1, 2), 1e300), ["overflow", "float32"]),
        (np.array([[Trap(), Trap()]]), ["Python objects", "pickles"]),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_refused_arrays(tmp_path: Path, suffix: str, array: Array, words: list[str]) -> None:
    path = tmp_path / f"data{suffix}"
    if suffix == ".npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, x=array)
    for source in (path, tmp_path):
        message = refusal(source)
        assert all(word in message for word in [str(path), "input 'x'", *words]), message


def test_npz_of_other_names_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=samples(1), label=np.zeros(1))
    message = refusal(path)
    assert all(word in message for word in (str(path), "'x', 'label'", "remove 'label'")), message
    np.savez(path, x=samples(1, 2), y=np.zeros(3, np.int64))
    message = refusal(path, *PAIR)
    assert all(word in message for word in (str(path), "'x': 2, 'y': 3")), message


def test_one_npy_does_not_feed_two_inputs(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", samples(1))
    message = refusal(tmp_path, *PAIR)
    assert all(word in message for word in ("data.npy", "2 inputs", ".npz"))


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
@pytest.mark.parametrize("content", [b"", b"not an array", pickle.dumps(Trap())])
def test_files_of_another_format(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert all(word in message for word in (name, "cannot be read", "pickles are never"))


def test_truncated_npy(tmp_path: Path) -> None:
    path = tmp_path / "data.npy"
    np.save(path, samples(*range(100)))
    path.write_bytes(path.read_bytes()[:-8])
    message = refusal(path)
    assert all(word in message for word in (str(path), "800 bytes", "holds 792")), message


def test_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=samples(*range(100)))
    content = bytearray(path.read_bytes())
    content[400] ^= 0xFF  # a value: the checksum no longer fits
    path.write_bytes(content)
    assert f"{path}: cannot be read" in refusal(path)


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("shape", [(10**12, 2), (2**62, 2)])
def test_forged_headers_are_refused_before_allocating(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    (tmp_path / "data.npy").write_bytes(header(shape))
    assert "damaged" in refusal(tmp_path / "data.npy")
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x.npy", header(shape))
    assert "damaged" in refusal(tmp_path / "data.npz")


def test_zip_bombs_are_refused_before_loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, x=np.zeros((2**20, 2), np.float32))
    monkeypatch.setattr("onnxprune.array_archive.memory", lambda: 2**21)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("loaded"))
    message = refusal(path)
    assert all(word in message for word in (str(path), "declares", "GiB"))


def test_other_paths(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "missing.npz")
    for name, advice in (("a.csv", "expected a .npz"), ("a.py", ":function"), ("a.png", "folder")):
        (tmp_path / name).write_bytes(b"")
        message = refusal(tmp_path / name)
        assert name in message
        assert advice in message


def test_preprocessing_is_not_silently_ignored(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", samples(1))
    with pytest.raises(CalibrationError, match=r"describe images.*data\.npy"):
        load_calibration(tmp_path / "data.npy", [INPUT], preprocessing=Preprocessing(mean=(0.5,)))


def test_a_header_that_python_cannot_read_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((8, 2), }"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(CalibrationError, match=r"cannot be read as \.npy"):
        load_calibration(path, [InputSpec("x", ("N", 2), np.dtype(np.float32))])
