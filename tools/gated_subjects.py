"""The networks that ``bench_layer_pruning.py`` trains, with their images and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from lenet import lenet
from macs import layer_macs
from trained import NETWORKS, SHARED

from onnxprune.arrays import Array, Feed
from onnxprune.model import load
from onnxprune.runtime import Session
from onnxprune.train.bypasses import with_bypasses
from onnxprune.train.options import TrainOptions

Images = tuple[Array, Array]
BATCH = 100


@dataclass(frozen=True)
class Subject:
    """A network to train and prune at once.

    Attributes:
        name: in the tables.
        start: by a seed, the model before training, bypasses included.
        images: of the split "train" or "test", as the network takes them, and their labels.
        learnt: train images to learn from.
        tests: test images that report.
        options: of training, the method left out.
        settings: of the gates, the price left out.
        prices: of a section, in nats per sample.
        seeds: how often each is repeated.
        gradient: the price at which the other estimator runs as well, if at one.
        retrained: whether networks that lose sections before training are trained as well.
    """

    name: str
    start: Callable[[int], onnx.ModelProto] = field(repr=False)
    images: Callable[[str], Images] = field(repr=False)
    learnt: int
    tests: int
    options: TrainOptions
    settings: Mapping[str, Any]
    prices: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    gradient: float | None = None
    retrained: bool = True

    def quick(self) -> Subject:
        """A fiftieth of it, to see whether it runs."""
        options = replace(self.options, epochs=1, history_every=5)
        return replace(
            self,
            learnt=max(self.learnt // 50, 400),
            tests=300,
            options=options,
            prices=self.prices[-1:],
            seeds=(0,),
            gradient=None,
        )

    def training(self) -> Feed:
        """The samples to learn from, a tenth of which validates."""
        images, labels = self.images("train")
        return {"input": images[: self.learnt], "labels": labels[: self.learnt]}

    def correct(self, model: onnx.ModelProto) -> Array:
        """Which test images a model classifies correctly, shape (images,), bool."""
        images, labels = (array[: self.tests] for array in self.images("test"))
        session = Session(model, threads=1)
        parts = range(0, len(images), BATCH)
        best = [session.run({"input": images[i : i + BATCH]})[0].argmax(1) for i in parts]
        right: Array = np.concatenate(best) == labels
        return right

    def macs(self, model: onnx.ModelProto) -> float:
        """Multiply-accumulates for one image."""
        images, _ = self.images("test")
        feed = {"input": images[:1]}
        return sum(layer_macs(model, {"input": feed["input"].shape}, feed).values())


@lru_cache(maxsize=2)
def digits(split: str) -> Images:
    """MNIST."""
    with np.load(SHARED / "data" / "mnist" / "mnist.npz") as file:
        images, labels = file[f"x_{split}"], file[f"y_{split}"].astype(np.int64)
    return (images[:, None] / 255).astype(np.float32), labels


@lru_cache(maxsize=2)
def small_jpegs(split: str) -> Images:
    """The JPEG copy of CIFAR-10."""
    network = NETWORKS["resnet20_cifar10_jpeg"]
    pixels, labels = network.images(split)
    return network.inputs(pixels), labels


def trained(name: str, *, bypasses: bool = False) -> Callable[[int], onnx.ModelProto]:
    """A trained network to start from, whatever the seed."""

    def start(seed: int) -> onnx.ModelProto:
        model = load(SHARED / "models" / f"{name}.onnx")
        return with_bypasses(model).model if bypasses else model

    return start


CIFAR = TrainOptions(
    optimizer="sgd", rate=0.05, augment=("flip", "crop=4"), validation=0.02, history_every=40,
    keep="last", progress=False,
)  # fmt: skip

SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject(
            "LeNet, MNIST",
            lambda seed: with_bypasses(lenet(seed), start="fresh", seed=seed).model,
            digits,
            60_000,
            10_000,
            TrainOptions(epochs=3, history_every=100, keep="last", validation=0.05, progress=False),
            {"section_every": 1},
            (0.01, 0.03),
            (0, 1, 2),
            gradient=0.01,
        ),
        Subject(
            "ResNet-20, CIFAR-10",
            trained("resnet20_cifar10_jpeg"),
            small_jpegs,
            30_000,
            5000,
            replace(CIFAR, epochs=3),
            {"section_theta": 0.85, "section_warmup": 0.1},
            (0.05, 0.15),
        ),
        Subject(
            "VGG-16 with bypasses, CIFAR-10",
            trained("vgg16_cifar10", bypasses=True),
            small_jpegs,
            12_000,
            2000,
            replace(CIFAR, epochs=1, batch=32, rate=0.01, clip=1.0),
            {"section_theta": 0.85, "section_every": 1, "section_warmup": 0.4},
            (0.02, 0.05),
            retrained=False,
        ),
    )
}
"""The networks by their names."""
