"""Convolutions in fewer basis filters, beside channels removed, at equal MACs of the network.

    python tools/bench_bases.py [--network NAME ...] [--way NAME ...] [--table]

Every way but the default method is one-shot, with one level of what is left unexplained for the
whole network. 1 000 images of the train split are looked at; the 2 000 after them measure. Times
are of one image on one thread, in turns with the original. Results are appended to a file, one JSON
object per line; a second run goes on where the first one stopped, and ``--table`` prints what is
there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import onnx
from bases import Basis, in_bases, of_outputs, of_weights, ranks_under
from curve_methods import macs_of
from data_free import counts_of, finished, study_of
from judge import CALIBRATION, Judge, Row
from measurements import record, recorded
from trained import NETWORKS as TRAINED

from onnxprune import Options, Pruner, Target, canonicalise
from onnxprune.arrays import Array
from onnxprune.latency import interleaved_latency

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "bases.jsonl"
NETWORKS = ("resnet20_cifar10", "resnet8_large_cifar10")
FRACTIONS = (0.75, 0.5, 0.35)
SNP = Options(method="snp", align=1, latency=False)
SQUEEZE = replace(SNP, method="squeeze")
OBS = replace(SNP, method="onnxprune", allocation="error", sequential=False)
BLOCK = 8
"""Channels that onnxruntime takes at once; other numbers of them are slow."""

RUNS, SECONDS = 300, 8.0
TRUSTED = 0.03
"""Difference of two times of the original up to which times are recorded."""


Models = list[onnx.ModelProto]


@dataclass(frozen=True)
class Subject:
    """A network and the images that may be looked at.

    Attributes:
        name: of the network.
    """

    name: str

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The original."""
        return TRAINED[self.name].model

    @cached_property
    def inputs(self) -> Array:
        """Calibration images as the network takes them."""
        network = TRAINED[self.name]
        return network.inputs(network.images("train")[0][CALIBRATION])

    @cached_property
    def macs(self) -> float:
        """MACs of the original."""
        return macs_of(self.model)


def by_weights(subject: Subject, fractions: Sequence[float]) -> Models:
    """Basis filters by singular values; no image is looked at."""
    canonical = canonicalise(subject.model)
    bases = of_weights(canonical, (1, *subject.inputs.shape[1:]))
    return [_reduced(canonical, bases, subject.macs, fraction) for fraction in fractions]


def by_outputs(step: int, subject: Subject, fractions: Sequence[float]) -> Models:
    """Basis filters by principal components of what a convolution makes, a multiple of a step."""
    canonical = canonicalise(subject.model)
    bases = of_outputs(canonical, subject.inputs)
    return [_reduced(canonical, bases, subject.macs, fraction, step) for fraction in fractions]


def _reduced(
    canonical: onnx.ModelProto,
    bases: Sequence[Basis],
    original: float,
    fraction: float,
    step: int = 1,
) -> onnx.ModelProto:
    """A network in bases, with a fraction of the original's MACs."""
    ranks = ranks_under(bases, macs_of(canonical), fraction * original, step)
    return in_bases(canonical, bases, ranks)


def channels(options: Options, subject: Subject, fractions: Sequence[float]) -> Models:
    """Channels removed by a method that makes no trials."""
    pruner, known = study_of(subject.model, options, subject.inputs, None)
    counts = [counts_of(pruner, known, options, fraction) for fraction in fractions]
    return [finished(subject.model, known, own, known.recovery) for own in counts]


def both(options: Options, subject: Subject, fractions: Sequence[float]) -> Models:
    """Channels removed to the square root of the fraction, then bases of what is left."""
    cut = channels(options, subject, [math.sqrt(fraction) for fraction in fractions])
    made = []
    for model, fraction in zip(cut, fractions, strict=True):
        canonical = canonicalise(model)
        bases = of_outputs(canonical, subject.inputs)
        made.append(_reduced(canonical, bases, subject.macs, fraction))
    return made


def default(subject: Subject, fractions: Sequence[float]) -> Models:
    """What the package does unless told otherwise: trials, and refits in order."""
    feed = {subject.model.graph.input[0].name: subject.inputs}
    pruner = Pruner(subject.model, feed, Options(latency=False))
    return [pruner.prune([Target("macs", fraction)]).model for fraction in fractions]


WAYS: dict[str, Callable[[Subject, Sequence[float]], Models]] = {
    "bases, singular values": by_weights,
    "bases, principal outputs": partial(by_outputs, 1),
    "bases, principal outputs, by eights": partial(by_outputs, BLOCK),
    "channels, `snp`": partial(channels, SNP),
    "channels, `squeeze`": partial(channels, SQUEEZE),
    "channels, `squeeze`, by eights": partial(channels, replace(SQUEEZE, align=BLOCK)),
    "channels, `obs` and `error`": partial(channels, OBS),
    "`squeeze`, then bases": partial(both, SQUEEZE),
    "`obs` and `error`, then bases": partial(both, OBS),
    "channels, `onnxprune`": default,
}
"""Every way by its name; the last one alone is not one-shot."""


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--way", nargs="+", default=[*WAYS], choices=WAYS)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    if not given.table:
        for name in given.network:
            subject, judge = Subject(name), Judge.of(name)
            for way in given.way:
                measure(subject, way, judge)
    print(table(recorded(RESULTS)))


def measure(subject: Subject, way: str, judge: Judge) -> None:
    """Append the rows of a network and a way that are not there yet."""
    wanted = (subject.name, way)
    done = {row["macs"] for row in recorded(RESULTS) if (row["network"], row["way"]) == wanted}
    missing = [fraction for fraction in FRACTIONS if fraction not in done]
    if not missing:
        return
    models = WAYS[way](subject, missing)
    for fraction, made, time in zip(missing, models, times(subject, models), strict=True):
        row = {"network": subject.name, "way": way, "macs": fraction}
        row["left"] = round(macs_of(made) / subject.macs, 4)
        record(RESULTS, row | {"time": time} | judge.row(judge.scores(made)))


def times(subject: Subject, models: Models) -> list[float | None]:
    """Time of one image relative to the original's; None where the machine is too busy to tell.

    The original is timed twice: if that makes more than a little difference, nothing is known.
    """
    feed = {subject.model.graph.input[0].name: subject.inputs[:1]}
    first, second, *others = interleaved_latency(
        [subject.model, subject.model, *models], feed, runs=RUNS, budget_seconds=SECONDS
    )
    if abs(second.median / first.median - 1) > TRUSTED:
        return [None for _ in models]
    full = (first.median + second.median) / 2
    return [round(other.median / full, 3) for other in others]


def table(found: list[Row]) -> str:
    """Markdown: a row for each way; KL, accuracy and time at every budget."""
    lines = []
    for name in NETWORKS:
        heads = [f"{fraction:.0%}" for fraction in FRACTIONS]
        lines += [
            f"| {name}: KL, accuracy %, time | {' | '.join(heads)} |",
            "|---|" + "---|" * len(FRACTIONS),
        ]
        for way in WAYS:
            cells = [_cell(found, name, way, fraction) for fraction in FRACTIONS]
            if any(cells):
                lines.append(f"| {way} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(found: list[Row], *wanted: object) -> str:
    for row in found:
        if (row["network"], row["way"], row["macs"]) == wanted:
            time = "?" if row["time"] is None else f"{row['time']:.2f}"
            return f"{row['kl']:.3f}, {row['accuracy']:.1f}, {time}"
    return ""


if __name__ == "__main__":
    main()
