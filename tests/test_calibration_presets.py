"""Presets, and how images get the size of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxprune.arrays import Array
from onnxprune.calibration import PRESETS, InputSpec, Preprocessing, load_calibration
from onnxprune.cli import prune
from onnxprune.cli.images import preprocessing
from onnxprune.errors import CalibrationError

SIZE = (8, 12)
NCHW = InputSpec("x", ("N", 3, *SIZE), np.dtype(np.float32))
TOLERANCE = 1e-5
"""float32 rounding of values up to 255 / 0.2, relative to them."""


def picture(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(height * width)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def sample(folder: Path, image: Image.Image, said: Preprocessing, spec: InputSpec = NCHW) -> Array:
    """The image as channels last."""
    image.save(folder / "a.png")
    calibration = load_calibration(folder, [spec], preprocessing=said)
    (feed,) = calibration.batches(np.arange(1), 1)
    return np.moveaxis(feed["x"][0], 0, 2)


def flags(*words: str) -> Preprocessing:
    given = prune.parser().parse_args(["in", "out", "--calib", "x", *words])
    stated = preprocessing(given)
    assert stated is not None
    return stated


# --- values, beside the formulas of the libraries they are from ---

IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CLIP = (
    np.array([0.48145466, 0.4578275, 0.40821073]),
    np.array([0.26862954, 0.26130258, 0.27577711]),
)
EXPECTED = {
    "imagenet": lambda p: (p / 255 - IMAGENET[0]) / IMAGENET[1],
    "torchvision": lambda p: (p / 255 - IMAGENET[0]) / IMAGENET[1],
    "timm": lambda p: (p / 255 - IMAGENET[0]) / IMAGENET[1],
    "tf": lambda p: p / 127.5 - 1.0,
    "caffe": lambda p: p[..., ::-1] - np.array([103.939, 116.779, 123.68]),
    "unit": lambda p: p / 255,
    "raw": lambda p: p,
    "clip": lambda p: (p / 255 - CLIP[0]) / CLIP[1],
    "siglip": lambda p: p / 127.5 - 1.0,
    "yolo": lambda p: p / 255,
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_values_of_presets(name: str, tmp_path: Path) -> None:
    image = picture(*SIZE)
    said = PRESETS[name].preprocessing
    if said.crop is not None:  # the geometry is looked at below
        said = flags("--preset", name, "--crop", "1")
    pixels = np.asarray(image, np.float64)
    found = sample(tmp_path, image, said)
    np.testing.assert_allclose(found, EXPECTED[name](pixels), rtol=TOLERANCE, atol=TOLERANCE)


def test_every_preset_is_in_the_help_and_names_its_source() -> None:
    text = " ".join(prune.parser().format_help().split())
    for name, preset in PRESETS.items():
        assert f"{name} {preset.what}" in text
        assert preset.source


def test_uint8_models_take_raw_pixels(tmp_path: Path) -> None:
    image, spec = picture(*SIZE), InputSpec("x", (1, 3, *SIZE), np.dtype(np.uint8))
    found = sample(tmp_path, image, PRESETS["raw"].preprocessing, spec)
    assert np.array_equal(found, np.asarray(image))


# --- geometry ---


def test_torchvision_cuts_from_a_larger_image(tmp_path: Path) -> None:
    image = picture(70, 70)
    spec = InputSpec("x", ("N", 3, 56, 56), np.dtype(np.float32))
    scaled = image.resize((64, 64), Image.Resampling.BILINEAR).crop((4, 4, 60, 60))
    said = Preprocessing(scale=1.0, crop=0.875)
    assert np.array_equal(sample(tmp_path, image, said, spec), np.asarray(scaled))


def test_the_torchvision_preset_is_its_transform(tmp_path: Path) -> None:
    """Resize(256), CenterCrop(224), ToTensor, Normalize, step by step."""
    image = picture(300, 400)
    spec = InputSpec("x", ("N", 3, 224, 224), np.dtype(np.float32))
    scaled = image.resize((int(256 * 400 / 300), 256), Image.Resampling.BILINEAR)
    left, top = round((scaled.width - 224) / 2), round((256 - 224) / 2)
    pixels = np.asarray(scaled.crop((left, top, left + 224, top + 224)), np.float64)
    expected = (pixels / 255 - IMAGENET[0]) / IMAGENET[1]
    found = sample(tmp_path, image, PRESETS["torchvision"].preprocessing, spec)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_stretching(tmp_path: Path) -> None:
    image = picture(20, 20)
    said = Preprocessing(scale=1.0, fit="stretch", interpolation="nearest")
    expected = image.resize(SIZE[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(sample(tmp_path, image, said), np.asarray(expected))


def test_the_letterbox_surrounds_with_its_colour(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    found = sample(tmp_path, image, Preprocessing(scale=1.0, fit="pad", pad=(1, 2, 3)))
    assert (found[:, 2:10] == (200, 100, 50)).all()
    assert (found[:, [0, 1, 10, 11]] == (1, 2, 3)).all()
    blue = sample(tmp_path, image, Preprocessing(scale=1.0, fit="pad", pad=(1, 2, 3), bgr=True))
    assert (blue[:, 2:10] == (50, 100, 200)).all()
    assert (blue[:, 0] == (1, 2, 3)).all()  # as the model's channels are ordered
    assert np.allclose(sample(tmp_path, image, PRESETS["yolo"].preprocessing)[:, 0], 114 / 255)


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (7, 13), SIZE])
def test_every_image_fits(tmp_path: Path, fit: Any, size: tuple[int, int]) -> None:
    found = sample(tmp_path, picture(*size), Preprocessing(scale=1.0, fit=fit))
    assert found.shape == (*SIZE, 3)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "area"])
def test_interpolations(tmp_path: Path, name: Any) -> None:
    found = sample(tmp_path, picture(40, 60), Preprocessing(scale=1.0, interpolation=name))
    own = {"area": "BOX"}.get(name, name.upper())
    expected = picture(40, 60).resize(SIZE[::-1], Image.Resampling[own])
    assert np.array_equal(found, np.asarray(expected))


# --- flags go before presets ---


def test_flags_override_presets() -> None:
    said = flags("--preset", "caffe", "--no-bgr", "--mean", "0", "--resize", "4x6")
    assert said == Preprocessing((0.0,), (1.0,), 1.0, resize=(4, 6), bgr=False)
    assert flags("--preset", "yolo", "--fit", "stretch").pad is None
    assert flags("--preset", "torchvision", "--fit", "pad", "--pad", "9").crop is None
    assert flags("--preset", "yolo", "--crop", "0.9").said == {"scale": 1 / 255, "crop": 0.9}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fit": "cover"}, "'crop' or 'stretch' or 'pad', not 'cover'"),
        ({"interpolation": "best"}, "'area', not 'best'"),
        ({"crop": 0.0}, "--crop is a share"),
        ({"crop": 1.5}, "--crop is a share"),
        ({"crop": 0.9, "fit": "pad"}, "--crop cuts"),
        ({"pad": (3.0,)}, "--fit pad"),
        ({"pad": (256.0,), "fit": "pad"}, "0 to 255"),
    ],
)
def test_impossible_geometry(options: dict[str, Any], words: str) -> None:
    with pytest.raises(CalibrationError, match=words):
        Preprocessing(**options)


def test_open_sizes_need_one(tmp_path: Path) -> None:
    spec = InputSpec("x", ("N", 3, None, None), np.dtype(np.float32))
    for name in ("yolo", "torchvision"):
        with pytest.raises(CalibrationError, match=r"--preset\) fits images.*--resize 224x224"):
            sample(tmp_path, picture(8, 8), PRESETS[name].preprocessing, spec)
    assert sample(tmp_path, picture(8, 9), PRESETS["clip"].preprocessing, spec).shape == (8, 9, 3)


def test_grey_has_no_order_of_colours(tmp_path: Path) -> None:
    spec = InputSpec("x", ("N", 1, *SIZE), np.dtype(np.float32))
    with pytest.raises(CalibrationError, match="leave --bgr away"):
        sample(tmp_path, picture(8, 8), Preprocessing(bgr=True), spec)
