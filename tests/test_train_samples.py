"""Labelled samples from any source, and early words about what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from onnxprune.calibration import InputSpec, Preprocessing  # noqa: E402
from onnxprune.errors import CalibrationError, TrainingError  # noqa: E402
from onnxprune.train import samples as module  # noqa: E402
from onnxprune.train.samples import divided, load_labelled  # noqa: E402

INPUT = InputSpec("x", ("N", 6), np.dtype(np.float32))
IMAGE = InputSpec("image", ("N", 3, 8, 8), np.dtype(np.float32))


@pytest.fixture
def data(rng) -> dict[str, np.ndarray]:
    return {
        "x": rng.standard_normal((20, 6)).astype(np.float32),
        "labels": rng.integers(0, 5, 20),
    }


def everything(samples: module.LabelledSamples, size: int = 7) -> dict[str, np.ndarray]:
    parts = list(samples.parts(np.arange(len(samples)), size))
    assert all(part.labels is not None for part in parts)
    return {
        "x": np.concatenate([part.feed["x"] for part in parts]),
        "labels": np.concatenate([part.labels for part in parts]),
    }


def same(found: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(found[name], data[name]) for name in ("x", "labels"))


def test_an_archive_holds_samples_and_labels(tmp_path: Path, data) -> None:
    np.savez(tmp_path / "train.npz", **data)
    samples = load_labelled(tmp_path / "train.npz", [INPUT])
    assert same(everything(samples), data)
    assert np.array_equal(samples.labels, data["labels"])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, np.int64])
def test_labels_are_whole_numbers_of_any_width(data, dtype) -> None:
    given = data | {"labels": data["labels"].astype(dtype)}
    assert same(everything(load_labelled(given, [INPUT])), data)


def test_labels_in_a_file_of_their_own(tmp_path: Path, data) -> None:
    np.save(tmp_path / "x.npy", data["x"])
    np.save(tmp_path / "y.npy", data["labels"].astype(np.uint8))
    samples = load_labelled(tmp_path / "x.npy", [INPUT], tmp_path / "y.npy")
    assert same(everything(samples), data)


def test_a_folder_of_archives_and_a_script(tmp_path: Path, data) -> None:
    halves = [
        {name: array[part] for name, array in data.items()} for part in (slice(9), slice(9, 20))
    ]
    for number, half in enumerate(halves):
        np.savez(tmp_path / f"{number}.npz", **half)
    assert same(everything(load_labelled(tmp_path, [INPUT])), data)
    script = tmp_path / "feeds.py"
    script.write_text(
        "import numpy as np\ndef samples():\n    for i in range(2):\n"
        f"        yield dict(np.load({str(tmp_path)!r} + f'/{{i}}.npz'))\n"
    )
    assert same(everything(load_labelled(f"{script}:samples", [INPUT])), data)


def test_folders_of_images_are_classes(tmp_path: Path, rng) -> None:
    pixels = rng.integers(0, 255, (6, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    samples = load_labelled(tmp_path, [IMAGE], preprocessing=Preprocessing(scale=1.0))
    (part,) = samples.parts(np.arange(6), 6)
    assert part.labels is not None
    assert part.labels.tolist() == [0, 0, 0, 1, 1, 1]
    wanted = pixels[[0, 2, 4, 1, 3, 5]].transpose(0, 3, 1, 2)
    assert np.array_equal(part.feed["image"], wanted.astype(np.float32))
    assert samples.names == ("cat", "dog")
    Image.fromarray(pixels[0]).save(tmp_path / "loose.png")
    with pytest.raises(TrainingError, match=r"loose\.png: lies in no folder of a class"):
        load_labelled(tmp_path, [IMAGE], preprocessing=Preprocessing(scale=1.0))


def test_samples_that_are_too_many_to_hold_are_read_again(monkeypatch, data) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 100)
    samples = load_labelled(data, [INPUT])
    assert samples._held is None
    assert same(everything(samples), data)
    assert np.array_equal(samples.labels, data["labels"])


def test_samples_of_several_shapes_come_in_parts() -> None:
    spec = InputSpec("x", ("N", "T"), np.dtype(np.float32))
    feeds = [{"x": np.ones((1, t), np.float32), "labels": np.array([t])} for t in (3, 3, 4, 3)]
    parts = list(load_labelled(feeds, [spec]).parts(np.arange(4), 8))
    assert [part.feed["x"].shape for part in parts] == [(2, 3), (1, 4), (1, 3)]
    assert [part.labels.tolist() for part in parts] == [[3, 3], [4], [3]]  # type: ignore[union-attr]


def test_a_fixed_batch_is_always_full(data) -> None:
    samples = load_labelled(data, [InputSpec("x", (8, 6), np.dtype(np.float32))])
    parts = list(samples.parts(np.arange(20), 3))
    assert [len(part.feed["x"]) for part in parts] == [8, 8]


# --- what does not fit --------------------------------------------------------------------------


def test_missing_labels_are_missed_with_advice(tmp_path: Path, data) -> None:
    np.savez(tmp_path / "x.npz", x=data["x"])
    with pytest.raises(TrainingError, match=r"no array 'labels' beside \['x'\]; add the"):
        load_labelled(tmp_path / "x.npz", [INPUT])
    np.save(tmp_path / "x.npy", data["x"])
    with pytest.raises(TrainingError, match=r"x\.npy: \.npy files hold no classes: --labels"):
        load_labelled(tmp_path / "x.npy", [INPUT])
    with pytest.raises(TrainingError, match="the samples: no array 'labels' beside"):
        load_labelled({"x": data["x"]}, [INPUT])


def test_as_many_labels_as_samples(tmp_path: Path, data) -> None:
    with pytest.raises(TrainingError, match="19 labels for 20 samples"):
        load_labelled({"x": data["x"]}, [INPUT], data["labels"][:-1])
    short = data | {"labels": data["labels"][:-1]}
    with pytest.raises(CalibrationError, match=r"'x': 20, 'labels': 19"):
        load_labelled(short, [INPUT])


def test_labels_that_are_no_classes(data) -> None:
    with pytest.raises(CalibrationError, match="found type float64, expected int64"):
        load_labelled(data | {"labels": data["labels"] / 2}, [INPUT])
    with pytest.raises(TrainingError, match="classes are whole numbers from 0"):
        load_labelled({"x": data["x"]}, [INPUT], -data["labels"] - 1)


def test_values_that_are_not_finite_are_found_before(data) -> None:
    bad = data["x"].copy()
    bad[7, 2] = np.nan
    with pytest.raises(CalibrationError, match=r"sample 7, input 'x': 1 of 6 values are NaN"):
        load_labelled(data | {"x": bad}, [INPUT])


def test_an_input_named_as_the_labels_is_refused(data) -> None:
    with pytest.raises(TrainingError, match="rename the input"):
        load_labelled(data, [InputSpec("labels", ("N",), np.dtype(np.int64))])


# --- dividing -----------------------------------------------------------------------------------


def test_the_two_parts_are_all_samples_and_the_same_for_a_seed() -> None:
    training, validation = divided(50, 0.2, seed=3)
    assert sorted([*training, *validation]) == list(range(50))
    assert len(validation) == 10
    again = divided(50, 0.2, seed=3)
    assert np.array_equal(validation, again[1])
    assert not np.array_equal(validation, divided(50, 0.2, seed=4)[1])
    assert len(divided(50, 0.0, seed=3)[1]) == 0
    assert len(divided(50, 0.1, seed=3, unit=8)[1]) == 8


def test_too_few_to_divide() -> None:
    with pytest.raises(TrainingError, match="1 samples are too few to keep 10% for validation"):
        divided(1, 0.1, 0)
