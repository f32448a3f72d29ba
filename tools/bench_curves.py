"""Accuracy, size and speed of trained networks along the MACs kept, beside other methods.

    python tools/bench_curves.py [--part NAME] [--network NAME] [--method NAME] [--fraction F]
                                 [--draw N] [--json FILE] [--table] [--plot]

Parts: *curves* prunes every network to 80, 65, 50, 35 and 25 % of its MACs by every method; *sizes*
repeats half the MACs of ResNet-20 with 50 to 4 000 calibration images; *shifts* does so with
images in another compression and with noise; *rival* prunes ResNet-56 to the MACs of ResNet-20
and compares the two. Flags repeat. Calibration images are drawn at random, without labels, from
train splits (photographs are mirrored, too); accuracy is on test splits, which nothing is chosen
on. Peers that look at no calibration images have one draw. Rows are appended as they come and
never measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import onnx
from curve_methods import METHOD_NAMES, REPAIRED, Maker, Own, macs_of, maker
from curve_rows import OWN, Job, Row, append, missing, paired, recorded
from curve_tables import tables
from trained import NETWORKS, SHARED, Trained, images

from onnxprune.arrays import Array, Feed
from onnxprune.canonical import canonicalise
from onnxprune.cost import parameter_count
from onnxprune.latency import interleaved_latency
from onnxprune.runtime import Session

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
FRACTIONS = (0.8, 0.65, 0.5, 0.35, 0.25)
CURVES = tuple(name for name in NETWORKS if not name.endswith("_jpeg"))
IMAGES = {"lossless": 1000, "jpeg": 1000, "photographs": 400}
"""Calibration images by kind of data; of the photographs there are no more."""

POOL = 4000
"""Train images that calibration is drawn from."""

SIZES = (50, 100, 200, 500, 1000, 2000, 4000)
DRAWS = (0, 1, 2)
TEST_IMAGES = 2000
BATCH = 50
LATENCY_SECONDS = 2.0


def curves() -> Iterator[Job]:
    """Every network by every method at every fraction."""
    for name in CURVES:
        count = IMAGES[NETWORKS[name].data]
        for method in METHOD_NAMES:
            for draw in DRAWS if method == "onnxprune" else DRAWS[:1]:
                for fraction in FRACTIONS:
                    yield Job(name, method, fraction, draw, OWN, count, name)


def sizes() -> Iterator[Job]:
    """More and fewer calibration images."""
    for method in ("onnxprune", "grail"):
        for count in SIZES:
            for draw in DRAWS:
                network = "resnet20_cifar10"
                yield Job(network, method, 0.5, draw, OWN, count, network)


def shifts() -> Iterator[Job]:
    """Calibration images that are not of the network's kind."""
    for method in ("onnxprune", "grail"):
        for kind in (OWN, "jpeg", "noise"):
            for draw in DRAWS:
                network = "resnet20_cifar10"
                yield Job(network, method, 0.5, draw, kind, IMAGES["lossless"], network)


def rival() -> Iterator[Job]:
    """A larger network pruned to the MACs of a smaller one."""
    large, small = "resnet56_cifar10", "resnet20_cifar10"
    fraction = round(macs_of(NETWORKS[small].model) / macs_of(NETWORKS[large].model), 4)
    for draw in DRAWS:
        yield Job(large, "onnxprune", fraction, draw, OWN, IMAGES["lossless"], small)


PARTS: dict[str, Callable[[], Iterator[Job]]] = {
    "curves": curves,
    "sizes": sizes,
    "shifts": shifts,
    "rival": rival,
}


class Subject:
    """A network with its test images.

    Args:
        network: which one.
        tests: test images at most.
    """

    def __init__(self, network: Trained, tests: int) -> None:
        self.network = network
        self.model = network.model
        self.pixels, self.labels = network.images("test", tests)
        (self._fixed,) = (
            value.type.tensor_type.shape.dim[0].dim_value
            for value in self.model.graph.input
            if value.name == "input"
        )

    @cached_property
    def correct(self) -> Array:
        """Which test images the network itself classifies correctly, shape (images,)."""
        return self.classified(self.model)

    @cached_property
    def cost(self) -> tuple[float, int]:
        """MACs and parameters."""
        return macs_of(self.model), parameter_count(canonicalise(self.model))

    def classified(self, model: onnx.ModelProto) -> Array:
        """Which test images a model classifies correctly, shape (images,)."""
        session = Session(model, threads=1)
        size = self._fixed or BATCH
        best = []
        for start in range(0, len(self.labels), size):
            batch = self.network.inputs(self.pixels[start : start + size])
            best.append(session.run({"input": batch})[0].argmax(axis=1))
        return np.concatenate(best) - self.network.first_class == self.labels

    def latency(self, pruned: onnx.ModelProto, batch: int) -> float | None:
        """Time of one run of a pruned model relative to this network; None where it is fixed."""
        if self._fixed not in (0, batch):
            return None
        feed = {"input": self.network.inputs(self.pixels[:batch])}
        models = [self.model, pruned]
        before, after = interleaved_latency(models, feed, budget_seconds=LATENCY_SECONDS)
        return round(after.median / before.median, 4)


@lru_cache(maxsize=2)
def subject(name: str, tests: int) -> Subject:
    """The network of this name, and the one before it in case of a comparison."""
    return Subject(NETWORKS[name], tests)


def samples(network: Trained, job: Job) -> Feed:
    """The calibration images of a job."""
    rng = np.random.default_rng(job.draw)
    if job.calibration == "noise":
        shape = network.images("train", 1)[0].shape[1:]
        pixels = rng.integers(0, 256, (job.images, *shape), dtype=np.uint8)
    else:
        data = network.data if job.calibration == OWN else job.calibration
        pool, _ = images(data, "train", POOL)
        pixels = pool[rng.permutation(len(pool))[: job.images]]
    return {"input": network.inputs(pixels)}


@lru_cache(maxsize=1)
def prepared(network: str, method: str, draw: int, calibration: str, count: int) -> Maker:
    """The method with what it has learnt, for all fractions in turn."""
    job = Job(network, method, 1.0, draw, calibration, count, network)
    trained = NETWORKS[network]
    return maker(method, trained.model, samples(trained, job), draw, mirror=trained.mirror)


def measure(job: Job, tests: int) -> Row:
    """One row; what a method cannot do is said in it."""
    start = time.perf_counter()
    try:
        name = job.method.removesuffix(REPAIRED)
        make = prepared(job.network, name, job.draw, job.calibration, job.images)
        if isinstance(make, Own) and name != job.method:
            make = make.repaired
        pruned = make(job.fraction)
        seconds = time.perf_counter() - start
        reference = subject(job.reference, tests)
        counts = paired(reference.correct, reference.classified(pruned))
    except Exception as error:  # a failure is a result
        return Row(job, fault=f"{type(error).__name__}: {error}".splitlines()[0][:160])
    macs, params = reference.cost
    return Row(
        job,
        **counts,
        macs=round(macs_of(pruned) / macs, 4),
        params=round(parameter_count(canonicalise(pruned)) / params, 4),
        latency_1=reference.latency(pruned, 1),
        latency_32=reference.latency(pruned, 32),
        seconds=round(seconds, 1),
    )


def chosen(given: argparse.Namespace) -> list[Job]:
    """The jobs of the parts that pass the filters, each once."""
    jobs = [job for part in given.part or PARTS for job in PARTS[part]()]

    def passes(job: Job) -> bool:
        return all(
            not wanted or getattr(job, name) in wanted
            for name, wanted in vars(given).items()
            if name in ("network", "method", "fraction", "draw")
        )

    return list(dict.fromkeys(job for job in jobs if passes(job)))


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the tables or draw the plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--network", action="append", choices=CURVES)
    parser.add_argument("--method", action="append", choices=METHOD_NAMES)
    parser.add_argument("--fraction", action="append", type=float, metavar="F")
    parser.add_argument("--draw", action="append", type=int, choices=DRAWS)
    parser.add_argument("--test-images", type=int, default=TEST_IMAGES, metavar="N")
    parser.add_argument("--json", type=Path, default=RESULTS / "curves.jsonl", metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw it, beside the file")
    given = parser.parse_args(words)
    if given.plot:
        import plot_curves

        plot_curves.draw(recorded(given.json), given.json.parent)
        return
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        for job in missing(chosen(given), recorded(given.json)):
            append(given.json, measure(job, given.test_images))
    print(tables(recorded(given.json)))


if __name__ == "__main__":
    main()
