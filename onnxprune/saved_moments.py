"""Moments that were learnt during training, in a file: they stand for those of calibration samples.

They are the Gram matrices of plain channels that ``snp`` and ``squeeze`` collect otherwise, each by
the features it is over, beside the digest of the model they belong to. A few samples lie with them,
which nothing is fitted on: on these the pruned model is compared with the original and timed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.array_archive import read_archive
from onnxprune.arrays import Array
from onnxprune.errors import CalibrationError
from onnxprune.gram import Gram
from onnxprune.linear_map import FeatureSpec, Window
from onnxprune.replacing import explained, replacing

FORMAT = 1
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class SavedMoments:
    """What a training run has learnt of a model's activations.

    Attributes:
        digest: of the model, as ``rewrite.digest`` gives it.
        grams: features of an activation -> their Gram.
        samples: input name -> samples along axis 0.
    """

    digest: str
    grams: Mapping[FeatureSpec, Gram] = field(repr=False)
    samples: Mapping[str, Array] = field(repr=False)

    def of(self, reader: str, specs: Sequence[FeatureSpec]) -> dict[FeatureSpec, Gram]:
        """The Grams that a layer asks for.

        Args:
            reader: the layer's name, for the message.
            specs: the features it reads.

        Raises:
            CalibrationError: they were not learnt.
        """
        missing = [spec.tensor for spec in specs if spec not in self.grams]
        if missing:
            raise CalibrationError(
                f"the learnt statistics hold no moments of '{missing[0]}', which layer {reader} "
                "reads; leave its channels whole with --exclude, or give samples in place of "
                "--statistics"
            )
        return {spec: self.grams[spec] for spec in specs}

    def save(self, path: str | Path) -> None:
        """Write an .npz file.

        Raises:
            OnnxPruneError: it cannot be written.
        """
        features = [asdict(spec) for spec in self.grams]
        head = {"format": FORMAT, "digest": self.digest, "features": features}
        arrays: dict[str, Any] = {"head": np.array(json.dumps(head))}
        arrays |= {f"gram.{i}": gram.sums for i, gram in enumerate(self.grams.values())}
        arrays |= {f"sample.{name}": values for name, values in self.samples.items()}
        where = Path(path)
        with replacing(where) as temporary, explained(where), temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> SavedMoments:
        """Read such a file.

        Raises:
            CalibrationError: it is no file of learnt moments, or one of another version.
        """
        try:
            file = read_archive(Path(path))
            head = json.loads(str(file["head"]))
            if head["format"] != FORMAT:
                raise ValueError(f"format {head['format']}, this version reads {FORMAT}")
            specs = [_spec(**fields) for fields in head["features"]]
            grams = {spec: Gram.of(file[f"gram.{i}"]) for i, spec in enumerate(specs)}
            names = [name for name in file if name.startswith("sample.")]
            samples = {name.removeprefix("sample."): file[name] for name in names}
            return cls(str(head["digest"]), grams, samples)
        except _UNREADABLE as error:
            raise CalibrationError(
                f"{path}: not a readable file of learnt statistics ({error}); give what "
                "`onnxprune train` wrote with --statistics"
            ) from error


def _spec(window: Mapping[str, Sequence[int]] | None, **fields: Any) -> FeatureSpec:
    if window is None:
        return FeatureSpec(**fields)
    own = Window(**{name: tuple(numbers) for name, numbers in window.items()})
    return FeatureSpec(window=own, **fields)
