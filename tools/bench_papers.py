"""The pruning papers' methods measured against what the papers say of them.

    python tools/bench_papers.py [--part NAME ...] [--network NAME ...] [--json FILE]
                                 [--table] [--plot]

Parts: *recovery* prunes to 80, 65, 50 and 35 % of the MACs without recovery, with one-shot recovery
and in order; *orders* exchanges the order of ``snp``, or its allocation; *squeezed* takes VGG-16 to
a 4.9th of its parameters, and every network to shares of information or cut-offs. 1 000 train
images calibrate, without labels; up to 2 000 test images, which nothing is chosen on, measure. Rows
are appended as they come and never measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench_curves import RESULTS, TEST_IMAGES, subject
from curve_rows import Counts, paired
from measurements import Measurement, record, recorded
from trained import NETWORKS

from onnxprune import Options, Pruner, Target
from onnxprune.criteria.orders import ORDERS

FILE = RESULTS / "papers.jsonl"
CIFAR = ("resnet20_cifar10", "resnet56_cifar10", "vgg16_cifar10")
SHORT = ("resnet20_cifar10", "vgg16_cifar10")
IMAGES = 1000
FRACTIONS = tuple(f"macs={f}" for f in (0.8, 0.65, 0.5, 0.35))
CLAIM = f"params={1 / 4.9:.4f}"
"""The size that Ozen & Orailoglu reach with VGG-16."""

METHODS = ("snp", "squeeze", "onnxprune")


@dataclass(frozen=True)
class Variant:
    """A way to prune.

    Attributes:
        name: in the tables.
        options: what differs from the defaults, in pairs.
    """

    name: str
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, name: str, **options: Any) -> Variant:
        """A variant of these options."""
        return cls(name, tuple(options.items()))


@dataclass(frozen=True)
class Job:
    """One row to measure: a network by a variant, to a target or, empty, as the options say."""

    part: str
    network: str
    variant: Variant
    target: str = ""


def recovery() -> Iterator[Job]:
    """Accuracy against what is kept, before and after recovery."""
    for network in CIFAR:
        for method in METHODS:
            yield from (
                Job("recovery", network, variant, target)
                for variant in (
                    Variant.of(f"{method}, not recovered", method=method, recovery=False),
                    Variant.of(f"{method}, one-shot", method=method, sequential=False),
                    Variant.of(f"{method}, in order", method=method, sequential=True),
                )
                for target in FRACTIONS
            )


def orders() -> Iterator[Job]:
    """The orders of ``snp``, and its allocation."""
    for network in SHORT:
        variants = [Variant.of(f"order {name}", method="snp", order=name) for name in ORDERS]
        variants += [
            Variant.of("order zca, uniform counts", method="snp", allocation="uniform"),
            Variant.of("squeeze, covariance", method="squeeze"),
            Variant.of("squeeze, correlation", method="squeeze", moments="correlation"),
            Variant.of("squeeze, uniform counts", method="squeeze", allocation="uniform"),
        ]
        yield from (Job("orders", network, v, target) for v in variants for target in FRACTIONS)


def squeezed() -> Iterator[Job]:
    """The papers' own ways to say how much, and the size one of them claims."""
    for network in CIFAR:
        for share in (0.999, 0.99, 0.95, 0.9):
            for moments in ("covariance", "correlation"):
                name = f"squeeze, {share:.1%} of the information, {moments}"
                own = {"method": "squeeze", "information": share, "moments": moments}
                yield Job("squeezed", network, Variant.of(name, **own))
        for cutoff in (0.001, 0.01, 0.05, 0.1):
            variant = Variant.of(f"snp, cut-off {cutoff:g}", method="snp", cutoff=cutoff)
            yield Job("squeezed", network, variant)
    for method in METHODS:
        for order, sequential in (("one-shot", False), ("in order", True)):
            variant = Variant.of(f"{method}, {order}", method=method, sequential=sequential)
            yield Job("squeezed", "vgg16_cifar10", variant, CLAIM)


PARTS = {"recovery": recovery, "orders": orders, "squeezed": squeezed}


@lru_cache(maxsize=1)
def pruner(network: str, variant: Variant) -> Pruner:
    """The network studied once for all targets in turn."""
    trained = NETWORKS[network]
    pixels, _ = trained.images("train", IMAGES)
    options = Options(latency=False, **dict(variant.options))
    return Pruner(trained.model, {"input": trained.inputs(pixels)}, options)


def measure(job: Job) -> Measurement:
    """One row; the time is that of the study, the plan and the recovery of its first target."""
    start = time.perf_counter()
    targets = [Target.parse(job.target)] if job.target else []
    result = pruner(job.network, job.variant).prune(targets)
    seconds = time.perf_counter() - start
    reference = subject(job.network, TEST_IMAGES)
    before, after = result.report.before, result.report.after
    return {
        **named(job),
        **paired(reference.correct, reference.classified(result.model)),
        "macs": round(after.macs / before.macs, 4),
        "params": round(after.params / before.params, 4),
        "latency": reference.latency(result.model, 1),
        "share": result.report.share,
        "seconds": round(seconds, 1),
    }


def named(job: Job) -> Measurement:
    """What tells rows apart."""
    fields = {"part": job.part, "network": job.network, "variant": job.variant.name}
    return fields | {"target": job.target}


def key(row: Measurement) -> tuple[str, ...]:
    """The same as a key."""
    return tuple(row[name] for name in ("part", "network", "variant", "target"))


def tables(rows: Sequence[Measurement]) -> str:
    """One table for each part and network."""
    found = []
    for part in PARTS:
        for network in CIFAR:
            own = [row for row in rows if (row["part"], row["network"]) == (part, network)]
            if own:
                write = by_setting if part == "squeezed" else by_fraction
                base = Counts.of(own[0]).base_accuracy
                found.append(f"### {network}, {part} (original {base:.1f})\n\n{write(own)}")
    return "\n\n".join(found)


def by_fraction(rows: Sequence[Measurement]) -> str:
    """A line for each variant, a column for each share of the MACs."""
    cells = {(row["variant"], row["target"]): f"{Counts.of(row).accuracy:.1f}" for row in rows}
    times: dict[str, float] = {}
    for row in rows:
        times[row["variant"]] = max(times.get(row["variant"], 0.0), row["seconds"])
    shares = [f"{float(target.removeprefix('macs=')):.0%}" for target in FRACTIONS]
    lines = [
        f"| | {' | '.join(shares)} | first, s |",
        f"|---|{'---:|' * (len(shares) + 1)}",
    ]
    for variant, seconds in times.items():
        values = [cells.get((variant, target), "") for target in FRACTIONS]
        lines.append(f"| {variant} | {' | '.join(values)} | {seconds:.0f} |")
    return "\n".join(lines)


def by_setting(rows: Sequence[Measurement]) -> str:
    """A line for each variant with what it keeps."""
    lines = [
        "| | accuracy | lost | MACs | params | time, batch 1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        asked = f", {row['target']}" if row["target"] else ""
        kept = f"{row['macs']:.0%} | {row['params']:.1%} | {row['latency']:.0%}"
        own = Counts.of(row)
        lost = f"{own.difference:+.1f} ± {own.standard_error:.1f}"
        lines.append(f"| {row['variant']}{asked} | {own.accuracy:.1f} | {lost} | {kept} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, then print the tables or draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--network", action="append", choices=CIFAR)
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    parser.add_argument("--plot", action="store_true", help="only draw it, beside the file")
    given = parser.parse_args()
    if given.plot:
        import plot_papers

        plot_papers.draw(recorded(given.json), given.json.with_suffix(".svg"))
        return
    if not given.table:
        done = {key(row) for row in recorded(given.json)}
        for part in given.part or PARTS:
            for job in PARTS[part]():
                wanted = not given.network or job.network in given.network
                if wanted and key(named(job)) not in done:
                    record(given.json, measure(job))
    print(tables(recorded(given.json)))


if __name__ == "__main__":
    main()
