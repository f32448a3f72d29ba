"""``onnxprune plot``: a page or a figure of a report of a run, or of the history of a training."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli.figure_files import ENDINGS, check_ending, needing_matplotlib
from onnxprune.cli.places import check_places
from onnxprune.page import write_page
from onnxprune.replacing import replacing
from onnxprune.saved_report import SavedReport
from onnxprune.train.history import Row, read_history
from onnxprune.train.options import LOGS

PAGE = ".html"

EXAMPLES = """\
examples:
  onnxprune plot report.json page.html
  onnxprune plot report.json figure.svg
  onnxprune plot run.csv curves.png
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune plot",
        description="Show what a report says: as a page for a browser (.html), which has all of "
        "it, or as a figure of the channel groups: widths, ratios chosen, principal components "
        "needed, cumulative variance, spectra, prices and latency. Or draw the history of a "
        "training: loss, accuracy, learning rate. "
        "Figures need matplotlib, which the extra [plot] installs; the page needs nothing.",
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
        "figure",
        metavar="OUT",
        type=Path,
        help=f"the page or figure, {', '.join([PAGE, *ENDINGS])}",
    )
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Make the page or the figure and return the exit code."""
    page = given.figure.suffix.lower() == PAGE
    check_ending(parser, given.figure, (PAGE,))
    check_places(parser, {"REPORT.json": given.report}, {"OUT": given.figure})
    source: SavedReport | list[Row]
    if given.report.suffix.lower() in LOGS:
        if page:
            parser.error(f"{given.figure}: a page is of a report; a history is drawn as a figure")
        source = read_history(given.report)
    else:
        source = SavedReport.load(given.report)
    if isinstance(source, SavedReport) and page:
        write_page(source, given.figure)
    else:
        _draw(source, given.figure)
    return 0


def _draw(source: SavedReport | list[Row], path: Path) -> None:
    """Draw and write a figure."""
    with needing_matplotlib():
        from onnxprune import curves, figures
    figure = (
        figures.draw(source) if isinstance(source, SavedReport) else curves.draw_history(source)
    )
    with replacing(path) as temporary:
        figures.save(figure, temporary)
