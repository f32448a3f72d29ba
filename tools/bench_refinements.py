"""What refinements of recovery bring beside what the package does, at the same counts.

    python tools/bench_refinements.py [--network NAME ...] [--variant NAME ...] [--table]

The counts are chosen once for each network and budget, on 1 000 images of the train split, and are
those of all variants. Images 1 000 to 3 000 of the same split measure; test images are not looked
at. Results are appended to a file, one JSON object per line; a second run goes on where the first
one stopped, and ``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from judge import CALIBRATION, Judge, Row
from measurements import record, recorded
from refinements import VARIANTS, Bench
from subspace import compared

from onnxprune.arrays import Array, IndexArray

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "refinements.jsonl"
NETWORKS = ("resnet20_cifar10", "resnet8_large_cifar10")
FRACTIONS = (0.75, 0.5, 0.35)
IMAGES: dict[str, IndexArray] = {
    "500 images": np.arange(500),
    "2000 images": np.append(np.arange(1000), np.arange(3000, 4000)),
}
"""Calibration images where they are not the first 1 000; never those that measure."""

Counts = dict[str, int]


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--variant", nargs="+", default=[*VARIANTS, "subspace"])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    if not given.table:
        for name in given.network:
            measure(name, given.variant)
    print(table(recorded(RESULTS)))
    print(subspace_table(recorded(RESULTS)))


def measure(name: str, variants: Iterable[str]) -> None:
    """Append the rows of a network that are not there yet."""
    done = {(row["network"], row["macs"], row["variant"]): row for row in recorded(RESULTS)}
    bench, judge = Bench(name, CALIBRATION), Judge.of(name)
    counts = {fraction: counts_of(bench, fraction, done) for fraction in FRACTIONS}
    bases: dict[float, Array] = {}
    for variant in variants:
        missing = [f for f in FRACTIONS if (name, f, variant) not in done]
        if not missing:
            continue
        if variant == "subspace":
            for fraction in missing:
                row = {"network": name, "macs": fraction, "variant": variant}
                record(RESULTS, row | compared(bench.study, counts[fraction]))
            continue
        if not bases:
            bases = scores_of(bench, "base", counts, judge)
        own = Bench(name, IMAGES[variant]) if variant in IMAGES else bench
        scores = bases if variant == "base" else scores_of(own, variant, counts, judge)
        for fraction in missing:
            row, found = {"network": name, "macs": fraction, "variant": variant}, scores[fraction]
            record(RESULTS, row | judge.row(found) | judge.paired(found, bases[fraction]))


def counts_of(bench: Bench, fraction: float, done: dict[tuple[str, float, str], Row]) -> Counts:
    """The counts of all variants, as they are recorded or as the package chooses them."""
    row = done.get((bench.name, fraction, "counts"))
    if row is None:
        row = {"network": bench.name, "macs": fraction, "variant": "counts"}
        record(RESULTS, row := row | {"counts": bench.counts(fraction)})
    found: Counts = row["counts"]
    return found


def scores_of(
    bench: Bench, variant: str, counts: dict[float, Counts], judge: Judge
) -> dict[float, Array]:
    """What the models of a variant make of the images that measure."""
    keeps = [bench.study.keeps(own) for own in counts.values()]
    models = VARIANTS[variant](bench, keeps)
    return {fraction: judge.scores(m) for fraction, m in zip(counts, models, strict=True)}


def table(found: list[Row]) -> str:
    """Markdown: a row for each variant; KL, agreement and accuracy at every budget."""
    lines = []
    for name in NETWORKS:
        heads = [f"{fraction:.0%}" for fraction in FRACTIONS]
        lines += [
            f"| {name}: KL, agreement %, accuracy % | {' | '.join(heads)} |",
            "|---|" + "---|" * len(FRACTIONS),
        ]
        for variant in VARIANTS:
            cells = [_cell(found, name, fraction, variant) for fraction in FRACTIONS]
            if any(cells):
                lines.append(f"| {variant} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(found: list[Row], name: str, fraction: float, variant: str) -> str:
    wanted = (name, fraction, variant)
    for row in found:
        if (row["network"], row["macs"], row["variant"]) == wanted:
            text = f"{row['kl']:.4f}"
            if variant != "base":
                text += f" ({row['kl_change']:+.4f} ± {row['kl_change_error']:.4f})"
            return f"{text}, {row['agreement']:.1f}, {row['accuracy']:.1f}"
    return ""


def subspace_table(found: list[Row]) -> str:
    """Markdown: mean relative error of the consumers, by channels and by bases of equal MACs."""
    lines = [
        "| network | MACs | channels removed | basis, consumer's MACs | basis, both maps' MACs |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in (row for row in found if row["variant"] == "subspace"):
        numbers = (row["removed"], row["basis_alone"], row["basis_both"])
        cells = " | ".join(f"{number:.3f}" for number in numbers)
        lines.append(f"| {row['network']} | {row['macs']:.0%} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
