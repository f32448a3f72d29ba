"""Pruned, then quantised to eight bits: accuracy, size and time of each.

    python tools/bench_pipelines.py [--network NAME ...] [--table]

Every network is measured as it is and pruned to some fractions of its MACs, and each of these as
floats and in int8, by the same settings of onnxruntime's static quantiser (QDQ, eight-bit weights
per channel and activations, their range the smallest and largest value seen). Pruning and
quantising see images of the train split only, the quantiser the first of those that pruning sees;
no setting was chosen by an accuracy. Accuracy is on test images, its differences and their
standard errors paired. Time is that of the thread, all models of a network in turns, as in
``bench_latency``. Networks that are in docs/results/pipelines.jsonl already are skipped.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from bench_curves import IMAGES, OWN, Subject, samples
from bench_latency import fastest_times
from curve_methods import macs_of
from curve_rows import Counts, Job, paired
from measurements import record, recorded
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from trained import NETWORKS, SHARED

from onnxprune import Options, Pruner, Target
from onnxprune.arrays import Array, Feed
from onnxprune.model import file_bytes

ROWS = Path(__file__).resolve().parents[1] / "docs" / "results" / "pipelines.jsonl"
FRACTIONS = {
    "resnet20_cifar10": (0.65, 0.5),
    "vgg16_cifar10": (0.5, 0.35),
    "mobilenet_v2_imagenet": (0.8,),
}
"""Network -> of its MACs, what is kept."""

TESTS = 2000
QUANTISER_IMAGES = 200
QUANTISER_BATCH = 20
HEADER = "| network | weights | MACs | file, kB | ms | accuracy | from the original | from floats |"

Row = dict[str, Any]


class Batches(CalibrationDataReader):  # type: ignore[misc]
    """Images as the quantiser asks for them."""

    def __init__(self, images: Feed) -> None:
        (self._name,) = images
        starts = range(0, QUANTISER_IMAGES, QUANTISER_BATCH)
        self._parts = iter([images[self._name][i : i + QUANTISER_BATCH] for i in starts])

    def get_next(self) -> Feed | None:
        """The next batch; None when there is no more."""
        part = next(self._parts, None)
        return None if part is None else {self._name: part}


def quantised(model: onnx.ModelProto, images: Feed) -> onnx.ModelProto:
    """A float model in int8, by the settings that onnxruntime recommends for x86 and none else."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        given, ready, made = (str(Path(folder) / f"{n}.onnx") for n in ("float", "ready", "int8"))
        onnx.save(model, given)
        quant_pre_process(given, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            made,
            Batches(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(made)


def measured(name: str) -> Iterator[Row]:
    """The rows of a network: floats and int8, of itself and of every pruning."""
    network, subject = NETWORKS[name], Subject(NETWORKS[name], TESTS)
    job = Job(name, "onnxprune", 1.0, 0, OWN, IMAGES[network.data], name)
    images = samples(network, job)
    pruner = Pruner(subject.model, images, Options(latency=False, mirror=network.mirror))
    models = {1.0: subject.model} | {
        fraction: pruner.prune([Target("macs", fraction)]).model for fraction in FRACTIONS[name]
    }
    made = {
        (fraction, kind): model
        for fraction, floats in models.items()
        for kind, model in (("float32", floats), ("int8", quantised(floats, images)))
    }
    times = fastest_times(list(made.values()), {k: v[:1] for k, v in images.items()})
    right: dict[tuple[float, str], Array] = {
        key: subject.classified(model) for key, model in made.items()
    }
    for (fraction, kind), took in zip(made, times, strict=True):
        own = right[fraction, kind]
        yield {
            "network": name,
            "asked": fraction,
            "weights": kind,
            "images": len(next(iter(images.values()))),
            "quantiser_images": QUANTISER_IMAGES,
            "macs": round(macs_of(models[fraction]) / subject.cost[0], 4),
            "bytes": file_bytes(made[fraction, kind]),
            "ms": round(took, 4),
            "original": paired(right[1.0, "float32"], own),
            "floats": paired(right[fraction, "float32"], own),
        }


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=FRACTIONS)
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks and their images")
        done = {row["network"] for row in recorded(ROWS)}
        for name in given.network or FRACTIONS:
            if name not in done:
                for row in list(measured(name)):  # only when all are there
                    record(ROWS, row)
    print(table(recorded(ROWS)))


def table(rows: Sequence[Row]) -> str:
    """Markdown: a row for each model."""
    lines = [HEADER, f"|---|---|{'---:|' * (HEADER.count('|') - 3)}"]
    for row in rows:
        of_original, of_floats = Counts.of(row["original"]), Counts.of(row["floats"])
        whole, floats = row["asked"] == 1.0, row["weights"] == "float32"
        cells = [
            row["network"],
            row["weights"],
            f"{row['macs']:.0%}",
            f"{row['bytes'] / 1000:,.0f}",
            f"{row['ms']:.3f}",
            f"{of_original.accuracy:.1f}",
            "" if whole and floats else change(of_original),
            "" if floats else change(of_floats),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def change(counts: Counts) -> str:
    """Points gained, and their standard error."""
    return f"{counts.difference:+.1f} ± {counts.standard_error:.1f}"


if __name__ == "__main__":
    main()
