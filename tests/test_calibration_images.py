"""Samples that are images: what preprocessing means, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from onnxprune.arrays import Array
from onnxprune.calibration import IMAGENET, InputSpec, Preprocessing, load_calibration
from onnxprune.calibration.image_folder import opened
from onnxprune.errors import CalibrationError

FLOAT = np.dtype(np.float32)
NCHW = InputSpec("x", ("N", 3, 4, 6), FLOAT)
RAW = Preprocessing(scale=1.0)
TOLERANCE = 16 * float(np.finfo(np.float32).eps)
"""Three operations and three constants, each rounded once, on values below 1, divided by 0.2."""


def picture(height: int = 4, width: int = 6, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (2, 0, 1):
        Image.fromarray(picture(seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("ignored")
    return tmp_path


def load(folder: Path, spec: InputSpec, preprocessing: Preprocessing | None) -> Array:
    calibration = load_calibration(folder, [spec], preprocessing=preprocessing)
    (feed,) = calibration.batches(np.arange(len(calibration)), 16)
    return feed[spec.name]


def refusal(folder: Path, spec: InputSpec, preprocessing: Preprocessing | None) -> str:
    with pytest.raises(CalibrationError) as caught:
        load(folder, spec, preprocessing)
    return str(caught.value)


# --- values ---


def test_values(folder: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    pixels = np.stack([picture(seed=number) for number in range(3)])
    expected = (pixels / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
    found = load(folder, NCHW, preprocessing)
    assert found.dtype == FLOAT
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), rtol=0, atol=TOLERANCE)
    nhwc = load(folder, InputSpec("x", (None, 4, 6, 3), FLOAT), preprocessing)
    assert np.array_equal(nhwc, found.transpose(0, 2, 3, 1))


def test_scale_and_types(folder: Path) -> None:
    pixels = np.stack([picture(seed=number) for number in range(3)]).transpose(0, 3, 1, 2)
    assert np.array_equal(load(folder, NCHW, RAW), pixels)
    half = load(folder, InputSpec("x", NCHW.shape, np.dtype(np.float16)), IMAGENET)
    assert half.dtype == np.float16
    uint8 = load(
        folder, InputSpec("x", NCHW.shape, np.dtype(np.uint8)), Preprocessing(layout="nchw")
    )
    assert uint8.dtype == np.uint8
    assert np.array_equal(uint8, pixels)


def test_grey_models_get_grey_images(folder: Path) -> None:
    grey = load(folder, InputSpec("x", ("N", 1, 4, 6), FLOAT), RAW)
    assert grey.shape == (3, 1, 4, 6)
    assert np.array_equal(grey[0, 0], np.asarray(Image.fromarray(picture(seed=0)).convert("L")))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "CMYK", "1"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.fromarray(picture()).convert(mode).save(tmp_path / f"a.{suffix}")
    assert load(tmp_path, NCHW, RAW).shape == (1, 3, 4, 6)


def test_palettes_with_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(picture()).convert("P")
    palette.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert load(tmp_path, NCHW, RAW).shape == (1, 3, 4, 6)


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG", "bmp", "webp"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    if suffix == "webp" and not features.check("webp"):
        pytest.skip("this Pillow was built without WebP")
    (tmp_path / "class").mkdir()
    Image.fromarray(picture()).save(tmp_path / "class" / f"a.{suffix}")
    assert load(tmp_path, NCHW, RAW).shape == (1, 3, 4, 6)


# --- sizes ---


def test_images_cover_the_size_and_are_cut_at_the_centre(tmp_path: Path) -> None:
    pixels = np.zeros((8, 20, 3), np.uint8)
    pixels[:, 4:16] = 200  # twice 4 x 6: exactly what is left
    Image.fromarray(pixels).save(tmp_path / "a.png")
    values = load(tmp_path, NCHW, RAW)
    assert values.shape == (1, 3, 4, 6)
    assert (values[..., 1:-1] == 200).all()  # antialiasing mixes in the neighbours at the edge


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 100), (100, 3), (5, 7), (4, 6)])
def test_every_size_fits(tmp_path: Path, height: int, width: int) -> None:
    Image.fromarray(picture(height, width)).save(tmp_path / "a.png")
    assert load(tmp_path, NCHW, RAW).shape == (1, 3, 4, 6)


def test_dynamic_models_take_the_size_of_the_image_or_of_the_flag(tmp_path: Path) -> None:
    for number, size in enumerate([(4, 6), (4, 6), (5, 5)]):
        Image.fromarray(picture(*size)).save(tmp_path / f"{number}.png")
    spec = InputSpec("x", ("N", 3, "h", "w"), FLOAT)
    calibration = load_calibration(tmp_path, [spec], preprocessing=RAW)
    shapes = [feed["x"].shape for feed in calibration.batches(np.arange(3), 8)]
    assert shapes == [(2, 3, 4, 6), (1, 3, 5, 5)]
    assert load(tmp_path, spec, Preprocessing(resize=(2, 3))).shape == (3, 3, 2, 3)


# --- laziness ---


def test_images_are_decoded_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        Image.fromarray(picture()).save(tmp_path / f"{number:02}.bmp")
    decoded = []
    convert: Callable[..., Any] = Image.Image.convert

    def spy(image: Image.Image, *args: Any) -> Any:
        decoded.append(image)
        return convert(image, *args)

    monkeypatch.setattr(Image.Image, "convert", spy)
    calibration = load_calibration(tmp_path, [NCHW], preprocessing=RAW)
    assert len(calibration) == 60
    assert not decoded
    feeds = calibration.batches(np.arange(60), 8)
    assert not decoded
    next(feeds)
    assert len(decoded) == 8
    next(feeds)
    assert len(decoded) == 16


def test_summary_says_what_was_done(folder: Path) -> None:
    first, second = load_calibration(folder, [NCHW], preprocessing=IMAGENET).summary().splitlines()
    assert first == (
        f"3 samples: images of {folder} as RGB 4 x 6 nchw, "
        "(pixel * 0.00392157 - [0.485 0.456 0.406]) / [0.229 0.224 0.225]"
    )
    assert second.startswith("x: float32 [3, 3, 4, 6], min -2.")


# --- refusals ---


@pytest.mark.parametrize("said", [None, Preprocessing()])
def test_images_without_preprocessing(folder: Path, said: Preprocessing | None) -> None:
    message = refusal(folder, NCHW, said)
    for word in (str(folder), "'x'", "--mean", "--std", "--scale", "--layout", "--resize"):
        assert word in message


@pytest.mark.parametrize(
    ("shape", "dtype", "said", "words"),
    [
        ((1, 3, 4, 3), "float32", RAW, ["[1, 3, 4, 3]", "--layout"]),
        ((1, 4, 4, 4), "float32", RAW, ["1 or 3 channels", "has 4"]),
        ((1, None, 4, 4), "float32", RAW, ["1 or 3 channels", "any number"]),
        ((1, 3, 4, 6), "float32", Preprocessing(layout="nhwc"), ["as nhwc", "has 6"]),
        ((1, 3, 4, 6), "float32", Preprocessing(resize=(8, 8)), ["8 x 8", "4 x 6", "--resize"]),
        ((1, 3, 4, None), "float32", RAW, ["height (4)", "width (any)", "--resize"]),
        ((1, 1, 4, 6), "float32", IMAGENET, ["--mean (or --preset) has 3 values", "are 1"]),
        ((1, 3, 4, 6), "uint8", IMAGENET, ["uint8", "--layout"]),
        ((1, 3, 4, 6), "int64", RAW, ["int64", ".npz"]),
        ((1, 72), "float32", RAW, ["4 axes", "[1, 72]", ".npz"]),
    ],
)
def test_models_that_images_do_not_fit(
    folder: Path, shape: tuple[int | None, ...], dtype: str, said: Preprocessing, words: list[str]
) -> None:
    message = refusal(folder, InputSpec("x", shape, np.dtype(dtype)), said)
    assert all(word in message for word in [str(folder), "'x'", *words]), message


def test_models_with_two_inputs(folder: Path) -> None:
    with pytest.raises(CalibrationError, match=r"'x' .*'y' .*\.npz"):
        load_calibration(folder, [NCHW, InputSpec("y", ("N",), FLOAT)], preprocessing=RAW)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (123.675,), "std": (58.395,)}, "--scale 1"),
        ({"std": (0.0,)}, "must not be 0"),
        ({"scale": 0.0}, "must not be 0"),
        ({"mean": (float("nan"),)}, "finite"),
        ({"layout": "chw"}, "'chw'"),
        ({"resize": (0, 3)}, "--resize"),
    ],
)
def test_impossible_preprocessing(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        Preprocessing(**options)


def test_unreadable_images(folder: Path) -> None:
    (folder / "3.png").write_bytes(b"not an image")
    message = refusal(folder, NCHW, RAW)
    assert all(word in message for word in (str(folder / "3.png"), "'x'", "cannot be read"))


def test_truncated_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    message = refusal(tmp_path, NCHW, RAW)
    assert all(word in message for word in (str(path), "'x'", "cannot be read")), message


def test_images_of_more_than_8_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(tmp_path / "a.png")
    message = refusal(tmp_path, NCHW, RAW)
    assert all(word in message for word in ("a.png", "8-bit", "I;16")), message


def test_empty_image_folder(tmp_path: Path) -> None:
    assert "holds no samples" in refusal(tmp_path, NCHW, RAW)


def test_a_forged_length_in_an_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs_out(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", runs_out)
    with (
        pytest.raises(CalibrationError, match="cannot be read as an 8-bit image"),
        opened(Path("a.png"), "a.png", "x"),
    ):
        pass
