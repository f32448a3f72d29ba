"""What pruning costs in passes of the original, by stage, and in linear algebra beside them.

    python tools/bench_cost.py [--network NAME ...] [--samples N ...]
                               [--allocation NAME ...] [--json FILE] [--table]

Half of the MACs, on one thread, without timing the result. A *pass* is the processor time of the
original on all samples; everything is in passes. In onnxruntime: the *statistics*, with the Gram
matrices that are computed in the graph; the *trials* of the default allocation, by part of the
samples; the *refit* in order; *checks* of the result. Outside of it: *products* of activations, as
Gram matrices and targets, and *solves*, which is everything else. Rows are appended as they come
and never measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from bench_curves import RESULTS
from bench_latency import resnet50
from measurements import Measurement, record, recorded
from trained import NETWORKS, SHARED

from onnxprune import Options, Target, finishing, prune, study
from onnxprune.arrays import Array
from onnxprune.gram import Gram
from onnxprune.regression import Regression
from onnxprune.row_sum import RowSum
from onnxprune.runtime import Session
from onnxprune.trials import Trials

FILE = RESULTS / "cost.jsonl"
RANDOM = "resnet50"
"""The network with random weights, on random images of 224 x 224."""
MAX_MEMORY = 8 * 2**30
"""Of the network with random weights: at its first cut 2 000 samples are 6 GB."""

ALLOCATIONS = ("uniform", "sensitivity")

SUBJECTS = {
    "resnet20_cifar10": (500, 1000, 2000),
    "vgg16_cifar10": (1000, 2000),
    RANDOM: (100, 500, 2000),
}
STAGES = {
    "statistics": (study, "observe"),
    "trials": (Trials, "tried"),
    "refit": (finishing, "refit_in_order"),
}
"""Stage -> where its function is."""
PRODUCTS = (
    (Regression, "kept_rows"),
    (Regression, "target_rows"),
    (Regression, "misses"),
    (RowSum, "add"),
    (RowSum, "moments"),
    (Gram, "add"),
)
"""What takes rows of activations, multiplies them, or adds such products up."""
COLUMNS = (*STAGES, "checks", "products", "solves")
HEADER = (
    "| network | samples | allocation | a pass, s | statistics | trials | refit | checks "
    "| products | solves | all, s |"
)


class Clock:
    """The processor time of sessions, by stage, and of products."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(COLUMNS, 0.0)
        self._stage = "checks"
        self._busy = False
        self._patches = ExitStack()

    def __enter__(self) -> Clock:
        for stage, (place, name) in STAGES.items():
            self._replace(place, name, partial(self._within, stage))
        self._replace(Session, "run", partial(self._timed, None))
        for place, name in PRODUCTS:
            self._replace(place, name, partial(self._timed, "products"))
        return self

    def __exit__(self, *failure: object) -> None:
        self._patches.close()

    def _replace(self, place: Any, name: str, around: Callable[..., Any]) -> None:
        plain = getattr(place, name)

        def replaced(*words: Any, **named: Any) -> Any:
            return around(plain, *words, **named)

        self._patches.enter_context(mock.patch.object(place, name, replaced))

    def _within(self, stage: str, plain: Callable[..., Any], *words: Any, **named: Any) -> Any:
        before, self._stage = self._stage, stage
        try:
            return plain(*words, **named)
        finally:
            self._stage = before

    def _timed(self, what: str | None, plain: Callable[..., Any], *words: Any, **named: Any) -> Any:
        if self._busy:  # by something that is timed as a whole
            return plain(*words, **named)
        self._busy, start = True, time.process_time()
        try:
            return plain(*words, **named)
        finally:
            self._busy = False
            self.seconds[what or self._stage] += time.process_time() - start


def subject(network: str, count: int) -> tuple[onnx.ModelProto, Array]:
    """A network, and so many of its images."""
    if network == RANDOM:
        rng = np.random.default_rng(0)
        return resnet50(), rng.standard_normal((count, 3, 224, 224), np.float32)
    trained = NETWORKS[network]
    pixels, _ = trained.images("train", count)
    return trained.model, trained.inputs(pixels)


def measured(network: str, count: int, allocation: str) -> Measurement:
    """One row."""
    model, images = subject(network, count)
    limit = MAX_MEMORY if network == RANDOM else None
    options = Options(allocation=allocation, latency=False, max_memory=limit)
    session = Session(model, threads=1)
    name = next(iter(session.inputs))
    start = time.process_time()
    for first in range(0, count, options.batch):
        session.run({name: images[first : first + options.batch]})
    single = time.process_time() - start
    start = time.process_time()
    with Clock() as clock:
        prune(model, images, Target("macs", 0.5), options=options)
    whole = time.process_time() - start
    clock.seconds["solves"] = whole - sum(clock.seconds.values())
    key = {"network": network, "samples": count, "allocation": allocation}
    spent = {column: round(seconds / single, 2) for column, seconds in clock.seconds.items()}
    return {**key, "pass": round(single, 3), **spent, "seconds": round(whole, 1)}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [HEADER, "|---|---:|---|" + "---:|" * (len(COLUMNS) + 2)]
    for row in rows:
        cells = " | ".join(f"{row[column]:.1f}" for column in COLUMNS)
        lines.append(
            f"| {row['network']} | {row['samples']} | {row['allocation']} | {row['pass']:.1f} "
            f"| {cells} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=SUBJECTS, default=[*SUBJECTS])
    parser.add_argument("--samples", nargs="+", type=int, help="default: some for each network")
    parser.add_argument("--allocation", nargs="+", choices=ALLOCATIONS, default=ALLOCATIONS)
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        for network in given.network:
            for count in given.samples or SUBJECTS[network]:
                for allocation in given.allocation:
                    measure_missing(given.json, network, count, allocation)
    print(table(recorded(given.json)))


def measure_missing(file: Path, network: str, count: int, allocation: str) -> None:
    """Append a row that is not there yet."""
    key = {"network": network, "samples": count, "allocation": allocation}
    if not any(key.items() <= row.items() for row in recorded(file)):
        record(file, measured(network, count, allocation))


if __name__ == "__main__":
    main()
