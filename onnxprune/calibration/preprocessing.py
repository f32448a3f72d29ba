"""What the user says of image values: how pixels become the values of a model's input.

value = (pixel * scale - mean) / std, with pixels from 0 to 255, in the order of the model's
channels. What is not said takes the default, or is what the model's input shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from onnxprune.errors import CalibrationError

Layout = Literal["nchw", "nhwc"]
Fit = Literal["crop", "stretch", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
FLAGS = "--mean --std --scale --layout --resize --fit --crop --interpolation --pad --bgr"
BRIGHTEST = 255


@dataclass(frozen=True)
class Preprocessing:
    """What the user says about image values; None is "not said" and takes the default.

    Attributes:
        mean: one value, or one per channel; default 0.
        std: one value, or one per channel; default 1.
        scale: what a pixel (0 to 255) is multiplied with; default 1/255, for uint8 inputs 1.
        layout: channels first or last; default what the model's fixed channel extent shows.
        resize: height and width; default those of the model, or the image's own where dynamic.
        fit: how an image gets that size. "crop", the default: it is scaled until it just covers
            the size and cut to it around its centre. "stretch": height and width are scaled each
            by itself. "pad", also known as letterbox: it is scaled until it just fits in and
            surrounded with a colour.
        crop: for "crop", the share of the scaled image's shorter side that is left, as 0.875 for
            224 of 256; default 1.
        interpolation: how it is scaled, antialiased but for "nearest"; default "bilinear".
        pad: the colour around it, from 0 to 255, one value, or one per channel; default 0.
        bgr: whether blue comes first among the model's channels; default no.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: Layout | None = None
    resize: tuple[int, int] | None = None
    fit: Fit | None = None
    crop: float | None = None
    interpolation: Interpolation | None = None
    pad: tuple[float, ...] | None = None
    bgr: bool | None = None

    def __post_init__(self) -> None:
        numbers = [*(self.mean or ()), *(self.std or ())]
        numbers += [] if self.scale is None else [self.scale]
        if not all(math.isfinite(number) for number in numbers):
            raise CalibrationError("--mean, --std and --scale must be finite numbers.")
        if self.scale == 0 or 0 in (self.std or ()):
            raise CalibrationError("--scale and --std must not be 0.")
        kinds = {"layout": Layout, "fit": Fit, "interpolation": Interpolation}
        for name, kind in kinds.items():
            self._check_word(name, get_args(kind))
        if self.resize is not None and min(self.resize) < 1:
            raise CalibrationError(
                f"--resize is a height and a width in pixels, not {self.resize}."
            )
        self._check_fit()
        # The classic trap: 123.675 as the mean of values that reach only 1.
        if self.scale is None and any(number > 1 for number in numbers):
            raise CalibrationError(
                "--mean and --std look like pixel units (0 to 255), but pixels are scaled by "
                "1/255 first; give --scale 1 as well, or --scale 0.00392157 if this is meant."
            )

    def _check_word(self, name: str, known: tuple[str, ...]) -> None:
        said = getattr(self, name)
        if said is not None and said not in known:
            words = " or ".join(repr(word) for word in known)
            raise CalibrationError(f"--{name} is {words}, not {said!r}.")

    def _check_fit(self) -> None:
        if self.crop is not None and not 0 < self.crop <= 1:
            raise CalibrationError(f"--crop is a share above 0 and up to 1, not {self.crop:g}.")
        if self.crop is not None and self.fit not in (None, "crop"):
            raise CalibrationError(f"--crop cuts, which --fit {self.fit} does not; give one.")
        if self.pad is None:
            return
        if self.fit != "pad":
            raise CalibrationError("--pad is the colour that --fit pad surrounds with; give both.")
        if not all(0 <= value <= BRIGHTEST for value in self.pad):
            raise CalibrationError(f"--pad is a colour from 0 to {BRIGHTEST}, not {self.pad}.")

    @property
    def is_empty(self) -> bool:
        """Whether the user said nothing at all."""
        return not self.said

    @property
    def said(self) -> dict[str, Any]:
        """What was said: name of a field -> its value."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
