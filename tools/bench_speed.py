"""Time that networks really take once they are pruned to a target on it.

    python tools/bench_speed.py [--network NAME ...] [--table]

Every network is pruned by the public interface to a fraction of its own time, one sample on one
thread. *Reached* is what the report says: medians of runs in turns with the original. *CPU time* is
measured again after the run, as in ``bench_latency``: that of the thread, the fastest fifth of the
runs, on which other work on the machine has little effect. Accuracy is on test images. Rows that
are in docs/results/speed.jsonl already are skipped; a target that is missed is recorded, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_curves import OWN, Subject, samples
from bench_latency import fastest_times, resnet50
from curve_rows import Job
from measurements import record, recorded
from trained import NETWORKS, SHARED

from onnxprune import Options, Pruner, Result, Target
from onnxprune.arrays import Feed
from onnxprune.errors import TargetError

ROWS = Path(__file__).resolve().parents[1] / "docs" / "results" / "speed.jsonl"
RANDOM = "resnet50"
"""The network with random weights: its images are random, too, and it has no accuracy."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One target.

    Attributes:
        network: what is pruned.
        fraction: of its time that is asked for.
        images: for calibration.
        tests: test images.
        allocation: None for the default.
    """

    network: str
    fraction: float
    images: int
    tests: int = 0
    allocation: str | None = None


CASES = (
    Case("resnet20_cifar10", 0.7, 500, 1000),
    Case("vgg16_cifar10", 0.5, 300, 1000),
    Case("mobilenet_v2_imagenet", 0.75, 100, 200),
    Case(RANDOM, 0.6, 16, allocation="uniform"),
)


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=[case.network for case in CASES])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        done = {(row["network"], row["asked"]) for row in recorded(ROWS)}
        for case in CASES:
            wanted = given.network is None or case.network in given.network
            if not wanted or (case.network, case.fraction) in done:
                continue
            if case.network != RANDOM and not SHARED.is_dir():
                sys.exit(f"{SHARED} is missing: it holds the networks and their images")
            record(ROWS, measured(case))
    print(table(recorded(ROWS)))


def measured(case: Case) -> Row:
    """The row of one target."""
    model, feed = subject_of(case)
    row: Row = {
        "network": case.network,
        "asked": case.fraction,
        "images": case.images,
        "allocation": case.allocation or "sensitivity",
    }
    start = time.perf_counter()
    try:
        pruner = Pruner(model, feed, Options(allocation=case.allocation))
        result = pruner.prune([Target("latency", case.fraction)])
    except TargetError as error:  # a target that is missed is a result
        row["fault"] = str(error)
    else:
        row |= told(result) | {"cpu_time": cpu_time(model, result.model, feed)}
        if case.tests:
            row |= accuracies(case, result.model)
    load = round(os.getloadavg()[1], 1)
    return row | {"seconds": round(time.perf_counter() - start), "load": load}


def subject_of(case: Case) -> tuple[onnx.ModelProto, Feed]:
    """A network and its calibration images."""
    if case.network == RANDOM:
        shape = (case.images, 3, 224, 224)
        return resnet50(), {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    job = Job(case.network, "onnxprune", 1.0, 0, OWN, case.images, case.network)
    network = NETWORKS[case.network]
    return network.model, samples(network, job)


def told(result: Result) -> Row:
    """What the report of a run says of time and cost."""
    before, after = result.report.before, result.report.after
    (check,) = result.report.targets
    assert before.latency is not None
    assert after.latency is not None
    return {
        "reached": round(check.reached / check.full, 4),
        "holds": check.holds,
        "before_ms": round(before.latency.median, 3),
        "after_ms": round(after.latency.median, 3),
        "macs": round(after.macs / before.macs, 4),
        "params": round(after.params / before.params, 4),
    }


def cpu_time(model: onnx.ModelProto, pruned: onnx.ModelProto, feed: Feed) -> float:
    """Time of the pruned model relative to the original's, of one sample."""
    first = {name: array[:1] for name, array in feed.items()}
    full, took = fastest_times([model, pruned], first)
    return round(took / full, 4)


def accuracies(case: Case, pruned: onnx.ModelProto) -> Row:
    """Per cent of the test images that the two models classify correctly."""
    subject = Subject(NETWORKS[case.network], case.tests)
    before, after = subject.correct, subject.classified(pruned)
    return {
        "tests": len(before),
        "accuracy_before": round(100 * float(before.mean()), 2),
        "accuracy": round(100 * float(after.mean()), 2),
    }


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row for each target."""
    lines = [
        "| network | images | asked | reached | ms | CPU time | MACs | params | accuracy | load |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        head = f"| {row['network']} | {row['images']} | {row['asked']:.0%} |"
        if "fault" in row:
            lines.append(f"{head} missed | | | | | | {row['load']:.1f} |")
            continue
        accuracy = ""
        if "accuracy" in row:
            accuracy = f"{row['accuracy_before']:.1f} to {row['accuracy']:.1f}"
        lines.append(
            f"{head} {row['reached']:.1%} | {row['before_ms']:.2f} to {row['after_ms']:.2f} | "
            f"{row['cpu_time']:.1%} | {row['macs']:.1%} | {row['params']:.1%} | {accuracy} | "
            f"{row['load']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
