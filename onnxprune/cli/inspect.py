"""``onnxprune inspect``: what can be pruned, what cannot, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli import arguments
from onnxprune.cli.json_output import show
from onnxprune.model import load
from onnxprune.survey import survey


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune inspect",
        description="Show the channel groups of a model, what stays whole, and why. "
        "Needs no samples.",
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    parser.add_argument(
        "--shape",
        metavar="NAME:1x3x224x224",
        type=arguments.input_shape,
        action="append",
        default=[],
        help="an input's shape, where the model leaves extents open; repeat for several inputs "
        "(default: a batch of 1)",
    )
    parser.add_argument("--json", action="store_true", help="print the record instead of tables")
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Print the record and return the exit code."""
    shapes = dict(given.shape)
    if len(shapes) < len(given.shape):
        parser.error("give one --shape for each input")
    record = survey(load(given.model), shapes)
    if given.json:
        show(record.to_dict())
    else:
        print(record.table())
    return 0
