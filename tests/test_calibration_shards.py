"""Samples in .tar files as WebDataset has them, and names that stand for several files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.arrays import Array
from onnxprune.calibration import InputSpec, Preprocessing, load_calibration
from onnxprune.calibration.patterns import matched
from onnxprune.errors import CalibrationError

FLOAT, INT = np.dtype(np.float32), np.dtype(np.int64)
X = InputSpec("x", ("N", 2), FLOAT)
IDS = InputSpec("ids", ("N", "seq"), INT)
IMAGE = InputSpec("image", ("N", 3, 4, 4), FLOAT)
RAW = Preprocessing(scale=1.0)


def npy(values: Any, dtype: Any = np.float32) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype))
    return buffer.getvalue()


def picture(value: int, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def values_of(source: Any, *inputs: InputSpec, **options: Any) -> Array:
    calibration = load_calibration(source, inputs or (X,), **options)
    feeds = calibration.batches(np.arange(len(calibration)), 3)
    return np.concatenate([next(iter(feed.values())) for feed in feeds])


def refusal(source: Any, *inputs: InputSpec, **options: Any) -> str:
    with pytest.raises(CalibrationError) as caught:
        values_of(source, *inputs, **options)
    return str(caught.value)


@pytest.mark.parametrize("field", ["npy", "x.npy"])
def test_keys_are_samples(field: str, tmp_path: Path) -> None:
    members = {f"train/{i:03}.{field}": npy([i, i]) for i in (2, 0, 1)}
    others = {"train/002.cls": b"3", "train/.hidden.npy": b"", "README": b"text", "b/1.json": b""}
    path = shard(tmp_path / "a.tar", members | others)
    assert values_of(path)[:, 0].tolist() == [2, 0, 1]  # as they come


def test_several_inputs(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for i in range(3):
        members |= {f"{i}.ids.npy": npy([[i] * (i + 1)], np.int64), f"{i}.x.npy": npy([i, i])}
    samples = load_calibration(shard(tmp_path / "a.tar", members), [IDS, X])
    feeds = list(samples.batches(np.arange(3), 3))
    assert [feed["ids"].tolist() for feed in feeds] == [[[0]], [[1, 1]], [[2, 2, 2]]]
    assert [feed["x"][0, 0] for feed in feeds] == [0, 1, 2]


@pytest.mark.parametrize(("field", "kind"), [("jpg", "jpeg"), ("PNG", "png"), ("image.png", "png")])
def test_images(field: str, kind: str, tmp_path: Path) -> None:
    members = {f"{i}.{field}": picture(60 * i, kind) for i in range(3)}
    path = shard(tmp_path / "a.tar", members | {"0.txt": b"a caption"})
    found = values_of(path, IMAGE, preprocessing=RAW)
    assert np.abs(found[:, 0, 0, 0] - [0, 60, 120]).max() <= 2  # JPEG rounds
    assert "--preset" in refusal(path, IMAGE)


def test_folders_and_patterns(tmp_path: Path) -> None:
    for number in range(3):
        shard(tmp_path / f"s-{number:02}.tar", {f"{number}.npy": npy([number] * 2)})
    assert values_of(tmp_path)[:, 0].tolist() == [0, 1, 2]
    assert values_of(f"{tmp_path}/s-{{02..01}}.tar")[:, 0].tolist() == [2, 1]
    assert values_of(f"{tmp_path}/s-*.tar")[:, 0].tolist() == [0, 1, 2]


# --- nothing that a .tar can hold does harm ---


def test_only_regular_files_count_and_nothing_is_extracted(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.npy", tarfile.SYMTYPE), ("b.npy", tarfile.LNKTYPE),
                           ("c.npy", tarfile.CHRTYPE), ("d.npy", tarfile.DIRTYPE),
                           ("e.npy", tarfile.FIFOTYPE)):  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
        for name in ("../../escaped.npy", str(tmp_path / "absolute.npy")):
            entry = tarfile.TarInfo(name)
            entry.size = len(npy([1, 2]))
            archive.addfile(entry, io.BytesIO(npy([1, 2])))
    assert values_of(path).tolist() == [[1, 2], [1, 2]]
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar", "inside"]


def test_sizes_that_are_not_there(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.npy")
    entry.size = 2**40
    path = tmp_path / "a.tar"
    path.write_bytes(entry.tobuf() + bytes(1024))
    assert f"declares {2**40} bytes, but the file holds 1024" in refusal(path)


def test_members_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.calibration.shard_files.MAX_MEMBER_BYTES", 100)
    path = shard(tmp_path / "a.tar", {"a.npy": npy([1, 2])})
    assert "a sample has at most 100" in refusal(path)


def test_pickles_are_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.array([{}, {}]), allow_pickle=True)
    path = shard(tmp_path / "a.tar", {"a.npy": content.getvalue()})
    assert "pickles" in refusal(path)


# --- refusals ---


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, ["holds no samples", "key.x.npy", "key.npy"]),
        ({"a.json": b""}, ["holds no samples"]),
        ({"a.npy": npy([1, 2, 3])}, ["member 'a.npy'", "[3]", "[2]"]),
        ({"a.npy": npy([[1, 2], [3, 4]])}, ["member 'a.npy'", "found 2 samples"]),
        ({"a.npy": npy([1, np.nan])}, ["member 'a.npy'", "NaN"]),
        ({"a.npy": npy([1, 2])[:-4]}, ["member 'a.npy'", "8 bytes", "holds 4"]),
        (
            {"a.npy": npy([1, 2]).replace(b"(2,), }", b"(2," + b"\xff" * 4)},
            ["cannot be read as .npy"],
        ),
        ({"a.npy": b"no array"}, ["member 'a.npy'", "cannot be read as .npy"]),
        ({"a.npy": npy([1, 2]), "a.x.npy": npy([1, 2])}, ["'a' holds input 'x' twice"]),
    ],
)
def test_shards_that_do_not_fit(
    members: dict[str, bytes], words: list[str], tmp_path: Path
) -> None:
    path = shard(tmp_path / "a.tar", members)
    message = refusal(path)
    assert all(word in message for word in [str(path), *words]), message


def test_a_sample_without_an_input(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", {"k.x.npy": npy([1, 2])})
    assert "sample 'k' lacks 'ids'; add a member k.ids.npy" in refusal(path, X, IDS)


def test_images_and_arrays_do_not_mix(tmp_path: Path) -> None:
    members = {"a.png": picture(1), "b.npy": npy(np.zeros((3, 4, 4)))}
    path = shard(tmp_path / "a.tar", members)
    assert "an image in some samples and an array in others" in refusal(
        path, IMAGE, preprocessing=RAW
    )


@pytest.mark.parametrize("content", [b"", b"no archive", bytes(300), b"\x1f\x8b" + bytes(600)])
def test_files_that_are_no_archive(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    message = refusal(tmp_path / "a.tar")
    assert str(tmp_path / "a.tar") in message


def test_compressed_archives(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    assert "without compression" in refusal(tmp_path / "a.tar.gz")


# --- patterns ---


def test_what_patterns_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-0.npy", "a-1.npy", "b-0.npy", "b-1.npy", "b-10.npy"):
        Path(name).touch()

    def names(pattern: str) -> list[str]:
        return [path.name for path in matched(pattern)]

    assert names("{a,b}-{0..1}.npy") == ["a-0.npy", "a-1.npy", "b-0.npy", "b-1.npy"]
    assert names("b-?.npy") == ["b-0.npy", "b-1.npy"]
    assert names("{b,a}-*.npy") == ["b-0.npy", "b-1.npy", "b-10.npy", "a-0.npy", "a-1.npy"]
    with pytest.raises(CalibrationError, match=r"stands for a-2\.npy among others, which is miss"):
        names("a-{0..2}.npy")
    with pytest.raises(CalibrationError, match="stands for no file"):
        names("c*.npy")
    with pytest.raises(CalibrationError, match="more than 100000 files"):
        names("{0..999}-{0..999}.npy")


def test_patterns_of_several_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 2), np.float32))
    shard(tmp_path / "a.tar", {"a.npy": npy([1, 2])})
    assert ".npy: 1, .tar: 1" in refusal(f"{tmp_path}/a.*")
    (tmp_path / "a.txt").touch()
    assert "a.txt: found a file of another kind" in refusal(f"{tmp_path}/a.t*")
