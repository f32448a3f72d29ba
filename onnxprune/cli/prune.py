"""``onnxprune IN OUT``: make a model smaller."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from onnxprune.allocation import ALLOCATIONS
from onnxprune.cache_folder import FOLDER_VARIABLE
from onnxprune.cli import arguments, shared
from onnxprune.cli.commands import listed
from onnxprune.cli.images import add_images, preprocessing
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.samples import add_samples, samples_read
from onnxprune.criteria import CRITERIA, Settings
from onnxprune.criteria.orders import ORDERS
from onnxprune.criteria.protocol import Moments
from onnxprune.errors import CalibrationError, OnnxPruneError
from onnxprune.methods import METHODS
from onnxprune.options import Options
from onnxprune.page import write_page
from onnxprune.refinement import FORMS, Budget, MethodName, OptimizerName, Refine
from onnxprune.report import Report
from onnxprune.saved_report import SavedReport
from onnxprune.target import Target, meanings

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


def add_run(parser: argparse.ArgumentParser) -> None:
    """Enter the flags that say how to prune; all commands that prune, or would, have them."""
    add_samples(parser)
    parser.add_argument(
        "--statistics",
        metavar="FILE.npz",
        help="for snp and squeeze: moments that `onnxprune train --statistics` learnt, in place of "
        "those of samples; --calib is not needed then, and only measures",
    )
    targets = meanings().replace("%", "%%")
    parser.add_argument(
        "--target",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"what the pruned model may cost; repeat for several that must all hold ({targets})",
    )
    shared.add_judging(
        parser,
        "judge models by their accuracy on the calibration samples, of these classes; nothing is "
        "fitted to them",
    )
    _add_choices(parser)
    _add_refinement(parser)
    _add_timing(parser)
    add_images(parser)


def _add_choices(parser: argparse.ArgumentParser) -> None:
    defaults = Options()
    how = parser.add_argument_group("how to prune")
    how.add_argument(
        "--method",
        choices=list(METHODS),
        default=defaults.method,
        help="criterion, allocation and recovery together; the flags below override parts of it",
    )
    how.add_argument("--criterion", choices=sorted(CRITERIA))
    how.add_argument("--allocation", choices=sorted(ALLOCATIONS))
    how.add_argument("--no-recovery", action="store_true", help="slice weights, do not refit them")
    how.add_argument(
        "--sequential",
        action=argparse.BooleanOptionalAction,
        help="refit layers in order, each on what the pruned network feeds it, or each by itself "
        "(default: what the method does)",
    )
    how.add_argument(
        "--order",
        choices=list(ORDERS),
        help=f"which channels come first for the criterion snp (default: {Settings.order})",
    )
    how.add_argument(
        "--cutoff",
        metavar="P",
        type=float,
        help="for snp, in place of --target: the share of the cumulative variance below which "
        "channels are cut",
    )
    how.add_argument(
        "--information",
        metavar="TAU",
        type=float,
        help="for squeeze, in place of --target: as many channels stay as principal components "
        "carry this share of the variance",
    )
    how.add_argument(
        "--moments",
        choices=get_args(Moments),
        help=f"what squeeze takes components and correlations of (default: {Settings.moments})",
    )
    how.add_argument(
        "--align",
        metavar="auto|N",
        type=arguments.align,
        help="keep multiples of N channels; auto stays in onnxruntime's fast layout (default: what "
        "the method does: auto, or 1 for other methods than onnxprune)",
    )
    how.add_argument("--include", metavar="REGEX", help="cut only groups of matching names")
    how.add_argument("--exclude", metavar="REGEX", help="leave groups of matching names whole")
    how.add_argument(
        "--sections",
        action="store_true",
        help="drop residual sections as well, where that does less than narrowing",
    )
    add_passes(how)


def add_passes(how: argparse._ActionsContainer) -> None:
    """Enter the flags that say how samples are run."""
    defaults = Options()
    shared.add_provider(how)
    shared.add_num_samples(how)
    shared.add_mask(how, "padding counts in no statistics, nor in outputs that have positions")
    how.add_argument("--batch", metavar="N", type=int, default=defaults.batch)
    how.add_argument("--seed", metavar="N", type=int, default=defaults.seed)
    how.add_argument(
        "--max-memory",
        metavar="SIZE",
        type=arguments.memory,
        help="hold at most this much of statistics and activations, as 512MB or 2GB, and put the "
        "rest into temporary files; what onnxruntime needs comes on top (default: hold all)",
    )
    _add_cache(how)


def _add_cache(how: argparse._ActionsContainer) -> None:
    where = how.add_mutually_exclusive_group()
    where.add_argument(
        "--cache",
        metavar="DIR",
        type=Path,
        help="keep statistics of the samples there, and find them again when the same model is "
        f"pruned with the same samples, to another target say (default: ${FOLDER_VARIABLE}, if it "
        "names a folder)",
    )
    where.add_argument("--no-cache", action="store_true", help="keep and find none")
    how.add_argument(
        "--cache-size",
        metavar="SIZE",
        type=arguments.memory,
        default=Options().cache_size,
        help="what is kept may take so much; what was used longest ago goes (default: 2GB)",
    )


def _add_refinement(parser: argparse.ArgumentParser) -> None:
    refining = parser.add_argument_group(
        "training after pruning", "with the original as the teacher, without labels; needs torch"
    )
    refining.add_argument(
        "--refine",
        metavar="BUDGET",
        help=f"train the pruned weights on the outputs of the original: {FORMS}",
    )
    refining.add_argument(
        "--refine-rate",
        metavar="X",
        type=float,
        help="largest learning rate (default: found by short trials)",
    )
    refining.add_argument(
        "--refine-optimizer",
        choices=get_args(OptimizerName),
        help=f"default: {Refine.optimizer}",
    )
    refining.add_argument(
        "--refine-method",
        choices=get_args(MethodName),
        help=f"decorrelated: layers read uncorrelated inputs (default: {Refine.method})",
    )
    refining.add_argument(
        "--refine-blocks",
        metavar="WEIGHT",
        type=float,
        help="compare the outputs of residual blocks as well, with this weight (default: "
        f"{Refine.blocks:g})",
    )
    shared.add_augment(refining, "the samples to train on")


def _add_timing(parser: argparse.ArgumentParser) -> None:
    timing = parser.add_argument_group("how latency is measured")
    timing.add_argument(
        "--latency-batch",
        metavar="N",
        type=int,
        help="samples in one run, where the model leaves that open (default: 1)",
    )
    timing.add_argument(
        "--latency-shape",
        metavar="NAME:SHAPE",
        type=arguments.input_shape,
        action="append",
        help="an input's shape with its batch, as x:1x3x640x640, where samples differ; repeat for "
        "several inputs (default: the most common one)",
    )
    shared.add_threads(timing, Options().threads)


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


def asked(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> tuple[list[Target], Options]:
    """The targets and settings that the flags state; what contradicts itself is wrong usage."""
    if not (given.calib or given.statistics):
        parser.error("the following arguments are required: --calib")
    try:
        targets = [Target.parse(text) for text in given.target]
        settings = options(given)
        settings.require_choice(targets)
        if any(target.kind == "drop" for target in targets) and not (given.eval or given.labels):
            raise ValueError("--target drop needs --eval or --labels, which measure it")
    except (ValueError, CalibrationError) as error:
        parser.error(str(error))
    return targets, settings


def reads(given: argparse.Namespace) -> dict[str, Path]:
    """What a file is -> the file, of all that the flags name to be read."""
    files = {"--labels": given.labels, "--statistics": given.statistics}
    named = {"IN": given.model} | {flag: Path(name) for flag, name in files.items() if name}
    return named | samples_read(given.calib)


def options(given: argparse.Namespace) -> Options:
    """The settings that the flags state."""
    return Options(
        method=given.method,
        criterion=given.criterion,
        allocation=given.allocation,
        recovery=not given.no_recovery,
        sequential=given.sequential,
        order=given.order,
        moments=given.moments,
        cutoff=given.cutoff,
        information=given.information,
        align=given.align,
        include=given.include,
        exclude=given.exclude,
        sections=given.sections,
        provider=given.provider,
        num_samples=given.num_samples,
        mask=given.mask,
        batch=given.batch,
        seed=given.seed,
        max_memory=given.max_memory,
        preprocessing=preprocessing(given),
        progress=not given.quiet,
        latency_batch=given.latency_batch,
        latency_shape=dict(given.latency_shape) if given.latency_shape else None,
        threads=given.threads,
        evaluate=given.eval,
        labels=given.labels,
        refine=_refine(given),
        statistics=given.statistics,
        cache="" if given.no_cache else given.cache,
        cache_size=given.cache_size,
    )


def _refine(given: argparse.Namespace) -> Refine | None:
    """The refinement that the flags state."""
    details: dict[str, Any] = {
        "rate": given.refine_rate,
        "optimizer": given.refine_optimizer,
        "method": given.refine_method,
        "blocks": given.refine_blocks,
        "augment": given.augment and tuple(given.augment),
    }
    stated = {name: value for name, value in details.items() if value is not None}
    if given.refine is not None:
        return Refine(Budget.parse(given.refine), **stated)
    for name in stated:
        flag = "--augment" if name == "augment" else f"--refine-{name}"
        raise ValueError(f"{flag} is for --refine, which is not given: {FORMS}")
    return None


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
