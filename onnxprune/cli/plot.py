"""``onnxprune plot``: a figure of what a run's report says of the channel groups."""

from __future__ import annotations

import argparse
from pathlib import Path

from onnxprune.cli.places import check_places
from onnxprune.errors import MissingLibraryError
from onnxprune.replacing import replacing
from onnxprune.saved_report import SavedReport

ENDINGS = (".svg", ".png", ".pdf")


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune plot",
        description="Draw what a report says of the channel groups: widths, ratios chosen, "
        "principal components needed, cumulative variance, spectra and prices. "
        "Needs matplotlib, which the extra [plot] installs.",
    )
    parser.add_argument(
        "report", metavar="REPORT.json", type=Path, help="what a run wrote with --report"
    )
    parser.add_argument(
        "figure", metavar="OUT", type=Path, help=f"the figure, {', '.join(ENDINGS)}"
    )
    return parser


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Draw the figure and return the exit code."""
    if given.figure.suffix.lower() not in ENDINGS:
        parser.error(f"{given.figure}: name a file that ends in {', '.join(ENDINGS)}")
    check_places(parser, {"REPORT.json": given.report}, {"OUT": given.figure})
    report = SavedReport.load(given.report)
    try:  # only this command needs matplotlib, and only it pays for the import
        from onnxprune import figures
    except ImportError as error:
        raise MissingLibraryError(
            f"plots need matplotlib ({error}); install it: pip install matplotlib, or this "
            "package with its extra [plot]"
        ) from error
    figure = figures.draw(report)
    with replacing(given.figure) as temporary:
        figures.save(figure, temporary)
    return 0
