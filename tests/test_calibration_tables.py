"""Parquet and Arrow files, and what Hugging Face datasets writes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.arrays import Array
from onnxprune.calibration import InputSpec, Preprocessing, load_calibration
from onnxprune.errors import CalibrationError, MissingLibraryError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
X = InputSpec("x", ("N", 2), FLOAT)
IDS = InputSpec("ids", ("N", "seq"), INT)
IMAGE = InputSpec("image", ("N", 3, 4, 4), FLOAT)
RAW = Preprocessing(scale=1.0)


def column(*values: float) -> Any:
    return pa.array([[value, value] for value in values], pa.list_(pa.float32()))


def stream(table: Any, path: Path) -> None:
    """As datasets writes: a stream of record batches."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def with_footer(table: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def groups(table: Any, path: Path) -> None:
    parquet.write_table(table, path, row_group_size=2)


WRITERS = {"stream.arrow": stream, "footer.arrow": with_footer, "rows.parquet": groups}


def values_of(source: Any, *inputs: InputSpec, **options: Any) -> Array:
    calibration = load_calibration(source, inputs or (X,), **options)
    feeds = calibration.batches(np.arange(len(calibration)), 3)
    return np.concatenate([next(iter(feed.values())) for feed in feeds])


def refusal(source: Any, *inputs: InputSpec, **options: Any) -> str:
    with pytest.raises(CalibrationError) as caught:
        values_of(source, *inputs, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_rows_are_samples(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](pa.table({"label": [0] * 5, "x": column(*range(5))}), path)
    assert values_of(path)[:, 0].tolist() == [0, 1, 2, 3, 4]
    samples = load_calibration(path, [X], num_samples=2, seed=1)
    picked = samples.selected.tolist()
    assert values_of(path, num_samples=2, seed=1)[:, 0].tolist() == picked
    backwards = samples.batches(np.array([1, 0]), 2)
    assert next(backwards)["x"][:, 0].tolist() == picked[::-1]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    for number in range(12):
        groups(pa.table({"x": column(number)}), tmp_path / f"part-{number:02}.parquet")
    assert values_of(tmp_path)[:, 0].tolist() == list(range(12))
    assert values_of(f"{tmp_path}/part-{{03..05}}.parquet")[:, 0].tolist() == [3, 4, 5]
    assert values_of(f"{tmp_path}/part-1*.parquet")[:, 0].tolist() == [10, 11]


MATRICES = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    "cells",
    [
        pa.array(MATRICES.tolist(), pa.list_(pa.list_(pa.float32()))),
        pa.array(MATRICES.tolist(), pa.large_list(pa.list_(pa.float64(), 3))),
        pa.array(MATRICES.tolist(), pa.list_(pa.list_(pa.float32(), 3), 2)),
        pa.FixedShapeTensorArray.from_numpy_ndarray(MATRICES),
        pa.array(MATRICES[:, None].tolist()),  # with the sample axis
    ],
    ids=["lists", "large", "fixed", "tensor", "stacks"],
)
def test_kinds_of_cells(cells: Any, name: str, tmp_path: Path) -> None:
    WRITERS[name](pa.table({"m": cells}), tmp_path / name)
    spec = InputSpec("m", ("N", 2, 3), FLOAT)
    assert np.array_equal(values_of(tmp_path / name, spec), MATRICES)


def test_scalars_and_booleans(tmp_path: Path) -> None:
    table = pa.table({"n": [3, 1, 2], "b": [True, False, True]})
    groups(table, tmp_path / "a.parquet")
    inputs = (InputSpec("n", ("N",), INT), InputSpec("b", ("N",), np.dtype(bool)))
    (feed,) = load_calibration(tmp_path, inputs).batches(np.arange(3), 3)
    assert feed["n"].tolist() == [3, 1, 2]
    assert feed["b"].tolist() == [True, False, True]


def test_lengths_differ(tmp_path: Path) -> None:
    groups(pa.table({"ids": [[1, 2], [3], [4, 5, 6], [7]]}), tmp_path / "a.parquet")
    samples = load_calibration(tmp_path, [IDS])
    shapes = [feed["ids"].shape for feed in samples.batches(np.arange(4), 8)]
    assert shapes == [(1, 2), (1, 1), (1, 3), (1, 1)]
    assert [part.tolist() for part in samples.by_shape(np.arange(4))] == [[1, 3], [0], [2]]


# --- images ---


def encoded(value: int, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


PICTURES = [
    pa.array([encoded(i) for i in range(3)], pa.binary()),
    pa.array([{"bytes": encoded(i), "path": "../../etc/passwd"} for i in range(3)]),
]


@pytest.mark.parametrize("cells", PICTURES, ids=["binary", "struct"])
@pytest.mark.parametrize("name", ["image", "input"])
def test_images_are_preprocessed(cells: Any, name: str, tmp_path: Path) -> None:
    """The only column of images serves the only input, whatever its name."""
    groups(pa.table({"label": [0, 0, 0], "image": cells}), tmp_path / "a.parquet")
    spec = InputSpec(name, IMAGE.shape, FLOAT)
    found = values_of(tmp_path, spec, preprocessing=RAW)
    assert found[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert "column 'image'" in refusal(tmp_path, spec)
    assert "--preset" in refusal(tmp_path, spec)


def test_images_that_are_elsewhere_are_not_followed(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    cells = pa.array([{"bytes": None, "path": str(tmp_path / "secret.png")}],
                     pa.struct({"bytes": pa.binary(), "path": pa.string()}))  # fmt: skip
    groups(pa.table({"image": cells}), tmp_path / "a.parquet")
    message = refusal(tmp_path / "a.parquet", IMAGE, preprocessing=RAW)
    assert all(word in message for word in ("a.parquet, row 0", "not followed", "embedded"))


def test_a_bad_image_is_named(tmp_path: Path) -> None:
    groups(pa.table({"image": [encoded(0), b"nothing"]}), tmp_path / "a.parquet")
    message = refusal(tmp_path, IMAGE, preprocessing=RAW)
    assert all(word in message for word in ("row 1", "input 'image'", "8-bit image"))


# --- what datasets writes ---


def saved(folder: Path, tables: list[Any], names: list[str] | None = None) -> Path:
    """As save_to_disk: shards, their list and a description."""
    folder.mkdir(parents=True)
    names = names or [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
    for table, name in zip(tables, names, strict=True):
        stream(table, folder / name)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_saved_data_sets(tmp_path: Path) -> None:
    tables = [pa.table({"x": column(i, i)}) for i in range(3)]
    folder = saved(tmp_path / "all", tables, ["b.arrow", "a.arrow", "c.arrow"])
    stream(pa.table({"x": column(9)}), folder / "cache-0.arrow")
    assert values_of(folder)[:, 0].tolist() == [0, 0, 1, 1, 2, 2]  # in the order of the list


def test_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "test")):
        saved(tmp_path / "both" / name, [pa.table({"x": column(number)})])
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert "several splits (test, train)" in refusal(tmp_path / "both")
    assert values_of(tmp_path / "both" / "test")[:, 0].tolist() == [1]
    saved(tmp_path / "one" / "train", [pa.table({"x": column(3)})])
    (tmp_path / "one" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert values_of(tmp_path / "one")[:, 0].tolist() == [3]


def test_splits_of_a_cache(tmp_path: Path) -> None:
    data = tmp_path / "snapshot" / "data"
    data.mkdir(parents=True)
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        groups(pa.table({"x": column(len(name))}), data / f"{name}.parquet")
    message = refusal(tmp_path / "snapshot")
    assert f"'{data}/test-*.parquet' or '{data}/train-*.parquet'" in message
    assert len(values_of(f"{data}/train-*.parquet")) == 2
    cache = tmp_path / "cache"
    cache.mkdir()
    stream(pa.table({"x": column(1)}), cache / "name-train.arrow")
    stream(pa.table({"z": column(2)}), cache / "cache-0123.arrow")  # of a map over it
    assert values_of(cache)[:, 0].tolist() == [1]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("{", "not what `datasets` writes"),
        ('{"_data_files": 3}', "not what `datasets` writes"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', "outside its folder"),
        ('{"_data_files": []}', "empty"),
    ],
)
def test_damaged_lists(state: str, words: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "d", [pa.table({"x": column(1)})])
    (folder / "state.json").write_text(state)
    assert words in refusal(folder)


# --- refusals ---


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([[1.0, 2.0], [1.0]], ["row 1, column 'x'", "[1]", "[2]"]),
        ([[1.0, 2.0], None], ["row 1, column 'x'", "missing"]),
        ([[1.0, 2.0], [1.0, None]], ["row 1", "a number in the cell is missing"]),
        ([[1.0, 2.0], [1.0, float("nan")]], ["row 1", "NaN"]),
        ([[[1.0], [1.0, 2.0]]] * 2, ["row 0", "different lengths ([1, 2]"]),
        ([[1, 2], [3, 4]], ["row 0", "found type int64, expected float32"]),
        (["a", "b"], ["row 0", "found string, which is no number"]),
        ([[[1.0, 2.0], [3.0, 4.0]]] * 2, ["row 0", "found 2 samples"]),
    ],
)
def test_cells_that_do_not_fit(cells: list[Any], words: list[str], tmp_path: Path) -> None:
    groups(pa.table({"x": pa.array(cells), "y": [0, 0]}), tmp_path / "a.parquet")
    message = refusal(tmp_path / "a.parquet")
    assert all(word in message for word in [str(tmp_path / "a.parquet"), *words]), message


def test_columns_that_do_not_fit(tmp_path: Path) -> None:
    groups(pa.table({"x": column(1), "label": [0]}), tmp_path / "a.parquet")
    message = refusal(tmp_path / "a.parquet", IDS, X)
    assert all(word in message for word in ("'x', 'label'", "add 'ids'")), message
    groups(pa.table({"y": column(1), "x": column(1)}), tmp_path / "b.parquet")
    assert values_of(tmp_path)[:, 0].tolist() == [1, 1]
    groups(pa.table({"z": column(1)}), tmp_path / "c.parquet")
    assert "c.parquet: its columns are not those of" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize("content", [b"", b"no table at all", b"PAR1" * 40, b"ARROW1\0\0" * 40])
def test_damaged_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path / name)
    assert f"{tmp_path / name}: cannot be read as" in message or "no rows" in message


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_anywhere(name: str, tmp_path: Path) -> None:
    """A flipped or missing byte gives values or an error of ours, and nothing else."""
    path = tmp_path / name
    WRITERS[name](pa.table({"x": column(*range(7))}), path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(60):
        damaged = bytearray(content)
        if trial % 2:
            del damaged[rng.integers(len(damaged)) :]
        else:
            damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            assert values_of(path).shape[1:] == (2,)
        except CalibrationError as error:
            assert str(tmp_path) in str(error)  # noqa: PT017 - most, not all, raise


def test_only_what_is_used_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = pa.array([b"0" * 1000] * 600)
    table = pa.table({"x": column(*range(600)), "wide": wide, "ids": [[1]] * 600})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    read: list[tuple[list[int], list[str]]] = []
    own = parquet.ParquetFile.iter_batches

    def spy(file: Any, size: int, row_groups: list[int], columns: list[str]) -> Any:
        read.append((row_groups, columns))
        return own(file, size, row_groups, columns)

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", spy)
    samples = load_calibration(tmp_path, [X], num_samples=3, seed=0)
    wanted = sorted({index // 100 for index in samples.selected.tolist()})
    assert read == [([group], ["x"]) for group in wanted]
    for _ in range(2):
        list(samples.batches(np.arange(3), 3))
    assert len(read) == len(wanted)  # rows that are used are kept


@pytest.mark.parametrize("name", WRITERS)
def test_rows_beyond_the_bound_are_read_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.calibration.table_store.MAX_KEPT_BYTES", 20)
    WRITERS[name](pa.table({"x": column(*range(9))}), tmp_path / name)
    samples = load_calibration(tmp_path, [X])
    for order in (range(9), range(8, -1, -1), [4, 4, 0]):
        feeds = samples.batches(np.array(list(order)), 3)
        assert [row[0] for feed in feeds for row in feed["x"]] == list(order)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups(pa.table({"x": column(1)}), tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'onnxprune\[data\]'"):
        load_calibration(tmp_path / "a.parquet", [X])
