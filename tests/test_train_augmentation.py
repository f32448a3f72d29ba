"""Batches changed at random, the same for the same generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import TrainingError
from onnxprune.train.augmentation import augmentations


def images(layout: str = "nchw", count: int = 64) -> np.ndarray:
    shape = (count, 3, 8, 9) if layout == "nchw" else (count, 8, 9, 3)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def changed(spec: str, batch: np.ndarray, seed: int = 1) -> np.ndarray:
    (change,) = augmentations([spec])
    before = batch.copy()
    result = change({"x": batch}, np.random.default_rng(seed))["x"]
    assert np.array_equal(batch, before), "the batch itself was changed"
    assert result.dtype == batch.dtype
    return result


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_half_of_the_images_are_flipped_left_to_right(layout: str) -> None:
    batch = images(layout)
    result = changed("flip", batch)
    mirrored = batch[..., ::-1] if layout == "nchw" else batch[:, :, ::-1]
    flipped = np.array([np.array_equal(a, b) for a, b in zip(result, mirrored, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(result, batch, strict=True)])
    assert (flipped ^ same).all()
    assert 16 < flipped.sum() < 48


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_crops_move_images_and_leave_zeros(layout: str) -> None:
    batch = images(layout)
    result = changed("crop=2", batch)
    first = (lambda x: x) if layout == "nchw" else (lambda x: x.transpose(0, 3, 1, 2))
    wide = np.pad(first(batch), ((0, 0), (0, 0), (2, 2), (2, 2)))
    places = set()
    for number, image in enumerate(first(result)):
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(image, wide[number, :, top : top + 8, left : left + 9])
        ]
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 15


def test_the_generator_decides() -> None:
    batch = images()
    assert np.array_equal(changed("crop=2", batch, 1), changed("crop=2", batch, 1))
    assert not np.array_equal(changed("crop=2", batch, 1), changed("crop=2", batch, 2))


def test_all_images_of_a_sample_move_together() -> None:
    (flip,) = augmentations(["flip"])
    batch = images()
    result = flip({"a": batch, "b": -batch}, np.random.default_rng(0))
    assert np.array_equal(result["a"], -result["b"])


SCRIPT = """
import numpy as np
def noisy(feed, rng):
    return {name: x + rng.standard_normal(x.shape).astype(x.dtype) for name, x in feed.items()}
def halved(feed):
    feed["x"] *= 0.5
    return feed
def other(feed):
    return {"z": feed["x"]}
def fewer(feed):
    return {"x": feed["x"][1:]}
def broken(feed):
    return {"x": feed["x"] * np.nan}
def raises(feed):
    raise KeyError("no")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(SCRIPT)
    return str(tmp_path / "own.py")


def test_functions_of_the_user_s(script: str) -> None:
    batch = images()
    assert np.array_equal(changed(f"{script}:halved", batch), batch * 0.5)
    noisy = changed(f"{script}:noisy", batch, 5)
    assert not np.array_equal(noisy, batch)
    assert np.array_equal(noisy, changed(f"{script}:noisy", batch, 5))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "other",
            r"own\.py:other: returned \['z'\], expected a dictionary with the inputs \['x'\]",
        ),
        ("fewer", r"returned shape \(63, 3, 8, 9\) for 'x'"),
        ("broken", "that are NaN or infinite"),
        ("raises", "raised KeyError in line 15"),
        ("missing", "no function named 'missing'"),
    ],
)
def test_what_a_function_does_wrong_is_said(script: str, function: str, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        changed(f"{script}:{function}", images())


@pytest.mark.parametrize("spec", ["rotate", "crop", "crop=0", "crop=a", "nothere.py:f"])
def test_unknown_changes_are_refused(spec: str) -> None:
    with pytest.raises(TrainingError, match=r"unknown augmentation|no such file"):
        augmentations([spec])


def test_flips_are_for_images() -> None:
    with pytest.raises(TrainingError, match=r"no input has four axes \('x' \[5, 6\]\)"):
        changed("flip", np.zeros((5, 6), np.float32))
