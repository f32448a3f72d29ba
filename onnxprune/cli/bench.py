"""``onnxprune bench``: latency of one or several models, measured in turns."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from onnxprune.cli import arguments, shared
from onnxprune.cli.figure_files import ENDINGS, check_ending, needing_matplotlib
from onnxprune.cli.images import add_images, preprocessing
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.samples import add_samples
from onnxprune.replacing import replacing
from onnxprune.runtime import Provider

if TYPE_CHECKING:
    from onnxprune.bench_inputs import Inputs
    from onnxprune.benchmark import BenchOptions

EXAMPLES = """\
examples:
  onnxprune bench in.onnx out.onnx
  onnxprune bench in.onnx out.onnx --batch 1 8 32 --threads 4 --seconds 10
  onnxprune bench out.onnx --provider cpu cuda tensorrt --memory
  onnxprune bench in.onnx out.onnx --shape images:1x3x640x640 --plot times.svg
  onnxprune bench in.onnx out.onnx --data samples.npz --json

Models take turns, run by run, so that noise hits all alike; runs on one thread of the CPU in which
it had to wait for its core do not count. Ratios are of medians, to the first model on the first
provider, with the interval that 95 % of resamples of the runs lie in. What it does not know of is
where a model's memory lies: copies of one model differ by one or two per cent within a process. On
a GPU a run includes the copies of inputs and outputs.
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune bench",
        usage="onnxprune bench MODEL [MODEL ...] [options]\n       onnxprune bench --help",
        description="Measure how long models take, side by side, and where their nodes run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("models", metavar="MODEL", nargs="+", type=Path, help="the models")
    _add_inputs(parser)
    _add_timing(parser)
    add_images(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help=f"draw the times of the runs ({', '.join(ENDINGS)}; needs matplotlib)",
    )
    shared.add_json(out)
    add_loudness(out)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    inputs = parser.add_argument_group("inputs (default: random, and valid for the model)")
    inputs.add_argument(
        "--batch",
        metavar="N",
        nargs="+",
        type=arguments.positive,
        help="samples in one run, one number or several (default: as many as the model is fixed "
        "to, or 1)",
    )
    shared.add_shapes(inputs)
    add_samples(inputs, "--data", "the first samples of these")
    inputs.add_argument(
        "--seed", metavar="N", type=arguments.natural, default=0, help="of random inputs"
    )


def _add_timing(parser: argparse.ArgumentParser) -> None:
    timing = parser.add_argument_group("how latency is measured")
    timing.add_argument(
        "--provider",
        nargs="+",
        choices=get_args(Provider),
        default=["cpu"],
        help="where the models run, one or several; one that is not there is an error (default: "
        "cpu)",
    )
    timing.add_argument(
        "--threads",
        metavar="N",
        type=arguments.natural,
        default=1,
        help="threads within one operator; 0 leaves the choice to onnxruntime (default: 1)",
    )
    timing.add_argument(
        "--seconds",
        metavar="TIME",
        type=arguments.seconds,
        help="time for each model at each batch size, as 10, 10s or 2m (default: 3s, or no limit "
        "with --runs)",
    )
    timing.add_argument(
        "--runs",
        metavar="N",
        type=arguments.positive,
        help="runs of each model at each batch size (default: as many as the time allows)",
    )
    timing.add_argument(
        "--warmup",
        metavar="N",
        type=arguments.natural,
        default=10,
        help="untimed runs before (default: 10)",
    )
    timing.add_argument(
        "--memory",
        action="store_true",
        help="measure the peak memory of each model on the CPU as well, in a process of its own "
        "(on Linux)",
    )


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Time the models, print the record and return the exit code."""
    configure_logging(given)
    if given.plot:
        check_ending(parser, given.plot)
        reads = {f"model {place + 1}": model for place, model in enumerate(given.models)}
        check_places(parser, reads, {"--plot": given.plot})
        with needing_matplotlib():
            from onnxprune import figures, histograms
    inputs = _inputs(parser, given)  # after the check of the usage, which is quick
    from onnxprune.benchmark import benchmark

    record = benchmark(given.models, inputs, options(given))
    if given.plot:
        with replacing(given.plot) as temporary:
            figures.save(histograms.draw_benchmark(record), temporary)
    if given.json:
        show(record.to_dict())
    elif not given.quiet:
        print(record.table())
    return 0


def options(given: argparse.Namespace) -> BenchOptions:
    """The settings that the flags state."""
    from onnxprune.benchmark import BenchOptions

    return BenchOptions(
        batches=tuple(dict.fromkeys(given.batch or (None,))),
        providers=tuple(dict.fromkeys(given.provider)),
        threads=given.threads,
        runs=given.runs,
        seconds=given.seconds,
        warmup=given.warmup,
        memory=given.memory,
        progress=not given.quiet,
    )


def _inputs(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Inputs:
    """What the models run on."""
    stated, images = shared.shapes(parser, given), preprocessing(given)
    if given.data and stated:
        parser.error("--shape is for random inputs; samples of --data have shapes of their own")
    if images is not None and not given.data:
        parser.error("flags of image folders are for --data, which is not given")
    from onnxprune.bench_inputs import RandomInputs, SampleInputs

    return SampleInputs(given.data, images) if given.data else RandomInputs(stated, given.seed)
