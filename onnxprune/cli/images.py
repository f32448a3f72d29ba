"""Flags that say what the values of images are."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from typing import get_args

from onnxprune.calibration import PRESETS, Preprocessing
from onnxprune.calibration.preprocessing import Fit, Interpolation, Layout
from onnxprune.cli import arguments

_ABOUT = """\
value = (pixel * scale - mean) / std, with pixels from 0 to 255; --preset or at least one other flag
has to be given, and a flag goes before the preset. Presets:
"""


def add_images(parser: argparse.ArgumentParser) -> None:
    """Enter the flags."""
    lines = [f"  {name:12} {preset.what}" for name, preset in PRESETS.items()]
    images = parser.add_argument_group("images", _ABOUT + "\n".join(lines))
    images.add_argument("--preset", choices=tuple(PRESETS), help="one of the above")
    images.add_argument("--mean", metavar="M[,M,M]", type=arguments.numbers, help="default 0")
    images.add_argument("--std", metavar="S[,S,S]", type=arguments.numbers, help="default 1")
    images.add_argument("--scale", metavar="X", type=float, help="default 1/255")
    images.add_argument("--layout", choices=get_args(Layout), help="default: as the model's input")
    images.add_argument(
        "--resize", metavar="HxW", type=arguments.size, help="default: as the model's input"
    )
    images.add_argument(
        "--fit",
        choices=get_args(Fit),
        help="cover the size and cut around the centre, scale height and width each by itself, or "
        "fit into the size and surround (letterbox) (default: crop)",
    )
    images.add_argument(
        "--crop",
        metavar="SHARE",
        type=float,
        help="the share of the scaled image that is left, as 0.875 for 224 of 256 (default: 1)",
    )
    images.add_argument(
        "--interpolation", choices=get_args(Interpolation), help="default: bilinear"
    )
    images.add_argument(
        "--pad", metavar="C[,C,C]", type=arguments.numbers, help="colour for --fit pad (default: 0)"
    )
    images.add_argument(
        "--bgr",
        action=argparse.BooleanOptionalAction,
        help="blue comes first among the model's channels, for --mean as well",
    )


def preprocessing(given: argparse.Namespace) -> Preprocessing | None:
    """What the flags state; None for nothing."""
    values = {field.name: getattr(given, field.name) for field in fields(Preprocessing)}
    said = {name: value for name, value in values.items() if value is not None}
    if given.preset:
        return _overridden(PRESETS[given.preset].preprocessing, said)
    stated = Preprocessing(**said)
    return None if stated.is_empty else stated


def _overridden(preset: Preprocessing, said: dict[str, object]) -> Preprocessing:
    """A preset with what is said instead; what only serves another way of fitting goes."""
    fit = said.get("fit")
    if fit is not None and fit != "pad":
        said = {"pad": None} | said
    if fit is not None and fit != "crop":
        said = {"crop": None} | said
    if "crop" in said and fit is None:
        said = {"fit": None, "pad": None} | said
    return replace(preset, **said)  # type: ignore[arg-type]
