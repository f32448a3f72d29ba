"""``onnxprune compare``: how far the outputs of two models are apart."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import arguments, shared
from onnxprune.cli.images import add_images, preprocessing
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.samples import add_samples
from onnxprune.errors import BoundError

if TYPE_CHECKING:
    from onnxprune.model_comparison import CompareOptions

logger = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  onnxprune compare in.onnx out.onnx --data samples.npz
  onnxprune compare in.onnx out.onnx --data samples.npz --max-error 0.05 --min-agreement 99%
  onnxprune compare in.onnx out.onnx --data images/ --preset imagenet --labels labels.npy
  onnxprune compare in.onnx out.onnx --data samples.npz --eval judge.py:scores --max-drop 1%

Outputs are matched by name. Exit codes: 0 all bounds are kept, 1 one is not (the record is printed
all the same) or the models cannot be compared, 2 wrong usage.
"""
LIMITS = {
    "max_error": ("X", arguments.bound, "the most: relative error, ||B - A|| / ||A||"),
    "max_abs_error": ("X", arguments.bound, "the most: largest difference between two values"),
    "max_divergence": (
        "X",
        arguments.bound,
        "the most: mean KL divergence of class scores in nats, or squared relative error",
    ),
    "min_cosine": ("X", arguments.share, "the least: cosine of the angle between all outputs"),
    "min_agreement": ("SHARE", arguments.share, "the least: samples of the same top class"),
    "max_drop": (
        "X",
        arguments.bound,
        "the most: fall of the metric of --eval or --labels; 1%% is one point of an accuracy",
    ),
}
"""Bounds: where argparse stores one -> how it is written, what it is read by, what it is on."""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune compare",
        usage="onnxprune compare A B --data DATA [options]\n       onnxprune compare --help",
        description="Measure how far the outputs of model B are from those of model A.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="A", type=Path, help="the reference")
    parser.add_argument("second", metavar="B", type=Path, help="the changed model")
    add_samples(parser, "--data", "samples", required=True)
    shared.add_judging(
        parser,
        "measure the accuracy of both on the samples, of these classes, and the standard error of "
        "the difference",
    )
    bounds = parser.add_argument_group("bounds on every output; one that is broken is exit code 1")
    for dest, (metavar, kind, text) in LIMITS.items():
        flag = f"--{dest.replace('_', '-')}"
        bounds.add_argument(flag, metavar=metavar, type=kind, help=text)
    how = parser.add_argument_group("how to compare")
    shared.add_provider(how)
    shared.add_num_samples(how)
    shared.add_mask(how, "padding counts in no output that has positions")
    how.add_argument("--batch", metavar="N", type=arguments.positive, default=32)
    how.add_argument("--seed", metavar="N", type=arguments.natural, default=0)
    add_images(parser)
    out = parser.add_argument_group("output")
    shared.add_json(out)
    add_loudness(out)
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Compare the models, print the record and return the exit code."""
    configure_logging(given)
    if given.max_drop is not None and not (given.eval or given.labels):
        parser.error("--max-drop needs --eval or --labels, which measure it")
    from onnxprune.comparison_table import comparison_table
    from onnxprune.model_comparison import compare_models

    record = compare_models((given.first, given.second), given.data, options(given))
    logger.info("%s", record.samples)
    if given.json:
        show(record.to_dict())
    elif not given.quiet:
        print(comparison_table(record))
    if record.broken:
        raise BoundError(
            f"{given.second} is further from {given.first} than allowed: "
            f"{'; '.join(map(str, record.broken))}"
        )
    return 0


def options(given: argparse.Namespace) -> CompareOptions:
    """The settings that the flags state."""
    from onnxprune.model_comparison import CompareOptions

    stated = {dest: getattr(given, dest) for dest in LIMITS}
    return CompareOptions(
        limits={d.replace("_", "-"): value for d, value in stated.items() if value is not None},
        evaluate=given.eval,
        labels=given.labels,
        preprocessing=preprocessing(given),
        num_samples=given.num_samples,
        batch=given.batch,
        seed=given.seed,
        provider=given.provider,
        progress=not given.quiet,
        mask=given.mask,
    )
