"""Decorrelated backpropagation against backpropagation, and what pruning makes of both.

    python tools/bench_decorrelation.py [--part NAME ...] [--network NAME ...] [--json FILE]
                                        [--table] [--plot]

Untrained networks, written as ONNX by this tool, learn CIFAR-10 (12 000 images, flipped at random)
with Adam at a constant rate. Parts, in this order: *tuning* trains a third of the epochs with six
settings of each method, six learning rates of one and three learning rates at two decorrelation
rates of the other, and judges them on 2 000 further train images; *training* trains three seeds
with the best of them, looks at 2 000 test images after every epoch, and prunes each network by the
default engine; *statistics* prunes by moments that training has learnt and by those of samples.
Test images choose nothing. Seconds are of the processor's time. Rows are appended as they come and
never measured again; a row is a whole training.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import onnx
import torch
from bench_curves import RESULTS
from decorrelation_networks import NETWORKS, untrained
from decorrelation_tables import tables
from measurements import Measurement, record, recorded
from trained import MEAN, STD, images

from onnxprune import Options, Pruner, Target
from onnxprune.arrays import Array, IndexArray
from onnxprune.runtime import Session
from onnxprune.train import pace
from onnxprune.train.options import TrainOptions
from onnxprune.train.training import TrainingResult, train

FILE = RESULTS / "decorrelation.jsonl"
METHODS = ("backprop", "decorrelated")
FRACTIONS = (0.75, 0.5, 0.35)
SEEDS = (0, 1, 2)
USUAL = ("mlp", "resnet8")
"""Networks that are measured unless others are named; there is also one without BatchNorms."""


@dataclass(frozen=True)
class Size:
    """How much is trained on what.

    Attributes:
        train: images to learn from.
        judged: train images behind these, by which settings are chosen.
        test: images that measure.
        batch: images of a step.
        epochs: network -> passes of a training; a third of them when settings are chosen.
        calibration: train images that networks are pruned on.
    """

    train: int = 12000
    judged: int = 2000
    test: int = 2000
    batch: int = 128
    calibration: int = 500
    epochs: tuple[tuple[str, int], ...] = (("mlp", 24), ("resnet8", 15), ("vgg6", 15))


SMOKE = Size(500, 200, 200, 50, 60, (("mlp", 2), ("resnet8", 2), ("vgg6", 2)))


@dataclass(frozen=True)
class Setting:
    """A method with its rates.

    Attributes:
        method: in ``METHODS``.
        rate: learning rate.
        decorrelation: rate of the local rule; None for backpropagation.
    """

    method: str
    rate: float
    decorrelation: float | None = None


SETTINGS = (
    *(Setting("backprop", rate) for rate in (3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)),
    *(
        Setting("decorrelated", rate, decorrelation)
        for decorrelation in (1e-3, 1e-2)
        for rate in (1e-3, 3e-3, 1e-2)
    ),
)


@dataclass(frozen=True)
class Data:
    """Images as networks take them, and where those lie that are only looked at.

    Attributes:
        learnt: what is trained on, input name -> array, with labels.
        judged: file of the images that choose.
        tested: file of those that measure.
        calibration: unlabelled images that networks are pruned on.
        test: those that measure, with labels.
    """

    learnt: Mapping[str, Array]
    judged: Path
    tested: Path
    calibration: Array
    test: tuple[Array, IndexArray]

    @classmethod
    def of(cls, size: Size, folder: Path) -> Data:
        """The images of a size; files go into a folder."""
        pixels, labels = images("jpeg", "train", size.train + size.judged)
        inputs, tested = scaled(pixels), images("jpeg", "test", size.test)
        learnt = {"input": inputs[: size.train], "labels": labels[: size.train]}
        parts = {
            "judged": {"input": inputs[size.train :], "labels": labels[size.train :]},
            "tested": {"input": scaled(tested[0]), "labels": tested[1]},
        }
        for name, arrays in parts.items():
            np.savez(folder / f"{name}.npz", **arrays)
        judged, measuring = (folder / f"{name}.npz" for name in parts)
        test = parts["tested"]["input"], parts["tested"]["labels"]
        return cls(learnt, judged, measuring, inputs[: size.calibration], test)


def scaled(pixels: Array) -> Array:
    """Pixels, uint8 (n, height, width, 3), as float32 NCHW of about unit variance."""
    values = (pixels.astype(np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


class Bench:
    """Trains, prunes and measures.

    Args:
        size: how much of it.
        folder: for files.
        path: of the rows.
    """

    def __init__(self, size: Size, folder: Path, path: Path) -> None:
        self.size, self.path = size, path
        self._data = Data.of(size, folder)

    def run(self, parts: Sequence[str], networks: Sequence[str]) -> None:
        """Measure what is missing."""
        for part in parts:
            for job in JOBS[part](networks):
                if job not in [named(row) for row in recorded(self.path)]:
                    record(self.path, job | getattr(self, part)(job))

    def tuning(self, job: Measurement) -> Measurement:
        """What a setting comes to in a third of the epochs."""
        setting = Setting(job["method"], job["rate"], job["decorrelation_rate"])
        epochs = -(-dict(self.size.epochs)[job["network"]] // 3)
        rows = self._trained(job, setting, epochs, self._data.judged).fitted.rows
        last = rows[-1]
        return {
            "epochs": epochs,
            "train_loss": last["train_loss"],
            "judged_loss": last["validation_loss"],
            "judged_accuracy": last["validation_accuracy"],
            "seconds": last["seconds"],
        }

    def training(self, job: Measurement) -> Measurement:
        """A whole training with the best setting, epoch by epoch, and the network pruned."""
        setting = best_setting(recorded(self.path), job["network"], job["method"])
        epochs = dict(self.size.epochs)[job["network"]]
        result = self._trained(job, setting, epochs, self._data.tested)
        columns = ("epoch", "seconds", "train_loss", "validation_loss", "validation_accuracy")
        return {
            "rate": setting.rate,
            "decorrelation_rate": setting.decorrelation,
            "curve": [[row[name] for name in columns] for row in result.fitted.rows],
            "decorrelation": [decorrelation_of(row) for row in result.fitted.rows],
            "pruned": self._pruned(result.model, Options(latency=False, align=1)),
        }

    def statistics(self, job: Measurement) -> Measurement:
        """A network pruned by what training has learnt, and by samples."""
        setting = best_setting(recorded(self.path), job["network"], job["method"])
        epochs = dict(self.size.epochs)[job["network"]]
        result = self._trained(job, setting, epochs, self._data.tested, learn_statistics=True)
        assert result.statistics is not None
        found: Measurement = {"seconds": result.fitted.seconds}
        for name, learnt in (("learnt", result.statistics), ("samples", None)):
            start = time.process_time()
            options = Options(method="snp", statistics=learnt, latency=False)
            found[name] = self._pruned(result.model, options)
            found[f"{name}_seconds"] = round(time.process_time() - start, 2)
        return found

    def _trained(
        self,
        job: Measurement,
        setting: Setting,
        epochs: int,
        looked_at: Path,
        *,
        learn_statistics: bool = False,
    ) -> TrainingResult:
        own = {} if setting.decorrelation is None else {"decorrelation_rate": setting.decorrelation}
        options = TrainOptions(
            method=setting.method,
            method_settings=own,
            epochs=epochs,
            batch=self.size.batch,
            optimizer="adam",
            rate=setting.rate,
            schedule="constant",
            augment=("flip",),
            validation=str(looked_at),
            keep="last",
            seed=job["seed"],
            statistics=learn_statistics,
            progress=False,
        )
        clock = SimpleNamespace(monotonic=time.process_time)
        with mock.patch.object(pace, "time", clock):  # what else runs here does not count
            return train(untrained(job["network"], job["seed"]), self._data.learnt, options)

    def _pruned(self, model: onnx.ModelProto, options: Options) -> dict[str, float]:
        """Test accuracy in per cent at every share of the MACs."""
        samples = None if options.statistics is not None else {"input": self._data.calibration}
        pruner = Pruner(model, samples, options)
        found = {"1": self._accuracy(model)}
        for fraction in FRACTIONS:
            smaller = pruner.prune([Target("macs", fraction)]).model
            found[str(fraction)] = self._accuracy(smaller)
        return found

    def _accuracy(self, model: onnx.ModelProto) -> float:
        inputs, labels = self._data.test
        session = Session(model, threads=1)
        parts = [session.run({"input": part})[0] for part in np.array_split(inputs, 10)]
        scores = np.concatenate(parts)
        return round(100 * float((scores.argmax(axis=1) == labels).mean()), 2)


def decorrelation_of(row: Mapping[str, float | None]) -> float | None:
    """Mean decorrelation loss over layers; None where there is none."""
    losses = [v for name, v in row.items() if name.startswith("decorrelation") and v is not None]
    return round(float(np.mean(losses)), 6) if losses else None


def best_setting(rows: Sequence[Measurement], network: str, method: str) -> Setting:
    """The setting with the smallest loss on the images that choose."""
    tried = [
        row
        for row in rows
        if (row["part"], row["network"], row["method"]) == ("tuning", network, method)
    ]
    if not tried:
        sys.exit(f"{network}, {method}: no setting was tried; run --part tuning first")
    best = min(tried, key=lambda row: row["judged_loss"] or np.inf)
    return Setting(method, best["rate"], best["decorrelation_rate"])


def tuning_jobs(networks: Sequence[str]) -> Iterator[Measurement]:
    """Every setting on every network."""
    for network in networks:
        for setting in SETTINGS:
            yield {
                "part": "tuning",
                "network": network,
                "method": setting.method,
                "rate": setting.rate,
                "decorrelation_rate": setting.decorrelation,
                "seed": SEEDS[-1] + 1,
            }


def training_jobs(networks: Sequence[str]) -> Iterator[Measurement]:
    """Both methods on every network and seed."""
    for network in networks:
        for seed in SEEDS:
            for method in METHODS:
                yield {"part": "training", "network": network, "method": method, "seed": seed}


def statistics_jobs(networks: Sequence[str]) -> Iterator[Measurement]:
    """Every network once."""
    for network in networks:
        for method in METHODS:
            yield {"part": "statistics", "network": network, "method": method, "seed": SEEDS[0]}


JOBS = {"tuning": tuning_jobs, "training": training_jobs, "statistics": statistics_jobs}


def named(row: Measurement) -> Measurement:
    """What tells rows apart."""
    fields = ("part", "network", "method", "seed")
    if row["part"] == "tuning":
        fields += ("rate", "decorrelation_rate")
    return {name: row[name] for name in fields}


def main() -> None:
    """Measure what is missing, then print the tables or draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=JOBS)
    parser.add_argument("--network", action="append", choices=NETWORKS)
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--smoke", action="store_true", help="a few images, to see that all runs")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw it, beside the file")
    given = parser.parse_args()
    if given.smoke and given.json == FILE:
        parser.error("--smoke needs a --json of its own")
    if given.plot:
        import plot_decorrelation

        plot_decorrelation.draw(recorded(given.json), given.json.with_suffix(".svg"))
        return
    if not given.table:
        torch.set_num_threads(1)
        size = SMOKE if given.smoke else Size()
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(size, Path(folder), given.json)
            bench.run(given.part or list(JOBS), given.network or USUAL)
    print(tables(recorded(given.json)))


if __name__ == "__main__":
    main()
