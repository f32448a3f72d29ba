"""Channels pruned and recovered on moments of images, of noise, and without any data.

    python tools/bench_data_free.py [--network NAME ...] [--source NAME ...] [--method NAME ...]
                                    [--table]

Recovery is one-shot and counts are chosen without trials, for every source of moments on its own.
1 000 images of the train split are one source; the 2 000 after them measure. Results are appended
to a file, one JSON object per line; a second run goes on where the first one stopped, and
``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
from curve_methods import macs_of
from data_free import ESTIMATED_ON, counts_of, finished, re_estimated, smooth, study_of, white
from judge import CALIBRATION, Judge, Row
from measurements import record, recorded
from trained import NETWORKS as TRAINED
from trained import Trained

from onnxprune import Options
from onnxprune.arrays import Array

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results" / "data_free.jsonl"
NETWORKS = ("resnet20_cifar10", "resnet56_cifar10", "vgg16_cifar10")
FRACTIONS = (0.75, 0.5, 0.35)
SEED = 0
SHAPE = (CALIBRATION.size, 3, 32, 32)
PLAIN = Options(align=1, latency=False, sequential=False)
METHODS: dict[str, Options] = {
    "snp": replace(PLAIN, method="snp"),
    "squeeze": replace(PLAIN, method="squeeze"),
    "obs, error": replace(PLAIN, allocation="error"),
    "obs, uniform": replace(PLAIN, allocation="uniform"),
}
"""Methods without trials; criterion and recovery of the last two are the default's."""

NO_DATA = {"l1, no recovery": replace(PLAIN, method="l1")}
"""What looks at weights alone."""

Source = tuple[Array, onnx.ModelProto | None]
"""Inputs, and the model whose moments on them count; None for the original."""


def images(network: Trained) -> Source:
    """Calibration images."""
    return network.inputs(network.images("train")[0][CALIBRATION]), None


def noise(_network: Trained) -> Source:
    """Independent normal values in their place."""
    return white(SHAPE, SEED), None


def noise_re_estimated(network: Trained) -> Source:
    """The same, BatchNorms re-estimated on it."""
    inputs = white(SHAPE, SEED)
    return inputs, re_estimated(network.model, inputs[:ESTIMATED_ON])


def smooth_re_estimated(network: Trained) -> Source:
    """Noise with the spectrum of photographs, BatchNorms re-estimated on it."""
    inputs = smooth(SHAPE, SEED)
    return inputs, re_estimated(network.model, inputs[:ESTIMATED_ON])


def weights_alone(_network: Trained) -> Source:
    """Few samples for what is not looked at."""
    return white((64, *SHAPE[1:]), SEED), None


SOURCES: dict[str, Callable[[Trained], Source]] = {
    "images": images,
    "noise": noise,
    "noise, re-estimated": noise_re_estimated,
    "smooth noise, re-estimated": smooth_re_estimated,
    "weights": weights_alone,
}


def methods_of(source: str) -> dict[str, Options]:
    """The methods that a source is for."""
    return NO_DATA if source == "weights" else METHODS


def main() -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--source", nargs="+", default=[*SOURCES], choices=SOURCES)
    every = [*METHODS, *NO_DATA]
    parser.add_argument("--method", nargs="+", default=every, choices=every)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args()
    if not given.table:
        for name in given.network:
            judge = Judge.of(name)
            for source in given.source:
                for method in (m for m in methods_of(source) if m in given.method):
                    measure(name, source, method, judge)
    print(table(recorded(RESULTS)))


def measure(name: str, source: str, method: str, judge: Judge) -> None:
    """Append the rows of a network, a source and a method that are not there yet."""
    done = {
        row["macs"]
        for row in recorded(RESULTS)
        if (row["network"], row["source"], row["method"]) == (name, source, method)
    }
    missing = [fraction for fraction in FRACTIONS if fraction not in done]
    if not missing:
        return
    network, options = TRAINED[name], methods_of(source)[method]
    model = network.model
    pruner, known = study_of(model, options, *SOURCES[source](network))
    for fraction in missing:
        counts = counts_of(pruner, known, options, fraction)
        made = finished(model, known, counts, known.recovery)
        row = {"network": name, "source": source, "method": method, "macs": fraction}
        row["left"] = round(macs_of(made) / macs_of(model), 4)
        record(RESULTS, row | judge.row(judge.scores(made)))


def table(found: list[Row]) -> str:
    """Markdown: a row for each method and source; KL and accuracy at every budget."""
    lines = []
    measured = {row["network"] for row in found}
    for name in (name for name in NETWORKS if name in measured):
        heads = [f"{fraction:.0%}" for fraction in FRACTIONS]
        lines += [
            f"| {name}: KL, accuracy % | moments of | {' | '.join(heads)} |",
            "|---|---|" + "---|" * len(FRACTIONS),
        ]
        for method in (*METHODS, *NO_DATA):
            for source in SOURCES:
                cells = [_cell(found, name, source, method, fraction) for fraction in FRACTIONS]
                if any(cells):
                    lines.append(f"| {method} | {source} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(found: list[Row], *wanted: object) -> str:
    for row in found:
        if (row["network"], row["source"], row["method"], row["macs"]) == wanted:
            return f"{row['kl']:.3f}, {row['accuracy']:.1f}"
    return ""


if __name__ == "__main__":
    main()
