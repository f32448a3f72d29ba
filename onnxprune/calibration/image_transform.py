"""From an image to the values of one model input.

Orientation tags (EXIF) are left alone, as the usual training pipelines do; an image becomes RGB or
grey by the model's channel count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from onnxprune.arrays import Array
from onnxprune.calibration.input_spec import InputSpec
from onnxprune.calibration.preprocessing import FLAGS, Fit, Interpolation, Preprocessing
from onnxprune.errors import CalibrationError

PIXEL_MODES = {1: "L", 3: "RGB"}
RESAMPLING: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


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
        fit: how an image gets the size.
        crop: share of the scaled image that is left.
        interpolation: how it is scaled.
        pad: the colour around it, for every channel in the order of the model's.
        bgr: whether blue comes first.
    """

    spec: InputSpec
    channels: int
    channels_first: bool
    size: tuple[int, int] | None
    scale: float
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    fit: Fit = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    pad: tuple[int, ...] = (0,)
    bgr: bool = False

    def __call__(self, image: Image.Image) -> Array:
        """The image as one sample, shape (channels, h, w) or (h, w, channels)."""
        pixels = np.asarray(self._fitted(_in_mode(image, PIXEL_MODES[self.channels])))
        pixels = pixels.reshape(*pixels.shape[:2], self.channels)
        if self.bgr:
            pixels = pixels[..., ::-1]
        if self.spec.dtype.kind == "f":
            values = (pixels.astype(np.float32) * np.float32(self.scale) - self.mean) / self.std
            pixels = values.astype(self.spec.dtype, copy=False)
        return np.moveaxis(pixels, 2, 0) if self.channels_first else pixels

    def shape(self, image: Image.Image) -> tuple[int, ...]:
        """The shape of the sample that an image makes; it is not decoded."""
        size = self.size or (image.height, image.width)
        return (self.channels, *size) if self.channels_first else (*size, self.channels)

    def describe(self) -> str:
        """The transform in one line, for people."""
        mode = "grey" if self.channels == 1 else "BGR" if self.bgr else "RGB"
        size = f"{self.size[0]} x {self.size[1]}" if self.size else "own size"
        if self.size and self.fit == "stretch":
            size += " stretched"
        elif self.size and self.fit == "pad":
            size += f" padded with {' '.join(map(str, self.pad))}"
        elif self.crop < 1:
            size += f" cut from {self.crop:g}"
        if self.interpolation != "bilinear":
            size += f" {self.interpolation}"
        layout = "nchw" if self.channels_first else "nhwc"
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return f"{mode} {size} {layout}, (pixel * {self.scale:g} - [{mean}]) / [{std}]"

    def _fitted(self, image: Image.Image) -> Image.Image:
        """The image in the wanted size."""
        if self.size is None:
            return image
        if self.fit == "stretch":
            return self._scaled(image, self.size)
        return self._padded(image, self.size) if self.fit == "pad" else self._cut(image, self.size)

    def _cut(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Scale the image to cover the size, or more by the share, then cut around the centre."""
        height, width = size
        cover = tuple(max(n, round(n / self.crop)) for n in size)
        factor = max(cover[0] / image.height, cover[1] / image.width)
        tall = max(cover[0], round(image.height * factor))
        wide = max(cover[1], round(image.width * factor))
        left, top = (wide - width) // 2, (tall - height) // 2
        return self._scaled(image, (tall, wide)).crop((left, top, left + width, top + height))

    def _padded(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """Scale the image to fit into the size, then surround it."""
        height, width = size
        factor = min(height / image.height, width / image.width)
        tall = min(height, max(1, round(image.height * factor)))
        wide = min(width, max(1, round(image.width * factor)))
        colour = (self.pad * self.channels)[: self.channels]
        fill = colour[0] if self.channels == 1 else colour[::-1] if self.bgr else colour
        result = Image.new(image.mode, (width, height), fill)
        result.paste(self._scaled(image, (tall, wide)), ((width - wide) // 2, (height - tall) // 2))
        return result

    def _scaled(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        if (image.height, image.width) == size:
            return image
        return image.resize(size[::-1], RESAMPLING[self.interpolation])


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        raise ValueError(f"its pixels are not 8-bit (mode {image.mode})")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow's own advice for such palettes
    return image.convert(mode)


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
            f"{at}: images need to be told how pixels become values, "
            f"(pixel * scale - mean) / std; give --preset, or at least one of {FLAGS} "
            "(defaults of the others: "
            "mean 0, std 1, scale 1/255, layout and size of the model's input)."
        )
    channels_first, channels = _layout(preprocessing.layout, spec, at)
    mean = _per_channel("--mean", preprocessing.mean or (0.0,), channels, at)
    std = _per_channel("--std", preprocessing.std or (1.0,), channels, at)
    size = _size(
        preprocessing.resize, spec.extents[2:] if channels_first else spec.extents[1:3], at
    )
    _check_size_known(preprocessing, size, at)
    scale = preprocessing.scale
    if spec.dtype.kind != "f":
        scale = 1.0 if scale is None else scale
        if scale != 1 or mean.any() or (std != 1).any():
            raise CalibrationError(
                f"{at}: the model takes pixels as they are (uint8); leave --mean, --std and "
                "--scale away and give --layout or --resize."
            )
    if preprocessing.bgr and channels == 1:
        raise CalibrationError(f"{at}: grey has no order of colours; leave --bgr away.")
    pad = _per_channel("--pad", preprocessing.pad or (0.0,), channels, at)
    return ImageTransform(
        spec,
        channels,
        channels_first,
        size,
        1 / 255 if scale is None else scale,
        mean,
        std,
        fit=preprocessing.fit or "crop",
        crop=preprocessing.crop or 1.0,
        interpolation=preprocessing.interpolation or "bilinear",
        pad=tuple(round(float(value)) for value in pad),
        bgr=bool(preprocessing.bgr),
    )


def _check_size_known(preprocessing: Preprocessing, size: tuple[int, int] | None, at: str) -> None:
    """Refuse to fit images to a size that nobody says."""
    named = {"--fit": preprocessing.fit, "--crop": preprocessing.crop}
    said = [flag for flag, value in named.items() if value is not None]
    if size is None and said:
        raise CalibrationError(
            f"{at}: the model leaves height and width open, but {' and '.join(said)} (or --preset) "
            "fits images to a size; give it: --resize 224x224."
        )


def _image_input(inputs: Sequence[InputSpec], where: str) -> InputSpec:
    spec = inputs[0]
    if len(inputs) == 1 and len(spec.shape) == 4 and spec.dtype.name.startswith(("float", "uint8")):
        return spec
    found = ", ".join(f"{spec.name!r} {spec}" for spec in inputs)
    raise CalibrationError(
        f"{where}: images feed one float or uint8 input of 4 axes, found {found}; give the other "
        "inputs as NAME=DATA of their own, or preprocess the images yourself and save the inputs "
        "as .npz files."
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
