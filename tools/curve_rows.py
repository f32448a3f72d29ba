"""What ``bench_curves.py`` measures: jobs, rows, and the arithmetic of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import measurements
import numpy as np

from onnxprune.arrays import Array

OWN = "own"
"""The calibration images are of the data that the network was trained on."""


@dataclass(frozen=True)
class Job:
    """One row to measure.

    Attributes:
        network: the network that is pruned.
        method: what prunes it.
        fraction: of its MACs that are to be kept.
        draw: which calibration images are drawn, and the seed of the method.
        calibration: ``OWN``, "jpeg" or "noise".
        images: calibration images.
        reference: the network that the pruned one is compared with, by default itself.
    """

    network: str
    method: str
    fraction: float
    draw: int
    calibration: str
    images: int
    reference: str


class Compared:
    """Arithmetic of what two networks classify correctly of the same images; see ``paired``."""

    tests: int
    base: int
    lost: int
    won: int

    @property
    def base_accuracy(self) -> float:
        """Per cent that the reference classifies correctly."""
        return 100 * self.base / self.tests

    @property
    def accuracy(self) -> float:
        """Per cent that the pruned network classifies correctly."""
        return self.base_accuracy + self.difference

    @property
    def difference(self) -> float:
        """Pruned minus reference, in points."""
        return 100 * (self.won - self.lost) / self.tests

    @property
    def standard_error(self) -> float:
        """Of the difference on the same images, in points.

        An image counts +1 (won), -1 (lost) or 0; this is the standard error of their mean. Images
        that both classify alike say nothing, so it is smaller than that of either accuracy.
        """
        mean = (self.won - self.lost) / self.tests
        variance = (self.won + self.lost) / self.tests - mean**2
        return 100 * math.sqrt(variance / max(self.tests - 1, 1))


@dataclass(frozen=True)
class Counts(Compared):
    """The counts of a comparison, without what was compared.

    Attributes:
        tests: test images.
        base: those that the reference classifies correctly.
        lost: those of them that the pruned network does not.
        won: those that only the pruned network classifies correctly.
    """

    tests: int
    base: int
    lost: int
    won: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Counts:
        """Those of a measurement that holds them."""
        return cls(row["tests"], row["base"], row["lost"], row["won"])


@dataclass(frozen=True)
class Row(Compared):
    """What one method made of one network.

    Attributes:
        job: what was to be done.
        tests: test images.
        base: those that the reference classifies correctly.
        lost: those of them that the pruned network does not.
        won: those that only the pruned network classifies correctly.
        macs: MACs relative to the reference's.
        params: parameters relative to the reference's.
        latency_1: time of one run relative to the reference's, batch 1, one thread.
        latency_32: the same for batch 32; None for a model that is fixed to a batch size.
        seconds: the method's time; with the study for the first fraction of each draw.
        fault: what went wrong; then nothing was measured.
    """

    job: Job
    tests: int = 0
    base: int = 0
    lost: int = 0
    won: int = 0
    macs: float = math.nan
    params: float = math.nan
    latency_1: float | None = None
    latency_32: float | None = None
    seconds: float = 0.0
    fault: str | None = None


def paired(reference: Array, pruned: Array) -> dict[str, int]:
    """The counts of a row from which images each network classifies correctly.

    Args:
        reference: shape (images,), bool.
        pruned: the same of the other network, on the same images.
    """
    return {
        "tests": reference.size,
        "base": int(np.count_nonzero(reference)),
        "lost": int(np.count_nonzero(reference & ~pruned)),
        "won": int(np.count_nonzero(~reference & pruned)),
    }


def recorded(path: Path) -> list[Row]:
    """Every row of a file, of which there need be none."""
    return [_parsed(flat) for flat in measurements.recorded(path)]


def append(path: Path, row: Row) -> None:
    """Write a row behind the others, the job's fields beside its own."""
    flat = asdict(row)
    flat = flat.pop("job") | {k: None if v != v else v for k, v in flat.items()}
    measurements.record(path, flat)


def missing(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Job]:
    """The jobs that have no row yet, in order."""
    done = {row.job for row in rows}
    return [job for job in jobs if job not in done]


def _parsed(flat: dict[str, Any]) -> Row:
    job = Job(**{field.name: flat.pop(field.name) for field in fields(Job)})
    shares = {k: math.nan if flat[k] is None else flat[k] for k in ("macs", "params")}
    return Row(job, **(flat | shares))
