"""Figures behind parts of the default method, on images of the train split nothing was fitted on.

    python tools/bench_engine.py targets   # docs/decisions/0017: steps to rectified targets
    python tools/bench_engine.py judges    # docs/decisions/0018: what trials are judged by
    python tools/bench_engine.py budgets   # docs/decisions/0022: what all trials may cost
    python tools/bench_engine.py starts    # docs/decisions/0022: what refits in order start from
    python tools/bench_engine.py unseen    # docs/decisions/0024: whether samples fitted on judge
    python tools/bench_engine.py mirror    # docs/decisions/0025: mirror images of few samples

The first 1 000 images of the train split calibrate, the next 2 000 measure. Results are appended
to a file; a second run goes on where the first one stopped, and ``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from judge import Judge
from measurements import Measurement, record, recorded
from trained import NETWORKS

from onnxprune import Options, Pruner, Target, comparison, finishing, trials
from onnxprune.finishing import START_RIDGE
from onnxprune.least_squares import LeastSquares
from onnxprune.recovery import BiasOnly, FixedRidge, Recovery

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
TRIALS = {
    "judges": {
        "as many images, scores as they are": (6, 1, 1.0),
        "as many images, softened": (6, 1, 3.0),
        "three times as many, as they are": (6, 3, 1.0),
        "three times as many, softened": (6, 3, 3.0),
    },
    "budgets": {
        "6 passes, judged by 3 times as many": (6, 3, 3.0),
        "3 passes, judged by 4 times as many": (3, 4, 3.0),
        "2 passes, judged by 4 times as many": (2, 4, 3.0),
        "1 pass, judged by 4 times as many": (1, 4, 3.0),
    },
}
"""Part -> settings of trials: times that all together may be refitted on the calibration set,
images to judge by for each one to refit on, and the temperature."""

STARTS: dict[str, Recovery] = {"slice": BiasOnly(), "one-shot or slice": FixedRidge(START_RIDGE)}
"""What the refit in order starts from."""
COUNTS = (50, 100, 200, 400, IMAGES)
"""Calibration images: where they are few, the start matters."""

FEW_OR_MANY = (100, 200, 400, IMAGES)
FEW = (100, 400)
JUDGES = {"those to tune on, then to fit on": True, "those to tune on": False}
"""Which samples judge trials: whether those to fit on do, too, that no trial is refitted on."""

SEEDS = (0, 1)


def pruner(
    network: str,
    seed: int = 0,
    count: int = IMAGES,
    images: str = "as they are",
    **settings: Any,
) -> Pruner:
    """The network and its calibration images."""
    trained = NETWORKS[network]
    pixels, _ = trained.images("train", count)
    if images == "samples twice":
        pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    options = Options(latency=False, seed=seed, mirror=images == "--mirror", **settings)
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


def trial_settings(part: str, network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Allocations by trials that are judged in different ways, or cost more or less."""
    for variant, (passes, judged, temperature) in TRIALS[part].items():
        with (
            mock.patch.object(trials, "TRIAL_PASSES", passes),
            mock.patch.object(trials, "JUDGED", judged),
            mock.patch.object(comparison, "TEMPERATURE", temperature),
        ):
            yield from allocated(part, network, variant, done)


def starts(network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Refits in order that start from different weights, without trials."""
    judge = Judge.of(network)
    for count, seed in product(COUNTS, SEEDS):
        made = pruner(network, seed, count, allocation="uniform")
        for (name, start), fraction in product(STARTS.items(), FRACTIONS):
            variant = f"{name}, {count} images"
            if ("starts", network, variant, fraction, seed) in done:
                continue
            with mock.patch.object(finishing, "start_of", lambda _, start=start: start):
                scores = judge.scores(made.prune([Target("macs", fraction)]).model)
            row = {"variant": variant, "macs": fraction, "seed": seed}
            yield row | judge.row(scores)


def judges(network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Allocations by trials that are judged by other samples."""
    for count, (name, fitted_on) in product(FEW_OR_MANY, JUDGES.items()):
        planned = within_budget_and_fitted if fitted_on else within_budget
        with mock.patch.object(trials.Trials, "within_budget", planned):
            yield from allocated("unseen", network, f"{name}, {count} images", done, count)


def mirror_images(network: str, done: set[tuple[object, ...]]) -> Iterator[Measurement]:
    """Samples as they are, with mirror images to fit on, and with mirror images as samples."""
    for count, variant in product(FEW, ("as they are", "--mirror", "samples twice")):
        name = f"{variant}, {count} images"
        yield from allocated("mirror", network, name, done, count, variant)


within_budget = trials.Trials.within_budget


def within_budget_and_fitted(*settings: Any, **planned: Any) -> trials.Trials:
    """Trials that samples to fit on judge as well, up to as many for each as are allowed."""
    made = within_budget(*settings, **planned)
    _, fit, tune, *_ = settings
    seen = made._fit.indices.size
    every = np.concatenate([tune.indices, fit.indices[seen:]])
    made._tune = replace(tune, indices=every[: trials.JUDGED * seen])
    return made


def allocated(
    part: str,
    network: str,
    variant: str,
    done: set[tuple[object, ...]],
    count: int = IMAGES,
    images: str = "as they are",
) -> Iterator[Measurement]:
    """What the allocations of all seeds come to."""
    judge = Judge.of(network)
    for seed in SEEDS:
        missing = [f for f in FRACTIONS if (part, network, variant, f, seed) not in done]
        if not missing:
            continue
        made = pruner(network, seed, count, images)
        _ = made._ground.study
        start = time.process_time()
        _ = made._ground.chooser.laws
        seconds = round(time.process_time() - start, 1)
        for fraction in missing:
            scores = judge.scores(made.prune([Target("macs", fraction)]).model)
            row = {"variant": variant, "macs": fraction, "seed": seed, "trials_s": seconds}
            yield row | judge.row(scores)


PARTS: dict[str, Callable[[str, set[tuple[object, ...]]], Iterator[Measurement]]] = {
    "targets": targets,
    "judges": partial(trial_settings, "judges"),
    "budgets": partial(trial_settings, "budgets"),
    "starts": starts,
    "unseen": judges,
    "mirror": mirror_images,
}


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
        timed = part in ("budgets", "unseen", "mirror")
        shares = " | ".join(f"{fraction:.0%}" for fraction in FRACTIONS) + " | s" * timed
        lines = [f"| {network}: KL, accuracy % | {shares} |", "|---|" + "---|" * len(FRACTIONS)]
        lines[1] += "---:|" * timed
        for variant in dict.fromkeys(row["variant"] for row in own):
            cells = []
            for fraction in FRACTIONS:
                same = [r for r in own if (r["variant"], r["macs"]) == (variant, fraction)]
                means = [np.mean([r[name] for r in same]) for name in ("kl", "accuracy")]
                cells.append(f"{means[0]:.4f}, {means[1]:.1f}" if same else "")
            if timed:
                times = [r["trials_s"] for r in own if r["variant"] == variant]
                cells.append(f"{np.mean(times):.0f}")
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
