"""``onnxprune apply``: cut a model as a saved plan says."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.api import apply_plan
from onnxprune.cli.places import check_places
from onnxprune.plan import Plan, Weights

EXAMPLES = """\
examples:
  onnxprune apply in.onnx plan.json again.onnx
  onnxprune apply in.onnx plan.json again.onnx --weights plan.npz
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune apply",
        description="Cut a model as a saved plan says. Needs no samples.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the model the plan was made for")
    parser.add_argument("plan", metavar="PLAN.json", type=Path)
    parser.add_argument("output", metavar="OUT", type=Path)
    parser.add_argument(
        "--weights", metavar="FILE.npz", type=Path, help="recovered weights saved with the plan"
    )
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Cut the model and return the exit code."""
    reads = {"IN": given.model, "the plan": given.plan}
    if given.weights:
        reads["--weights"] = given.weights
    check_places(parser, reads, {"OUT": given.output})
    weights = Weights.load(given.weights) if given.weights else None
    apply_plan(given.model, Plan.load(given.plan), given.output, weights)
    return 0
