"""Time that networks really take once they are pruned to a target on it.

    python tools/bench_speed.py [--network NAME ...] [--provider cpu|cuda] [--table]

Every network is pruned by the public interface to a fraction of its own time, and some also to one
of their parameters, on one thread or on a GPU. *Reached* is what the report says: medians of runs
in turns with the original. *Again* is measured after the run, as in ``bench_latency``: the fastest
fifth of the runs; on the CPU it is the thread's time, on which other work on the machine has
little effect. Accuracy is on test images, its difference and standard error paired. Rows that
are in docs/results/speed.jsonl already are skipped; a target that is missed is recorded, too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench_curves import OWN, Subject, samples
from bench_latency import fastest_times, resnet50
from curve_rows import Counts, Job, paired
from measurements import record, recorded
from trained import NETWORKS, SHARED

from onnxprune import Options, Pruner, Result, Target
from onnxprune.arrays import Feed
from onnxprune.errors import TargetError
from onnxprune.runtime import Provider

ROWS = Path(__file__).resolve().parents[1] / "docs" / "results" / "speed.jsonl"
RANDOM = "resnet50"
"""The network with random weights: its images are random, too, and it has no accuracy."""

HEADER = (
    "| network | provider | batch | images | asked | reached | ms | again |"
    " MACs | params | accuracy | load |"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One target.

    Attributes:
        network: what is pruned.
        fraction: of its time that is asked for.
        images: for calibration.
        batch: samples in the feed that is timed.
        params: the fraction of its parameters that is asked for, too; None for none.
        tests: test images.
        allocation: None for the default.
        provider: whose time it is.
    """

    network: str
    fraction: float
    images: int
    batch: int = 1
    params: float | None = None
    tests: int = 0
    allocation: str | None = None
    provider: Provider = "cpu"

    @property
    def targets(self) -> list[Target]:
        """What is asked for."""
        asked = [Target("latency", self.fraction)]
        return asked if self.params is None else [*asked, Target("params", self.params)]

    @property
    def key(self) -> dict[str, Any]:
        """What tells its row from others."""
        return {
            "network": self.network,
            "provider": self.provider,
            "batch": self.batch,
            "asked": self.fraction,
            "asked_params": self.params,
        }


CASES = (
    Case("vgg16_cifar10", 0.294, 1000, params=0.2, tests=2000),
    Case("vgg16_cifar10", 0.1818, 1000, params=0.0667, tests=2000),
    Case("vgg16_cifar10", 0.5, 1000, batch=32, tests=2000),
    Case("mobilenet_v2_imagenet", 0.75, 400, tests=511),
    Case("mobilenet_v2_imagenet", 0.75, 400, batch=32, tests=511),
    Case(RANDOM, 0.6, 16, allocation="uniform"),
    Case(RANDOM, 0.6, 32, batch=32, allocation="uniform"),
    Case("resnet20_cifar10", 0.7, 1000, tests=1000),
    Case("resnet56_cifar10", 0.7, 1000, tests=1000),
    Case(RANDOM, 0.6, 32, batch=32, allocation="uniform", provider="cuda"),
    Case("vgg16_cifar10", 0.5, 1000, batch=256, tests=2000, provider="cuda"),
    Case("mobilenet_v2_imagenet", 0.75, 400, batch=32, tests=511, provider="cuda"),
)
"""The first is what Ozen & Orailoglu (ECML PKDD 2020) claim, the second 5.5 times the speed with a
fifteenth of the parameters."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--network", action="append", choices=sorted({case.network for case in CASES})
    )
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        for case in CASES:
            wanted = given.network is None or case.network in given.network
            wanted = wanted and case.provider == given.provider
            if not wanted or any(case.key.items() <= row.items() for row in recorded(ROWS)):
                continue
            if case.network != RANDOM and not SHARED.is_dir():
                sys.exit(f"{SHARED} is missing: it holds the networks and their images")
            record(ROWS, measured(case))
    print(table(recorded(ROWS)))


def measured(case: Case) -> Row:
    """The row of one target."""
    row = case.key | {"images": case.images, "allocation": case.allocation or "sensitivity"}
    start = time.perf_counter()
    model, feed, pruner = studied(
        case.network, case.images, case.batch, case.allocation, case.provider
    )
    try:
        result = pruner.prune(case.targets)
    except TargetError as error:  # a target that is missed is a result
        row["fault"] = str(error)
    else:
        row |= told(result) | {"again": again(model, result.model, feed, case)}
        if case.tests:
            row |= accuracies(case, result.model)
    load = round(os.getloadavg()[1], 1)
    return row | {"seconds": round(time.perf_counter() - start), "load": load}


@lru_cache(maxsize=1)
def studied(
    network: str, images: int, batch: int, allocation: str | None, provider: Provider
) -> tuple[onnx.ModelProto, Feed, Pruner]:
    """A network, its calibration images, and what prunes it; studied once for all its targets."""
    mirror = network != RANDOM and NETWORKS[network].mirror
    if network == RANDOM:
        rng = np.random.default_rng(0)
        model, feed = resnet50(), {"x": rng.standard_normal((images, 3, 224, 224), np.float32)}
    else:
        job = Job(network, "onnxprune", 1.0, 0, OWN, images, network)
        trained = NETWORKS[network]
        model, feed = trained.model, samples(trained, job)
    options = Options(allocation=allocation, latency_batch=batch, provider=provider, mirror=mirror)
    return model, feed, Pruner(model, feed, options)


def told(result: Result) -> Row:
    """What the report of a run says of time and cost."""
    before, after = result.report.before, result.report.after
    check = next(c for c in result.report.targets if c.target.kind == "latency")
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


def again(model: onnx.ModelProto, pruned: onnx.ModelProto, feed: Feed, case: Case) -> float:
    """Time of the pruned model relative to the original's, of one batch."""
    first = {name: array[: case.batch] for name, array in feed.items()}
    full, took = fastest_times([model, pruned], first, case.provider)
    return round(took / full, 4)


def accuracies(case: Case, pruned: onnx.ModelProto) -> Row:
    """How many of the test images the two models classify correctly."""
    subject = Subject(NETWORKS[case.network], case.tests)
    return dict(paired(subject.correct, subject.classified(pruned)))


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row for each target."""
    lines = [HEADER, f"|---|---|{'---:|' * (HEADER.count('|') - 3)}"]
    for row in rows:
        asked = f"{row['asked']:.0%}"
        if row["asked_params"] is not None:
            asked += f", params {row['asked_params']:.1%}"
        head = (
            f"| {row['network']} | {row['provider']} | {row['batch']} | {row['images']} | {asked} |"
        )
        if "fault" in row:
            lines.append(f"{head} missed | | | | | | {row['load']:.1f} |")
            continue
        accuracy = ""
        if "tests" in row:
            counts = Counts.of(row)
            change = f"{counts.difference:+.1f} ± {counts.standard_error:.1f}"
            accuracy = f"{counts.base_accuracy:.1f} to {counts.accuracy:.1f} ({change})"
        lines.append(
            f"{head} {row['reached']:.1%} | {row['before_ms']:.2f} to {row['after_ms']:.2f} | "
            f"{row['again']:.1%} | {row['macs']:.1%} | {row['params']:.1%} | {accuracy} | "
            f"{row['load']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
