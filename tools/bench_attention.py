"""Accuracy of a transformer when one kind of its channels is cut alone, to a half and to a quarter.

Heads, the width of queries and keys, the width of values and the hidden units of the feed-forward
layers of ``models/vit_digits.onnx``, in all blocks alike, by some criteria, with and without
recovery. Random orders are drawn several times and averaged. Results are appended to a file, one
JSON object per line; a second run goes on where the first one stopped, and ``--table`` prints what
is there.

    python tools/bench_attention.py [--table]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from bench_accuracy import CASES, DEFAULTS, ROOT, Bench
from measurements import record, recorded

from onnxprune.methods import RECOVERIES
from onnxprune.options import Options
from onnxprune.study import Study

RESULTS = ROOT / "docs" / "results" / "attention.jsonl"
(CASE,) = (case for case in CASES if case.model == "vit_digits")
KINDS: dict[str, Options] = {
    "heads": replace(DEFAULTS, include="qkv", exclude="#"),
    "width of queries and keys": replace(DEFAULTS, include="#2$"),
    "width of values": replace(DEFAULTS, include="#3$"),
    "hidden units": replace(DEFAULTS, include="hidden"),
}
FRACTIONS = (0.5, 0.25)
SEEDS = {"obs": (0,), "l2": (0,), "random": (0, 1, 2, 3, 4)}
RECOVERY = ("least-squares", "none")


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    if not parser.parse_args().table:
        for kind in KINDS:
            measure(kind)
    print(table(recorded(RESULTS)))


def measure(kind: str) -> None:
    """Append the rows of one kind of channels that are not there yet."""
    done = {row_key(row) for row in recorded(RESULTS)}
    bench = Bench(CASE, KINDS[kind])
    for criterion, seeds in SEEDS.items():
        for seed in seeds:
            for row in rows(bench, criterion, seed):
                row |= {"model": CASE.model, "kind": kind, "criterion": criterion, "seed": seed}
                if row_key(row) not in done:
                    record(RESULTS, row)


def row_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What tells rows apart."""
    return tuple(row[k] for k in ("model", "kind", "criterion", "seed", "recovery", "kept"))


def rows(bench: Bench, criterion: str, seed: int) -> Iterator[dict[str, Any]]:
    """The results of one order: with and without recovery, at every fraction."""
    ranked = bench.rank(criterion, seed)
    for recovery in RECOVERY:
        known: Study = replace(ranked, recovery=RECOVERIES[recovery])
        for fraction in FRACTIONS:
            counts = {group.name: round(fraction * group.size) for group in known.groups}
            pruned = bench.prune(known, counts)
            row = bench.row(known, counts, pruned)
            yield row | {"recovery": recovery, "kept": fraction}


def table(found: list[dict[str, Any]]) -> str:
    """Markdown: a row for each kind of channels and fraction, a column for each way of cutting."""
    ways = [(criterion, recovery) for recovery in RECOVERY for criterion in SEEDS]
    titles = [c if r == "least-squares" else f"{c}, sliced" for c, r in ways]
    lines = [
        "| cut alone | kept | MACs | params | " + " | ".join(titles) + " |",
        "|---|---:|" + "---:|" * (2 + len(ways)),
    ]
    for kind in KINDS:
        for fraction in FRACTIONS:
            own = [row for row in found if (row["kind"], row["kept"]) == (kind, fraction)]
            if not own:
                continue
            values = [_mean([r for r in own if (r["criterion"], r["recovery"]) == w]) for w in ways]
            costs = f"{own[0]['macs']:.0%} | {own[0]['params']:.0%}"
            lines.append(f"| {kind} | {fraction:.0%} | {costs} | {' | '.join(values)} |")
    return "\n".join(lines)


def _mean(own: list[dict[str, Any]]) -> str:
    return f"{np.mean([row['accuracy'] for row in own]):.1f}" if own else ""


if __name__ == "__main__":
    main()
