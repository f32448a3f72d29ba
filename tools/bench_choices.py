"""Figures behind some choices, on images of the train split that nothing was fitted on.

    python tools/bench_choices.py laws      # docs/decisions/0005: trials per group, law or curve
    python tools/bench_choices.py trials    # the same: one-shot trials or such in order
    python tools/bench_choices.py bounds    # docs/decisions/0006: the bound without a target

Calibration takes the first 1 000 train images, the next 3 000 measure, 2 000 for ``trials``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
from bench_accuracy import CASES, Bench
from trained import NETWORKS as TRAINED

from onnxprune import Options, Target, prune
from onnxprune.allocation import fit_damage
from onnxprune.arrays import Array, IndexArray, Vector
from onnxprune.choice import allocate
from onnxprune.comparison import kl_divergence
from onnxprune.finishing import plan_of
from onnxprune.rewrite import apply
from onnxprune.runtime import Session
from onnxprune.section_choice import prior_of
from onnxprune.sensitivity import LEVELS, measure_sensitivity
from onnxprune.sequential import refit_in_order
from onnxprune.study import Study
from onnxprune.trials import Trials

FRACTIONS = (0.7, 0.5, 0.35)
BOUNDS = (0.05, 0.1, 0.15, 0.2)
MEASURED_IMAGES = 3000
NETWORKS = ("resnet20_cifar10_jpeg", "resnet20_cifar10")
TRIED_ON, TRIED_FRACTIONS, TRIED_MEASURED = "resnet20_cifar10", (0.75, 0.5, 0.35), 2000
TRIALS = {"one-shot, 32 images": (False, 32), "one-shot, 256": (False, 256), "in order": (True, 0)}
"""Whether trials refit in order, and the images they judge by; 0 for as many as they may take."""

Law = Callable[[Vector], Vector]
VARIANTS: dict[str, tuple[tuple[float, ...], Callable[[list[float], list[float]], Law]]] = {
    "two trials, law": ((0.75, 0.4), fit_damage),
    "three, law": ((0.75, 0.4, 0.15), fit_damage),
    "three, interpolated": ((0.75, 0.4, 0.15), lambda e, d: interpolated(e, d)),
    "four, interpolated": ((0.85, 0.65, 0.45, 0.25), lambda e, d: interpolated(e, d)),
}


def interpolated(errors: list[float], divergences: list[float]) -> Law:
    """Straight lines between trials in logarithms; slope 1 below them, 1 to 3 above."""
    order = np.argsort(errors)
    x = np.log(np.maximum(np.array(errors)[order], 1e-9))
    y = np.log(np.maximum.accumulate(np.maximum(np.array(divergences)[order], 1e-9)))
    last = np.clip((y[-1] - y[-2]) / max(x[-1] - x[-2], 1e-6), 1, 3) if x.size > 1 else 1.0

    def law(error: Vector) -> Vector:
        at = np.log(np.maximum(error, 1e-12))
        value = np.interp(at, x, y) + np.minimum(at - x[0], 0) + last * np.maximum(at - x[-1], 0)
        return np.where(error <= 0, 0.0, np.exp(value))

    return law


class Unseen:
    """The images that measure, and what the original makes of them."""

    def __init__(self, bench: Bench, count: int = MEASURED_IMAGES) -> None:
        network, seen = TRAINED[bench.case.model], bench.case.calibration_images
        images, labels = network.images("train", seen + count)
        self.images = network.inputs(images[seen:])
        self.labels = labels[seen:]
        self.reference = self.scores(bench.model)

    def scores(self, model: onnx.ModelProto) -> Array:
        """Class scores of the images, shape (images, classes)."""
        session = Session(model)
        parts = range(0, len(self.images), 100)
        scores = [session.run({"input": self.images[i : i + 100]})[0] for i in parts]
        return np.concatenate(scores)


def trial_counts(allowed: IndexArray, levels: tuple[float, ...]) -> list[int]:
    """The allowed counts nearest to the levels, the full count left out."""
    smaller = allowed[:-1]
    return sorted({int(smaller[np.argmin(abs(smaller - v * allowed[-1]))]) for v in levels})


def laws_of(known: Study, bench: Bench, variant: str) -> dict[str, Law]:
    """Group name -> damage law of a variant, of one-shot trials."""
    levels, fit = VARIANTS[variant]
    trials = trials_of(known, bench, sequential=False)
    laws = {}
    for group in known.groups:
        counts = trial_counts(known.allowed[group.name], levels)
        errors = [float(known.rankings[group.name].error[count]) for count in counts]
        tried = trials.tried([{group.name: count} for count in counts])
        laws[group.name] = fit(errors, [trial.divergence for trial in tried])
    return laws


def trials_of(known: Study, bench: Bench, *, sequential: bool, judges: int = 0) -> Trials:
    """Trials within the budget of a sensitivity, or one-shot ones judged by so many images."""
    options = replace(bench.options, sequential=sequential)
    settings = options, bench.executor
    if not judges:
        planned = len(LEVELS) * len(known.groups)
        return Trials.within_budget(known, bench.fit, bench.tune, *settings, trials=planned)
    every = np.concatenate([bench.tune.indices, bench.fit.indices])
    return Trials(known, bench.fit, replace(bench.tune, indices=every[:judges]), *settings)


def finished(known: Study, bench: Bench, counts: dict[str, int]) -> onnx.ModelProto:
    """The model cut to these counts and refitted in order."""
    prior = prior_of(known, counts, known.recovery)
    (done,) = refit_in_order(known, [prior], known.recovery, bench.fit, bench.tune, bench.executor)
    return apply(bench.model, plan_of(bench.model, known, counts), done.weights)


def compare_trials() -> None:
    """KL divergence from the original by how the trials behind the laws are made."""
    print("| trials | " + " | ".join(f"{fraction:.0%} MACs" for fraction in TRIED_FRACTIONS) + " |")
    print("|---|" + "---:|" * len(TRIED_FRACTIONS))
    bench = Bench(next(case for case in CASES if case.model == TRIED_ON))
    unseen, known = Unseen(bench, TRIED_MEASURED), bench.rank("obs")
    for name, (sequential, judges) in TRIALS.items():
        trials = trials_of(known, bench, sequential=sequential, judges=judges)
        laws = measure_sensitivity(known, trials)
        cells = []
        for fraction in TRIED_FRACTIONS:
            counts = allocate(known, bench.bounds(known, fraction), "sensitivity", laws)
            scores = unseen.scores(finished(known, bench, counts))
            cells.append(f"{kl_divergence(unseen.reference, scores).mean():.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def compare_laws() -> None:
    """KL divergence from the original for every variant and budget."""
    print("| network | MACs | " + " | ".join(VARIANTS) + " |")
    print("|---|---:|" + "---:|" * len(VARIANTS))
    for case in (c for name in NETWORKS for c in CASES if c.model == name):
        bench = Bench(case)
        unseen, known = Unseen(bench), bench.rank("obs")
        laws = {variant: laws_of(known, bench, variant) for variant in VARIANTS}
        for fraction in FRACTIONS:
            cells = []
            for own in laws.values():
                counts = allocate(known, bench.bounds(known, fraction), "sensitivity", own)
                scores = unseen.scores(bench.prune(known, counts))
                cells.append(f"{kl_divergence(unseen.reference, scores).mean():.3f}")
            print(f"| {case.model} | {fraction:.0%} | {' | '.join(cells)} |", flush=True)


def compare_bounds() -> None:
    """What bounds on the relative error leave of the network and of its accuracy."""
    print("| network | bound | MACs kept | same class | points lost |")
    print("|---|---:|---:|---:|---:|")
    for case in (c for name in NETWORKS for c in CASES if c.model == name):
        bench = Bench(case)
        unseen = Unseen(bench)
        network = TRAINED[case.model]
        images, _ = network.images("train", case.calibration_images)
        before = unseen.reference.argmax(axis=1)
        for bound in BOUNDS:
            samples = {"input": network.inputs(images)}
            target = Target("error", bound)
            result = prune(bench.model, samples, target, options=Options(latency=False))
            after = unseen.scores(result.model).argmax(axis=1)
            lost = 100 * (np.mean(before == unseen.labels) - np.mean(after == unseen.labels))
            kept = result.report.after.macs / result.report.before.macs
            same = np.mean(before == after)
            print(f"| {case.model} | {bound} | {kept:.0%} | {same:.1%} | {lost:.1f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tables = {"laws": compare_laws, "trials": compare_trials, "bounds": compare_bounds}
    parser.add_argument("what", choices=tables)
    tables[parser.parse_args().what]()
