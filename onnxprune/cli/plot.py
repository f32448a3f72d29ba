"""``onnxprune plot``: a figure of a report of a run, or of the history of a training."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli.figure_files import ENDINGS, check_ending, needing_matplotlib
from onnxprune.cli.places import check_places
from onnxprune.replacing import replacing
from onnxprune.saved_report import SavedReport
from onnxprune.train.history import Row, read_history
from onnxprune.train.options import LOGS

EXAMPLES = """\
examples:
  onnxprune plot report.json figure.svg
  onnxprune plot run.csv curves.png
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune plot",
        description="Draw what a report says of the channel groups: widths, ratios chosen, "
        "principal components needed, cumulative variance, spectra and prices; or the history of "
        "a training: loss, accuracy, learning rate. "
        "Needs matplotlib, which the extra [plot] installs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "report",
        metavar="REPORT.json",
        type=Path,
        help="what a run wrote with --report, or a training with --history (.csv, .jsonl)",
    )
    parser.add_argument(
        "figure", metavar="OUT", type=Path, help=f"the figure, {', '.join(ENDINGS)}"
    )
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Draw the figure and return the exit code."""
    check_ending(parser, given.figure)
    check_places(parser, {"REPORT.json": given.report}, {"OUT": given.figure})
    source: SavedReport | list[Row]
    if given.report.suffix.lower() in LOGS:
        source = read_history(given.report)
    else:
        source = SavedReport.load(given.report)
    with needing_matplotlib():
        from onnxprune import curves, figures
    if isinstance(source, SavedReport):
        figure = figures.draw(source)
    else:
        figure = curves.draw_history(source)
    with replacing(given.figure) as temporary:
        figures.save(figure, temporary)
    return 0
