"""The flags that say how to prune, of all commands that prune or would."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from onnxprune.allocation import ALLOCATIONS
from onnxprune.cache_folder import FOLDER_VARIABLE
from onnxprune.cli import arguments, shared
from onnxprune.cli.images import add_images
from onnxprune.cli.samples import add_samples
from onnxprune.criteria import CRITERIA, Settings
from onnxprune.criteria.orders import ORDERS
from onnxprune.criteria.protocol import Moments
from onnxprune.methods import METHODS
from onnxprune.options import Options
from onnxprune.refinement import FORMS, MethodName, OptimizerName, Refine
from onnxprune.target import meanings


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
    how.add_argument(
        "--mirror",
        action="store_true",
        help="fit on the mirror images of samples as well, where left and right do not matter",
    )
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
