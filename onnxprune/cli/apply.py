"""``onnxprune apply``: cut a model as a saved plan says."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.api import apply_plan, recover
from onnxprune.cli.images import add_images, preprocessing
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.run_flags import add_passes
from onnxprune.cli.samples import add_samples, samples_read
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights

EXAMPLES = """\
examples:
  onnxprune apply in.onnx plan.json again.onnx
  onnxprune apply in.onnx plan.json again.onnx --weights plan.npz
  onnxprune apply in.onnx edited.json out.onnx --calib samples.npz
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune apply",
        description="Cut a model as a saved plan says. Without --weights or --calib the weights "
        "are only sliced.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the model the plan was made for")
    parser.add_argument("plan", metavar="PLAN.json", type=Path)
    parser.add_argument("output", metavar="OUT", type=Path)
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", metavar="FILE.npz", type=Path, help="recovered weights saved with the plan"
    )
    add_samples(source, what="recover the weights for this plan, from unlabelled samples")
    add_passes(parser.add_argument_group("recovery from samples"))
    add_images(parser)
    add_loudness(parser)
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Cut the model and return the exit code."""
    configure_logging(given)
    reads = {"IN": given.model, "the plan": given.plan, **samples_read(given.calib)}
    if given.weights:
        reads["--weights"] = given.weights
    check_places(parser, reads, {"OUT": given.output})
    try:
        settings = _options(given)
    except ValueError as error:
        parser.error(str(error))
    plan = Plan.load(given.plan)
    weights = None
    if given.weights:
        weights = Weights.load(given.weights)
    elif given.calib:
        weights = recover(given.model, plan, given.calib, settings)
    apply_plan(given.model, plan, given.output, weights)
    return 0


def _options(given: argparse.Namespace) -> Options:
    """The settings that the flags state."""
    return Options(
        provider=given.provider,
        num_samples=given.num_samples,
        batch=given.batch,
        seed=given.seed,
        mask=given.mask,
        mirror=given.mirror,
        max_memory=given.max_memory,
        cache="" if given.no_cache else given.cache,
        cache_size=given.cache_size,
        preprocessing=preprocessing(given),
        progress=not given.quiet,
    )
