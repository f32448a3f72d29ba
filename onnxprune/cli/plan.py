"""``onnxprune plan``: what a run would cut, and what is predicted of the result."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune import api
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.run_flags import add_run
from onnxprune.cli.run_settings import asked, reads
from onnxprune.replacing import explained, replacing

EXAMPLES = """\
examples:
  onnxprune plan in.onnx --calib samples.npz --target macs=0.5
  onnxprune plan in.onnx --calib samples.npz --target latency=0.6 --json
  onnxprune plan in.onnx --calib samples.npz --target macs=0.5 -o plan.json
  onnxprune apply in.onnx plan.json out.onnx --calib samples.npz

No model is written. What is shown is what the run with the same flags makes first; if that misses
a target when it is measured, the run corrects itself. Exit codes: 0 done, 1 the targets cannot be
reached, 2 wrong usage.
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune plan",
        usage="onnxprune plan IN --calib DATA [--target KEY=VALUE ...] [-o PLAN.json] [options]\n"
        "       onnxprune plan --help",
        description="Show what a run would cut, what the result would cost and how far its outputs "
        "would move, without making it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    add_run(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "-o",
        "--output",
        metavar="PLAN.json",
        type=Path,
        help="write the plan for `apply`, without recovered weights; docs/plans.md has the format",
    )
    out.add_argument("--json", action="store_true", help="print the record instead of the tables")
    add_loudness(out)
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Print what a run would do, write its plan if asked for, and return the exit code."""
    configure_logging(given)
    targets, settings = asked(parser, given)
    check_places(parser, reads(given), {"-o": given.output})
    found = api.Pruner(given.model, given.calib, settings).plan(targets)
    if given.output:
        with explained(given.output), replacing(given.output) as temporary:
            found.plan.save(temporary)
    if given.json:
        show(found.to_dict())
    elif not given.quiet:
        print(found.table())
        print(f"\n{_next(given)}")
    return 0


def _next(given: argparse.Namespace) -> str:
    """What to do with it."""
    run = f"onnxprune {given.model} OUT with the same flags makes this, refits and measures it"
    if given.output is None:
        return f"nothing was written; {run}"
    source = "--calib" if given.calib else "--statistics"
    return (
        f"{given.output} holds no recovered weights: `onnxprune apply {given.model} {given.output} "
        f"OUT` only slices; with {source} as well it recovers them. {run[0].upper()}{run[1:]}"
    )
