"""What pruning costs in passes of the original, and in linear algebra beside them.

    python tools/bench_cost.py [--network NAME ...] [--samples N ...] [--json FILE] [--table]

Half of the MACs, on one thread, without timing the result. A *pass* is the CPU time of the original
on all samples. *Statistics and refit* is what onnxruntime takes with ``--allocation uniform``, in
passes; *trials* is what it takes beside that with the default, which tries prunings on some of the
samples. *Numerics* is the CPU time of everything else in the process, in passes too. Rows are
appended as they come and never measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_curves import RESULTS
from bench_latency import resnet50
from measurements import Measurement, record, recorded
from trained import NETWORKS, SHARED

from onnxprune import Options, Target, prune
from onnxprune.arrays import Array, Feed
from onnxprune.runtime import Session

FILE = RESULTS / "cost.jsonl"
RANDOM = "resnet50"
"""The network with random weights, on random images of 224 x 224."""
SUBJECTS = {
    "resnet20_cifar10": (500, 1000, 2000),
    "vgg16_cifar10": (1000, 2000),
    RANDOM: (100,),
}
HEADER = (
    "| network | samples | allocation | a pass, s | in onnxruntime, passes | numerics, passes "
    "| all, s |"
)


class Clock:
    """The CPU time that sessions take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._plain = Session.run

    def __enter__(self) -> Clock:
        clock, plain = self, self._plain

        def run(session: Session, feed: Feed, outputs: Sequence[str] | None = None) -> list[Array]:
            start = time.process_time()
            try:
                return plain(session, feed, outputs)
            finally:
                clock.seconds += time.process_time() - start

        Session.run = run  # type: ignore[method-assign]
        return self

    def __exit__(self, *failure: object) -> None:
        Session.run = self._plain  # type: ignore[method-assign]


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
    options = Options(allocation=allocation, latency=False)
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
    return {
        "network": network,
        "samples": count,
        "allocation": allocation,
        "pass": round(single, 3),
        "sessions": round(clock.seconds / single, 2),
        "numerics": round((whole - clock.seconds) / single, 2),
        "seconds": round(whole, 1),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [HEADER, "|---|---:|---|---:|---:|---:|---:|"]
    lines += [
        f"| {r['network']} | {r['samples']} | {r['allocation']} | {r['pass']:.1f} "
        f"| {r['sessions']:.1f} | {r['numerics']:.1f} | {r['seconds']:.0f} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", choices=SUBJECTS, default=[*SUBJECTS])
    parser.add_argument("--samples", nargs="+", type=int, help="default: some for each network")
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        for network in given.network:
            for count in given.samples or SUBJECTS[network]:
                for allocation in ("uniform", "sensitivity"):
                    measure_missing(given.json, network, count, allocation)
    print(table(recorded(given.json)))


def measure_missing(file: Path, network: str, count: int, allocation: str) -> None:
    """Append a row that is not there yet."""
    key = {"network": network, "samples": count, "allocation": allocation}
    if not any(key.items() <= row.items() for row in recorded(file)):
        record(file, measured(network, count, allocation))


if __name__ == "__main__":
    main()
