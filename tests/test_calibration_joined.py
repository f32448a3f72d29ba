"""Inputs that come from different sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.calibration import InputSpec, Preprocessing, load_calibration
from onnxprune.cli import prune
from onnxprune.errors import CalibrationError

IDS = InputSpec("ids", ("N", "seq"), np.dtype(np.int64))
MASK = InputSpec("mask", ("N", "seq"), np.dtype(np.int64))
IMAGE = InputSpec("image", ("N", 3, 4, 4), np.dtype(np.float32))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("ids.npy", np.arange(12).reshape(4, 3))
    np.save("mask.npy", np.ones((4, 3), int))
    np.save("short.npy", np.ones((3, 3), int))
    Path("images").mkdir()
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(f"images/{number}.png")
    return tmp_path


def test_each_input_has_its_source(folder: Path) -> None:
    sources = {"ids": "ids.npy", "image": Path("images"), "mask": np.ones((4, 3), int)}
    said = Preprocessing(scale=1.0)
    samples = load_calibration(sources, [IDS, MASK, IMAGE], preprocessing=said)
    (feed,) = samples.batches(np.array([1, 3]), 8)
    assert feed["ids"].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert feed["mask"].shape == (2, 3)
    assert feed["image"][:, 0, 0, 0].tolist() == [1, 3]
    assert "ids from arrays of ids.npy; " in samples.summary()


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ({"ids": "ids.npy", "mask": "short.npy"}, ["'ids': 4, 'mask': 3"]),
        ({"ids": "ids.npy"}, ["add 'mask'"]),
        ({"ids": "ids.npy", "mask": "none.npy"}, ["none.npy: no such file"]),
        ({"ids": "ids.npy", "mask": "images"}, ["images", "'mask'", ".npz"]),
    ],
)
def test_sources_that_do_not_fit(folder: Path, sources: Any, words: list[str]) -> None:
    with pytest.raises(CalibrationError) as caught:
        load_calibration(sources, [IDS, MASK])
    assert all(word in str(caught.value) for word in words)


def calib(*words: str) -> Any:
    flags = [flag for word in words for flag in ("--calib", word)]
    return prune.parser().parse_args(["in.onnx", "out.onnx", *flags]).calib


def test_the_flag_repeats_for_inputs(folder: Path) -> None:
    assert calib("samples.npz") == "samples.npz"
    assert calib("x:0=ids.npy") == {"x:0": "ids.npy"}
    assert calib("ids=ids.npy", "mask=mask.npy") == {"ids": "ids.npy", "mask": "mask.npy"}
    Path("a=b.npz").touch()
    assert calib("a=b.npz") == "a=b.npz"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a.npz", "b.npz"), "is given twice; for several inputs write NAME=DATA"),
        (("a.npz", "x=b.npz"), "NAME=DATA for every input, not 'a.npz'"),
        (("x=a.npz", "b.npz"), "is given twice; for several inputs write NAME=DATA"),
        (("x=a.npz", "x=b.npz"), "input 'x' is given twice"),
    ],
)
def test_misuse_of_the_flag(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        calib(*words)
    assert said in capsys.readouterr().err
