"""The trained networks of ``../shared/models`` and the images they were trained for.

Images are uint8, NHWC, as they are stored; ``Trained.inputs`` makes of them what a network takes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.arrays import Array
from onnxprune.model import load

SHARED = Path(__file__).resolve().parents[2] / "shared"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
SCALINGS: dict[str, Callable[[Array], Array]] = {
    "normalised": lambda pixels: (pixels / 255 - MEAN) / STD,
    "bytes": lambda pixels: pixels,
    "signed": lambda pixels: (pixels - 128) / 128,
}


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        name: of its file.
        data: its images: "lossless" or "jpeg" (CIFAR-10), or "photographs" (ImageNet classes).
        scaling: how pixels become inputs, in ``SCALINGS``.
        first_class: the output that belongs to label 0.
    """

    name: str
    data: str
    scaling: str = "normalised"
    first_class: int = 0

    @property
    def mirror(self) -> bool:
        """Whether mirror images are to be fitted on, too: there are few photographs."""
        return self.data == "photographs"

    @property
    def model(self) -> onnx.ModelProto:
        """The network itself."""
        return load(SHARED / "models" / f"{self.name}.onnx")

    def images(self, split: str, count: int | None = None) -> tuple[Array, Array]:
        """The first images of the split "train" or "test" of its own data, and their labels."""
        return images(self.data, split, count)

    def inputs(self, pixels: Array) -> Array:
        """Images, uint8 (n, height, width, 3), as the network takes them: float32 NCHW."""
        scaled = SCALINGS[self.scaling](pixels.astype(np.float32))
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


NETWORKS = {
    network.name: network
    for network in (
        Trained("resnet20_cifar10", "lossless"),
        Trained("resnet56_cifar10", "lossless"),
        Trained("resnet8_large_cifar10", "lossless", "bytes"),
        Trained("resnet20_cifar10_jpeg", "jpeg"),
        Trained("vgg16_cifar10", "jpeg"),
        Trained("mobilenet_v2_imagenet", "photographs", "signed", first_class=1),
        Trained("shufflenet_v2_imagenet", "photographs"),
        Trained("squeezenet1.1_imagenet", "photographs"),
    )
}
"""The classifiers by their names."""


@cache
def images(data: str, split: str, count: int | None = None) -> tuple[Array, Array]:
    """The first images of the split "train" or "test", uint8 NHWC, and their labels.

    The photographs of the train split are those that are for calibration.
    """
    if data == "photographs":
        return _loader("imagenet911").images({"train": "calib"}.get(split, split), count)
    return _loader("cifar10").images(f"{data}_{split}", count)


@cache
def _loader(folder: str) -> Any:
    """The module that lies beside the images it reads."""
    spec = importlib.util.spec_from_file_location(folder, SHARED / "data" / folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
