"""``onnxprune inspect``: what can be pruned, what cannot, and why."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli import shared
from onnxprune.cli.json_output import show

EXAMPLES = """\
examples:
  onnxprune inspect in.onnx
  onnxprune inspect in.onnx --shape images:1x3x640x640 --json
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune inspect",
        description="Show the channel groups of a model, what stays whole, and why. "
        "Needs no samples.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    shared.add_shapes(parser)
    shared.add_json(parser, "tables")
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Print the record and return the exit code."""
    from onnxprune.model import load
    from onnxprune.survey import survey

    record = survey(load(given.model), shared.shapes(parser, given))
    if given.json:
        show(record.to_dict())
    else:
        print(record.table())
    return 0
