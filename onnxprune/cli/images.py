"""Flags that say what the values of images are."""

from __future__ import annotations

import argparse

from onnxprune.calibration import IMAGENET, Preprocessing
from onnxprune.cli import arguments


def add_images(parser: argparse.ArgumentParser) -> None:
    """Enter the flags."""
    images = parser.add_argument_group(
        "image folders", "value = (pixel * scale - mean) / std; at least one flag has to be given"
    )
    images.add_argument("--mean", metavar="M[,M,M]", type=arguments.numbers, help="default 0")
    images.add_argument("--std", metavar="S[,S,S]", type=arguments.numbers, help="default 1")
    images.add_argument("--scale", metavar="X", type=float, help="default 1/255")
    images.add_argument("--layout", choices=("nchw", "nhwc"), help="default: as the model's input")
    images.add_argument(
        "--resize", metavar="HxW", type=arguments.size, help="default: as the model's input"
    )
    images.add_argument(
        "--preset", choices=("imagenet",), help="mean, std and scale of torchvision's models"
    )


def preprocessing(given: argparse.Namespace) -> Preprocessing | None:
    """What the flags state; None for nothing."""
    preset = IMAGENET if given.preset else Preprocessing()
    stated = Preprocessing(
        mean=preset.mean if given.mean is None else given.mean,
        std=preset.std if given.std is None else given.std,
        scale=preset.scale if given.scale is None else given.scale,
        layout=given.layout,
        resize=given.resize,
    )
    return None if stated.is_empty else stated
