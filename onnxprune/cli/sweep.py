"""``onnxprune sweep``: a model for each of several budgets, from one study."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from onnxprune import api
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.run_flags import add_run
from onnxprune.cli.run_settings import asked, reads
from onnxprune.errors import OnnxPruneError
from onnxprune.frontier import Frontier
from onnxprune.replacing import explained, replacing
from onnxprune.sweep import FIGURE, JOURNAL, TABLE, Budget, budgets_of

EXAMPLES = """\
examples:
  onnxprune sweep in.onnx models/ --calib samples.npz --target macs=0.8,0.65,0.5,0.35
  onnxprune sweep in.onnx models/ --calib samples.npz --target latency=0.8,0.6 --labels classes.npy
  onnxprune sweep in.onnx models/ --calib samples.npz --target params=0.7,0.5 --target error=0.2

What is learnt of the model and the samples serves all budgets. The folder gets a model and a report
for each, frontier.csv, and frontier.svg where matplotlib is installed. The same command again goes
on from what is there. Exit codes: 0 done, 1 refused, or a budget has failed, 2 wrong usage.
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune sweep",
        usage="onnxprune sweep IN FOLDER --calib DATA --target KEY=VALUE,VALUE,... [options]\n"
        "       onnxprune sweep --help",
        description="Make a model smaller under several budgets, and measure what each costs and "
        "does: accuracy against MACs, parameters and latency. One target has several values with "
        "commas between them; any others hold throughout.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the files go")
    add_run(parser)
    out = parser.add_argument_group("output")
    out.add_argument(
        "--figure",
        choices=("svg", "png", "pdf", "none"),
        help="the format of the plot (default: svg, if matplotlib is installed)",
    )
    out.add_argument("--json", action="store_true", help="print the record instead of the table")
    add_loudness(out)
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Make and measure the models, print what they cost and do, and return the exit code."""
    configure_logging(given)
    try:
        budgets = budgets_of(given.target)
    except ValueError as error:
        parser.error(str(error))
    given.target = [str(target) for budget in budgets for target in budget.targets]
    _, settings = asked(parser, given)
    _check_folder(parser, given, budgets)
    pruner = api.Pruner(given.model, given.calib, replace(settings, latency=False))
    try:
        frontier = pruner.sweep(budgets, given.folder)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"the same command goes on from what is in {given.folder}"
        ) from stop
    _write(given.folder / TABLE, frontier.csv())
    drawn = _draw(given, frontier)
    if given.json:
        show(frontier.to_dict())
    elif not given.quiet:
        print("\n".join([frontier.table(), *([f"note: {drawn}"] if drawn else [])]))
    return 1 if frontier.failed else 0


def _check_folder(
    parser: argparse.ArgumentParser, given: argparse.Namespace, budgets: list[Budget]
) -> None:
    """Make the folder, and refuse to write over what is read."""
    folder = given.folder
    if folder.exists() and not folder.is_dir():
        parser.error(f"{folder} is a file; name a folder")
    names = [f"{budget.stem}.{end}" for budget in budgets for end in ("onnx", "json")]
    writes = {name: folder / name for name in (*names, JOURNAL, TABLE)}
    with explained(folder):
        folder.mkdir(exist_ok=True)
    check_places(parser, reads(given), writes)


def _write(path: Path, text: str) -> None:
    with explained(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _draw(given: argparse.Namespace, frontier: Frontier) -> str:
    """Draw the figure; what there is to say where that is not possible."""
    if given.figure == "none" or len(frontier.failed) == len(frontier.points):
        return ""
    try:  # only the figure needs matplotlib, and only it pays for the import
        from onnxprune import figures, frontier_figure
    except ImportError as error:
        advice = "install matplotlib, or this package with its extra [plot]"
        if given.figure is not None:
            raise OnnxPruneError(
                f"the models were made, but not the figure ({error}); {advice}"
            ) from error
        return f"no figure was drawn, which needs matplotlib; {advice}"
    path = given.folder / f"{FIGURE}.{given.figure or 'svg'}"
    with replacing(path) as temporary:
        figures.save(frontier_figure.draw_frontier(frontier), temporary)
    return ""
