"""Figures behind parts of the default method, on images of the train split nothing was fitted on.

    python tools/bench_engine.py targets   # docs/decisions/0017: steps to rectified targets
    python tools/bench_engine.py judges    # docs/decisions/0018: what trials are judged by

The first 1 000 images of the train split calibrate, the next 2 000 measure. Results are appended
to a file; a second run goes on where the first one stopped, and ``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from judge import Judge
from measurements import Measurement, record, recorded
from trained import NETWORKS

from onnxprune import Options, Pruner, Target, comparison, trials
from onnxprune.recovery import LeastSquares

FILE = Path(__file__).resolve().parents[1] / "docs" / "results" / "engine.jsonl"
SUBJECTS = ("resnet20_cifar10", "resnet8_large_cifar10")
FRACTIONS = (0.75, 0.5, 0.35)
IMAGES = 1000
TARGETS = {
    "least squares": LeastSquares(sweeps=0),
    "1 step": LeastSquares(sweeps=1),
    "2 steps": LeastSquares(sweeps=2),
    "2 steps of length 1": LeastSquares(sweeps=2, stride=1.0),
    "4 steps": LeastSquares(sweeps=4),
    "8 steps": LeastSquares(sweeps=8),
}
JUDGES = {
    "as many images, scores as they are": (1, 1.0),
    "as many images, softened": (1, 3.0),
    "three times as many, as they are": (3, 1.0),
    "three times as many, softened": (3, 3.0),
}
"""Images to judge by for each one to refit on, and the temperature."""

SEEDS = (0, 1)


def pruner(network: str, seed: int = 0) -> Pruner:
    """The network and its calibration images."""
    trained = NETWORKS[network]
    pixels, _ = trained.images("train", IMAGES)
    options = Options(latency=False, seed=seed)
    return Pruner(trained.model, {"input": trained.inputs(pixels)}, options)


def targets(network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Recoveries of the same counts."""
    judge, made = Judge.of(network), pruner(network)
    for fraction in FRACTIONS:
        for variant, recovery in TARGETS.items():
            if ("targets", network, variant, fraction, 0) in done:
                continue
            ground = made._ground
            ground.study = replace(ground.study, recovery=recovery)
            model = made.prune([Target("macs", fraction)]).model
            yield {"variant": variant, "macs": fraction, "seed": 0} | judge.row(judge.scores(model))


def judges(network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Allocations by trials that are judged in different ways."""
    judge = Judge.of(network)
    for seed in SEEDS:
        for variant, (judged, temperature) in JUDGES.items():
            missing = [f for f in FRACTIONS if ("judges", network, variant, f, seed) not in done]
            if not missing:
                continue
            made = pruner(network, seed)
            with (
                mock.patch.object(trials, "JUDGED", judged),
                mock.patch.object(comparison, "TEMPERATURE", temperature),
            ):
                _ = made._ground.chooser.laws
            for fraction in missing:
                model = made.prune([Target("macs", fraction)]).model
                yield {"variant": variant, "macs": fraction, "seed": seed} | judge.row(
                    judge.scores(model)
                )


PARTS = {"targets": targets, "judges": judges}


def key(row: Measurement) -> tuple[object, ...]:
    """What tells rows apart."""
    return tuple(row[name] for name in ("part", "network", "variant", "macs", "seed"))


def table(rows: list[Measurement], part: str) -> str:
    """KL divergence and accuracy by variant and share of the MACs, means over seeds."""
    found = []
    for network in SUBJECTS:
        own = [row for row in rows if (row["part"], row["network"]) == (part, network)]
        if not own:
            continue
        shares = " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS)
        lines = [f"| {network}: KL, accuracy % | {shares} |", f"|---|{'---|' * len(FRACTIONS)}"]
        for variant in dict.fromkeys(row["variant"] for row in own):
            cells = []
            for fraction in FRACTIONS:
                same = [r for r in own if (r["variant"], r["macs"]) == (variant, fraction)]
                means = [np.mean([r[name] for r in same]) for name in ("kl", "accuracy")]
                cells.append(f"{means[0]:.4f}, {means[1]:.1f}" if same else "")
            lines.append(f"| {variant} | {' | '.join(cells)} |")
        found.append("\n".join(lines))
    return "\n\n".join(found)


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--network", nargs="+", default=SUBJECTS, choices=SUBJECTS)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    if not given.table:
        for network in given.network:
            done = {key(row) for row in recorded(FILE)}
            for row in PARTS[given.part](network, done):
                record(FILE, {"part": given.part, "network": network} | row)
    print(table(recorded(FILE), given.part))


if __name__ == "__main__":
    main()
