"""The command ``onnxprune``: parse, call the API, print."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from onnxprune.alignment import Align
from onnxprune.allocation import ALLOCATIONS
from onnxprune.api import Result, apply_plan, prune
from onnxprune.calibration import IMAGENET, Preprocessing
from onnxprune.criteria import CRITERIA
from onnxprune.errors import CalibrationError, OnnxPruneError
from onnxprune.options import Options
from onnxprune.plan import Plan, Weights
from onnxprune.target import KINDS, Target

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

COMMANDS = ("apply",)

PRUNE_EXAMPLES = """\
examples:
  onnxprune in.onnx out.onnx --calib samples.npz --target macs=0.5
  onnxprune in.onnx out.onnx --calib images/ --preset imagenet --target params=0.6 --target macs=0.7
  onnxprune in.onnx out.onnx --calib feeds.py:samples --exclude head --report report.json
  onnxprune apply in.onnx plan.json again.onnx --weights plan.npz

Without --target, as much is pruned as keeps the outputs' relative error small on samples that the
weights were not fitted on. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    A first word that is a command's name is that command; anything else is the model to prune,
    so a file of such a name is written with its folder, as ``./apply``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words and words[0] in COMMANDS:
            parser = _apply_parser()
            return _apply(parser, parser.parse_args(words[1:]))
        parser = _prune_parser()
        return _prune(parser, parser.parse_args(words))
    except OnnxPruneError as error:
        print(f"onnxprune: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("onnxprune: interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED


def _prune_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onnxprune",
        description="Make a trained ONNX model smaller and dense, without fine-tuning.",
        epilog=PRUNE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the trained model")
    parser.add_argument("output", metavar="OUT", type=Path, help="where the pruned model goes")
    parser.add_argument(
        "--calib",
        metavar="DATA",
        required=True,
        help="unlabelled samples: .npz, .npy, a folder of them, a folder of images, "
        "or file.py:function",
    )
    targets = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser.add_argument(
        "--target",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help=f"what the pruned model may cost; repeat for several that must all hold ({targets})",
    )
    _add_choices(parser)
    _add_images(parser)
    _add_outputs(parser)
    return parser


def _add_choices(parser: argparse.ArgumentParser) -> None:
    defaults = Options()
    how = parser.add_argument_group("how to prune")
    how.add_argument("--criterion", choices=sorted(CRITERIA), default=defaults.criterion)
    how.add_argument("--allocation", choices=sorted(ALLOCATIONS), default=defaults.allocation)
    how.add_argument("--no-recovery", action="store_true", help="slice weights, do not refit them")
    how.add_argument(
        "--align",
        metavar="auto|N",
        type=_align,
        default=defaults.align,
        help="keep multiples of N channels; auto stays in onnxruntime's fast layout (default)",
    )
    how.add_argument("--include", metavar="REGEX", help="cut only groups of matching names")
    how.add_argument("--exclude", metavar="REGEX", help="leave groups of matching names whole")
    how.add_argument("--provider", choices=("cpu", "cuda", "tensorrt"), default="cpu")
    how.add_argument("--num-samples", metavar="N", type=int, help="use a random subset of samples")
    how.add_argument("--batch", metavar="N", type=int, default=defaults.batch)
    how.add_argument("--seed", metavar="N", type=int, default=defaults.seed)


def _add_images(parser: argparse.ArgumentParser) -> None:
    images = parser.add_argument_group(
        "image folders", "value = (pixel * scale - mean) / std; at least one flag has to be given"
    )
    images.add_argument("--mean", metavar="M[,M,M]", type=_numbers, help="default 0")
    images.add_argument("--std", metavar="S[,S,S]", type=_numbers, help="default 1")
    images.add_argument("--scale", metavar="X", type=float, help="default 1/255")
    images.add_argument("--layout", choices=("nchw", "nhwc"), help="default: as the model's input")
    images.add_argument("--resize", metavar="HxW", type=_size, help="default: as the model's input")
    images.add_argument(
        "--preset", choices=("imagenet",), help="mean, std and scale of torchvision's models"
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("output")
    out.add_argument("--report", metavar="FILE.json", type=Path, help="write the full record")
    out.add_argument(
        "--plan",
        metavar="FILE.json",
        type=Path,
        help="write the plan, and the recovered weights beside it as FILE.npz, for `apply`",
    )
    out.add_argument("--json", action="store_true", help="print the record instead of the table")
    loudness = out.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")


def _apply_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onnxprune apply",
        description="Cut a model as a saved plan says. Needs no samples.",
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the model the plan was made for")
    parser.add_argument("plan", metavar="PLAN.json", type=Path)
    parser.add_argument("output", metavar="OUT", type=Path)
    parser.add_argument(
        "--weights", metavar="FILE.npz", type=Path, help="recovered weights saved with the plan"
    )
    return parser


def _align(text: str) -> Align:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write auto or a number, not '{text}'") from None


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"write a number, or one per channel as 0.5,0.5,0.5, not '{text}'"
        ) from None


def _size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.replace(",", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"write height and width as 224x224, not '{text}'"
        ) from None
    return height, width


def _prune(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    _configure_logging(given)
    try:
        targets = [Target.parse(text) for text in given.target]
        options = _options(given)
    except (ValueError, CalibrationError) as error:
        _misused(parser, str(error))
    _check_written(parser, given)
    result = prune(given.model, given.calib, targets, options=options)
    result.save(given.output)
    _save_records(result, given)
    if given.json:
        print(json.dumps(result.report.to_dict(), indent=1))
    elif not given.quiet:
        print(result.report.table())
    return 0


def _options(given: argparse.Namespace) -> Options:
    return Options(
        criterion=given.criterion,
        allocation=given.allocation,
        recovery=not given.no_recovery,
        align=given.align,
        include=given.include,
        exclude=given.exclude,
        provider=given.provider,
        num_samples=given.num_samples,
        batch=given.batch,
        seed=given.seed,
        preprocessing=_preprocessing(given),
        progress=not given.quiet,
    )


def _preprocessing(given: argparse.Namespace) -> Preprocessing | None:
    preset = IMAGENET if given.preset else Preprocessing()
    stated = Preprocessing(
        mean=preset.mean if given.mean is None else given.mean,
        std=preset.std if given.std is None else given.std,
        scale=preset.scale if given.scale is None else given.scale,
        layout=given.layout,
        resize=given.resize,
    )
    return None if stated.is_empty else stated


def _check_written(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse before the work what could only fail, or overwrite something, after it."""
    writes = {"OUT": given.output, "--report": given.report, "--plan": given.plan}
    for path in writes.values():
        if path is not None and path.is_dir():
            _misused(parser, f"{path} is a folder; name a file")
    if given.plan:
        writes["--plan's weights"] = given.plan.with_suffix(".npz")
    _check_places(parser, {"IN": given.model, "--calib": Path(given.calib)}, writes)


def _check_places(
    parser: argparse.ArgumentParser, reads: dict[str, Path], writes: dict[str, Path | None]
) -> None:
    """Refuse to write one file over another that is read or written, or where none can be."""
    taken = dict(reads)
    for what, path in writes.items():
        if path is None:
            continue
        for other, other_path in taken.items():
            if _same(path, other_path):
                _misused(parser, f"{what} would overwrite {other}, {path}; name another file")
        folder = path.absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OnnxPruneError(f"{path}: the folder {folder} is missing or cannot be written")
        taken[what] = path


def _same(path: Path, other: Path) -> bool:
    linked = path.exists() and other.exists() and path.samefile(other)
    return linked or path.resolve() == other.resolve()


def _save_records(result: Result, given: argparse.Namespace) -> None:
    try:
        if given.report:
            result.report.save(given.report)
        if given.plan:
            result.plan.save(given.plan)
            result.weights.save(given.plan.with_suffix(".npz"))
    except OSError as error:
        raise OnnxPruneError(f"the model was written, but a record was not: {error}") from error


def _apply(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    reads = {"IN": given.model, "the plan": given.plan}
    if given.weights:
        reads["--weights"] = given.weights
    if given.output.is_dir():
        _misused(parser, f"{given.output} is a folder; name a file")
    _check_places(parser, reads, {"OUT": given.output})
    weights = Weights.load(given.weights) if given.weights else None
    apply_plan(given.model, Plan.load(given.plan), given.output, weights)
    return 0


def _configure_logging(given: argparse.Namespace) -> None:
    level = logging.WARNING if given.quiet else logging.DEBUG if given.verbose else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("onnxprune")
    logger.handlers = [handler]
    logger.setLevel(level)


def _misused(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.error(message)
