"""``onnxprune IN OUT``: make a model smaller."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.cli import shared
from onnxprune.cli.commands import listed
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.run_flags import add_run
from onnxprune.cli.run_settings import asked, reads
from onnxprune.errors import OnnxPruneError
from onnxprune.page import write_page
from onnxprune.report import Report
from onnxprune.saved_report import SavedReport

if TYPE_CHECKING:
    from onnxprune.api import Result

RECORDS = (".json", ".html")

EXAMPLES = """\
examples:
  onnxprune in.onnx out.onnx --calib samples.npz --target macs=0.5
  onnxprune in.onnx out.onnx --calib images/ --preset imagenet --target params=0.6 --target macs=0.7
  onnxprune in.onnx out.onnx --calib samples.npz --target latency=0.6 --target error=0.1
  onnxprune in.onnx out.onnx --calib samples.npz --target drop=1% --eval judge.py:accuracy
  onnxprune in.onnx out.onnx --calib feeds.py:samples --report report.json --report report.html
  onnxprune in.onnx out.onnx --calib ids=ids.npy --calib mask=mask.npy --mask mask
  onnxprune in.onnx out.onnx --calib samples.npz --method snp --cutoff 0.05
  onnxprune in.onnx out.onnx --calib samples.npz --target macs=0.35 --refine 300s
  onnxprune trained.onnx out.onnx --statistics learnt.npz --method snp --target macs=0.5
  onnxprune plan in.onnx --calib samples.npz --target macs=0.5
  onnxprune sweep in.onnx models/ --calib samples.npz --target macs=0.8,0.65,0.5,0.35
  onnxprune apply in.onnx plan.json again.onnx --weights plan.npz
  onnxprune plot report.json page.html
  onnxprune plot report.json figure.svg
  onnxprune compare in.onnx out.onnx --data samples.npz --max-error 0.05
  onnxprune bench in.onnx out.onnx --batch 1 8
  onnxprune inspect in.onnx
  onnxprune ops
  onnxprune cache list

Without --target, as much is pruned as keeps the outputs' relative error small on samples that the
weights were not fitted on. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
"""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune",
        usage="onnxprune IN OUT --calib DATA [--target KEY=VALUE ...] [options]\n"
        "       onnxprune --help",
        description="Make a trained ONNX model smaller and dense, without fine-tuning.\n\n"
        + listed(),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    parser.add_argument("output", metavar="OUT", type=Path, help="where the pruned model goes")
    add_run(parser)
    _add_outputs(parser)
    return parser


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("output")
    out.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the full record, FILE.json, or a page of it for a browser, FILE.html; repeat "
        "for both",
    )
    out.add_argument(
        "--plan",
        metavar="FILE.json",
        type=Path,
        help="write the plan, and the recovered weights beside it as FILE.npz, for `apply`",
    )
    shared.add_json(out)
    add_loudness(out)


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Prune, write what was asked for, print the record and return the exit code."""
    configure_logging(given)
    targets, settings = asked(parser, given)
    _check_written(parser, given)
    from onnxprune.api import prune  # the help and wrong usage do not pay for the import

    result = prune(given.model, given.calib, targets, options=settings)
    result.save(given.output)
    report = result.report.called(given.typed)
    _save_records(result, report, given)
    if given.json:
        show(report.to_dict())
    elif not given.quiet:
        print(report.table())
    return 0


def _check_written(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse before the work what could only fail, or overwrite something, after it."""
    reports = {f"--report{f' {at}' * (at > 1)}": p for at, p in enumerate(given.report, start=1)}
    writes = {"OUT": given.output, **reports, "--plan": given.plan}
    if given.plan:
        writes["--plan's weights"] = given.plan.with_suffix(".npz")
    check_places(parser, reads(given), writes)
    for path in given.report:
        if path.suffix.lower() not in RECORDS:
            parser.error(f"--report {path}: name a file that ends in {' or '.join(RECORDS)}")


def _save_records(result: Result, report: Report, given: argparse.Namespace) -> None:
    try:
        for path in given.report:
            if path.suffix.lower() == ".html":
                write_page(SavedReport.of(report.to_dict()), path)
            else:
                report.save(path)
        if given.plan:
            result.plan.save(given.plan)
            result.weights.save(given.plan.with_suffix(".npz"))
    except (OSError, OnnxPruneError) as error:
        raise OnnxPruneError(f"the model was written, but a record was not: {error}") from error
