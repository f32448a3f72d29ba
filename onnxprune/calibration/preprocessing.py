"""From an image to the values of a model's input, as the user states it.

value = (pixel * scale - mean) / std, with pixels from 0 to 255. An image is scaled (bilinear,
antialiased) until it just covers the wanted height and width, then cut to them around its centre.
It becomes RGB or grey by the model's channel count. Orientation tags (EXIF) are left alone, as
the usual training pipelines do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxprune.arrays import Array
from onnxprune.calibration.input_spec import InputSpec
from onnxprune.errors import CalibrationError

PIXEL_MODES = {1: "L", 3: "RGB"}
FLAGS = "--mean --std --scale --layout --resize"


@dataclass(frozen=True)
class Preprocessing:
    """What the user says about image values; None is "not said" and takes the default.

    Attributes:
        mean: one value, or one per channel; default 0.
        std: one value, or one per channel; default 1.
        scale: what a pixel (0 to 255) is multiplied with; default 1/255, for uint8 inputs 1.
        layout: channels first or last; default what the model's fixed channel extent shows.
        resize: height and width; default those of the model, or the image's own where dynamic.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: Literal["nchw", "nhwc"] | None = None
    resize: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        numbers = [*(self.mean or ()), *(self.std or ())]
        numbers += [] if self.scale is None else [self.scale]
        if not all(math.isfinite(number) for number in numbers):
            raise CalibrationError("--mean, --std and --scale must be finite numbers.")
        if self.scale == 0 or 0 in (self.std or ()):
            raise CalibrationError("--scale and --std must not be 0.")
        if self.layout not in (None, "nchw", "nhwc"):
            raise CalibrationError(f"--layout is 'nchw' or 'nhwc', not {self.layout!r}.")
        if self.resize is not None and min(self.resize) < 1:
            raise CalibrationError(
                f"--resize is a height and a width in pixels, not {self.resize}."
            )
        # The classic trap: 123.675 as the mean of values that reach only 1.
        if self.scale is None and any(number > 1 for number in numbers):
            raise CalibrationError(
                "--mean and --std look like pixel units (0 to 255), but pixels are scaled by "
                "1/255 first; give --scale 1 as well, or --scale 0.00392157 if this is meant."
            )

    @property
    def is_empty(self) -> bool:
        """Whether the user said nothing at all."""
        return all(value is None for value in astuple(self))


IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255)
"""What torchvision's and most other ImageNet models were trained with."""


@dataclass(frozen=True)
class ImageTransform:
    """Preprocessing made complete for one model input.

    Attributes:
        spec: the input.
        channels: 1 or 3.
        channels_first: whether the input is nchw.
        size: height and width, None for the image's own.
        scale: factor of the pixels.
        mean: float32 array of shape (channels,) or (1,).
        std: float32 array of shape (channels,) or (1,).
    """

    spec: InputSpec
    channels: int
    channels_first: bool
    size: tuple[int, int] | None
    scale: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    def __call__(self, image: Image.Image) -> Array:
        """The image as one sample, shape (channels, h, w) or (h, w, channels)."""
        pixels = np.asarray(_fit(_in_mode(image, PIXEL_MODES[self.channels]), self.size))
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.spec.dtype.kind == "f":
            values = (pixels.astype(np.float32) * np.float32(self.scale) - self.mean) / self.std
            pixels = values.astype(self.spec.dtype, copy=False)
        return np.moveaxis(pixels, 2, 0) if self.channels_first else pixels

    def describe(self) -> str:
        """The transform in one line, for people."""
        mode = "grey" if self.channels == 1 else "RGB"
        size = f"{self.size[0]} x {self.size[1]}" if self.size else "own size"
        layout = "nchw" if self.channels_first else "nhwc"
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"{mode} {size} {layout}, (pixel * {self.scale:g} - [{mean}]) / [{std}]"


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"its pixels are not 8-bit (mode {image.mode})")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow's own advice for such palettes
    return image.convert(mode)


def _fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """Scale the image to cover the size (height, width), then cut around the centre."""
    if size is None or (image.height, image.width) == size:
        return image
    height, width = size
    factor = max(height / image.height, width / image.width)
    scaled = (
        max(width, round(image.width * factor)),
        max(height, round(image.height * factor)),
    )
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    resized = image.resize(scaled, Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))


def image_transform(
    preprocessing: Preprocessing | None, inputs: Sequence[InputSpec], where: str
) -> ImageTransform:
    """The transform for a folder of images, or an error that says which flags to give.

    Args:
        preprocessing: what the user said; nothing at all is refused, since a wrong guess would
            silently prune for inputs the model never sees.
        inputs: the model's inputs.
        where: the folder, for the messages.
    """
    spec = _image_input(inputs, where)
    at = f"{where}, input {spec.name!r}"
    if preprocessing is None or preprocessing.is_empty:
        raise CalibrationError(
            f"{at}: a folder of images needs to be told how pixels become values, "
            f"(pixel * scale - mean) / std; give at least one of {FLAGS} (defaults of the others: "
            "mean 0, std 1, scale 1/255, layout and size of the model's input)."
        )
    channels_first, channels = _layout(preprocessing.layout, spec, at)
    mean = _per_channel("--mean", preprocessing.mean or (0.0,), channels, at)
    std = _per_channel("--std", preprocessing.std or (1.0,), channels, at)
    size = _size(
        preprocessing.resize, spec.extents[2:] if channels_first else spec.extents[1:3], at
    )
    scale = preprocessing.scale
    if spec.dtype.kind != "f":
        scale = 1.0 if scale is None else scale
        if scale != 1 or mean.any() or (std != 1).any():
            raise CalibrationError(
                f"{at}: the model takes pixels as they are (uint8); leave --mean, --std and "
                "--scale away and give --layout or --resize."
            )
    return ImageTransform(
        spec, channels, channels_first, size, 1 / 255 if scale is None else scale, mean, std
    )


def _image_input(inputs: Sequence[InputSpec], where: str) -> InputSpec:
    spec = inputs[0]
    if len(inputs) == 1 and len(spec.shape) == 4 and spec.dtype.name.startswith(("float", "uint8")):
        return spec
    found = ", ".join(f"{spec.name!r} {spec}" for spec in inputs)
    raise CalibrationError(
        f"{where}: a folder of images feeds a model with one float or uint8 input of 4 axes, "
        f"found {found}; preprocess the images yourself and save the inputs as .npz files."
    )


def _layout(said: str | None, spec: InputSpec, at: str) -> tuple[bool, int]:
    """Whether channels come first, and how many there are."""
    by_layout = {"nchw": spec.extents[1], "nhwc": spec.extents[3]}
    possible = [layout for layout, extent in by_layout.items() if extent in PIXEL_MODES]
    if said is None and len(possible) > 1:
        raise CalibrationError(
            f"{at}: the shape {spec} does not show where the channels are; give --layout nchw or "
            "--layout nhwc."
        )
    layout = said or (possible[0] if possible else "nchw")
    channels = by_layout[layout]
    if channels not in PIXEL_MODES:
        raise CalibrationError(
            f"{at}: images have 1 or 3 channels, but as {layout} the input {spec} has "
            f"{channels or 'any number'}; correct --layout, or preprocess the images yourself and "
            "save them as .npz."
        )
    return layout == "nchw", channels


def _per_channel(
    flag: str, values: tuple[float, ...], channels: int, at: str
) -> NDArray[np.float32]:
    if len(values) not in (1, channels):
        raise CalibrationError(
            f"{at}: {flag} (or --preset) has {len(values)} values, but the model's channels "
            f"are {channels}; give one value, or one per channel."
        )
    return np.array(values, dtype=np.float32)


def _size(
    said: tuple[int, int] | None, extents: tuple[int | None, ...], at: str
) -> tuple[int, int] | None:
    """Height and width of every sample; None for the image's own."""
    height, width = extents
    if said is None:
        if height is None and width is None:
            return None
        if height is None or width is None:
            raise CalibrationError(
                f"{at}: the model fixes only one of height ({height or 'any'}) and width "
                f"({width or 'any'}); give --resize."
            )
        return height, width
    if (height or said[0], width or said[1]) != said:
        raise CalibrationError(
            f"{at}: --resize asks for {said[0]} x {said[1]}, but the model takes exactly "
            f"{height or 'any'} x {width or 'any'}; leave --resize away or correct it."
        )
    return said
