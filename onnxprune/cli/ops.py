"""``onnxprune ops``: the operators that channels pass through."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from onnxprune import operators
from onnxprune.cli.json_output import show

EXAMPLES = """\
examples:
  onnxprune ops
  onnxprune ops --json
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune ops",
        description="List the operators with a channel rule; at any other, channels are frozen.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the table as JSON")
    form.add_argument("--markdown", action="store_true", help="print docs/operators.md")
    return parser


def run(_: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Print the table and return the exit code."""
    rows = operators.operators()
    if given.json:
        show([asdict(row) for row in rows])
    else:
        print(operators.markdown(rows) if given.markdown else operators.table(rows))
    return 0
