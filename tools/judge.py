"""The images that measure what a tool tries: of the train split, and no calibration images.

Test images only report; whatever is chosen by a measurement is chosen on these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from trained import NETWORKS

from onnxprune.arrays import Array, IndexArray
from onnxprune.comparison import kl_divergence
from onnxprune.runtime import Session

CALIBRATION = np.arange(1000)
JUDGED = slice(1000, 3000)
BATCH = 100

Row = dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """The images that measure.

    Attributes:
        images: as the network takes them.
        labels: the output that is right for each.
        reference: what the original makes of them.
    """

    images: Array
    labels: IndexArray
    reference: Array

    @classmethod
    def of(cls, name: str) -> Judge:
        """The judge of a network."""
        network = NETWORKS[name]
        pixels, labels = network.images("train")
        images = network.inputs(pixels[JUDGED])
        return cls(images, labels[JUDGED] + network.first_class, _scores(network.model, images))

    def scores(self, model: onnx.ModelProto) -> Array:
        """What a model makes of the images."""
        return _scores(model, self.images)

    def row(self, scores: Array) -> Row:
        """Accuracy and agreement in per cent, divergence in nats."""
        same = self.reference.argmax(axis=1)
        return {
            "accuracy": round(100 * float(np.mean(scores.argmax(axis=1) == self.labels)), 2),
            "agreement": round(100 * float(np.mean(scores.argmax(axis=1) == same)), 2),
            "kl": round(float(kl_divergence(self.reference, scores).mean()), 4),
        }

    def paired(self, scores: Array, base: Array) -> Row:
        """How much further than the base these scores diverge, and its standard error."""
        divergence = kl_divergence(self.reference, scores)
        change = divergence - kl_divergence(self.reference, base)
        return {
            "kl_change": round(float(change.mean()), 4),
            "kl_change_error": round(float(change.std()) / math.sqrt(len(change)), 4),
        }


def _scores(model: onnx.ModelProto, images: Array) -> Array:
    session, name = Session(model, threads=1), model.graph.input[0].name
    parts = range(0, len(images), BATCH)
    return np.concatenate([session.run({name: images[i : i + BATCH]})[0] for i in parts])
