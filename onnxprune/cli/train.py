"""``onnxprune train``: train the weights of a classifier, or go on training them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from onnxprune.cli import arguments, shared
from onnxprune.cli.images import add_images, preprocessing
from onnxprune.cli.json_output import show
from onnxprune.cli.loudness import add_loudness, configure_logging
from onnxprune.cli.places import check_places
from onnxprune.cli.samples import FILES
from onnxprune.errors import CalibrationError, MissingLibraryError
from onnxprune.train import options as settings
from onnxprune.train.methods import METHODS
from onnxprune.train.options import TrainOptions

EXAMPLES = """\
examples:
  onnxprune train in.onnx out.onnx --data train.npz --epochs 30
  onnxprune train in.onnx out.onnx --data train.npz --time 10m --precision bf16 --device cuda
  onnxprune train in.onnx out.onnx --data images/ --preset imagenet --augment flip --augment crop=4
  onnxprune train in.onnx out.onnx --data train.npz --method decorrelated --statistics learnt.npz
  onnxprune train in.onnx out.onnx --data train.npz --checkpoint run.pt --history run.csv --resume
  torchrun --nproc-per-node 4 -m onnxprune train in.onnx out.onnx --data train.npz --device cuda

Samples hold their classes as an array 'labels' of whole numbers beside the inputs, or lie in one
folder per class, or get them from --labels. Needs torch, which the extra [train] installs.
"""
DEFAULTS = TrainOptions()


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune train",
        usage="onnxprune train IN OUT --data DATA [--method NAME] [options]\n"
        "       onnxprune train --help",
        description="Train the weights of a classifier in its own graph. The file keeps everything "
        "else, byte for byte.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="IN", type=Path, help="the model")
    parser.add_argument("output", metavar="OUT", type=Path, help="where the trained model goes")
    _add_samples(parser)
    _add_training(parser)
    _add_optimizer(parser)
    for name, entry in METHODS.items():
        _settings_of(parser, name, entry.description)
    add_images(parser)
    _add_outputs(parser)
    return parser


def _add_samples(parser: argparse.ArgumentParser) -> None:
    samples = parser.add_argument_group("samples")
    samples.add_argument(
        "--data",
        metavar="DATA",
        required=True,
        help=f"samples to learn from: {FILES}, or file.py:function",
    )
    samples.add_argument("--labels", metavar="FILE.npy", help="their classes, numbered from 0")
    samples.add_argument(
        "--validation",
        metavar="SHARE|DATA",
        type=_share_or_source,
        default=DEFAULTS.validation,
        help="samples that are only evaluated: a share of the others, or more samples; 0 for none "
        f"(default: {DEFAULTS.validation})",
    )
    samples.add_argument("--validation-labels", metavar="FILE.npy", help="their classes")
    shared.add_augment(samples, "batches")


def _share_or_source(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _add_training(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how to train")
    how.add_argument("--method", choices=list(METHODS), default=DEFAULTS.method)
    limit = how.add_mutually_exclusive_group()
    limit.add_argument(
        "--epochs", metavar="N", type=int, help=f"(default: {settings.DEFAULT_EPOCHS})"
    )
    limit.add_argument(
        "--time", metavar="TIME", type=arguments.seconds, help="end after 90s, 10m or 2h"
    )
    how.add_argument(
        "--batch", metavar="N", type=int, default=DEFAULTS.batch, help="samples of a step"
    )
    how.add_argument("--fresh", action="store_true", help="start from random weights")
    how.add_argument(
        "--freeze-norms",
        action="store_true",
        help="keep BatchNormalization to its running statistics",
    )
    how.add_argument(
        "--keep",
        choices=get_args(settings.Keep),
        default=DEFAULTS.keep,
        help="which weights to write: the best by validation accuracy, or the last "
        f"(default: {DEFAULTS.keep})",
    )
    how.add_argument("--seed", metavar="N", type=int, default=DEFAULTS.seed)
    how.add_argument("--device", choices=get_args(settings.Device), default=DEFAULTS.device)
    how.add_argument(
        "--precision",
        choices=get_args(settings.Precision),
        default=DEFAULTS.precision,
        help="of the computation; weights are float32",
    )


def _add_optimizer(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("optimiser")
    rates, decays = (
        ", ".join(f"{name} {value:g}" for name, value in table.items())
        for table in (settings.RATES, settings.DECAYS)
    )
    how.add_argument(
        "--optimizer", choices=get_args(settings.OptimizerName), default=DEFAULTS.optimizer
    )
    how.add_argument(
        "--learning-rate", metavar="X", type=float, help=f"the largest (default: {rates})"
    )
    how.add_argument(
        "--schedule",
        choices=get_args(settings.Schedule),
        default=DEFAULTS.schedule,
        help=f"how the learning rate goes on (default: {DEFAULTS.schedule})",
    )
    how.add_argument(
        "--warmup",
        metavar="SHARE",
        type=float,
        default=DEFAULTS.warmup,
        help="part of the training in which the cosine schedule rises "
        f"(default: {DEFAULTS.warmup})",
    )
    how.add_argument("--momentum", metavar="X", type=float, default=DEFAULTS.momentum)
    how.add_argument("--weight-decay", metavar="X", type=float, help=f"(default: {decays})")
    how.add_argument(
        "--smoothing",
        metavar="SHARE",
        type=float,
        default=DEFAULTS.smoothing,
        help="label smoothing: this share of the probability goes to all classes alike",
    )
    how.add_argument("--clip", metavar="X", type=float, help="largest norm of the gradient")


def _settings_of(
    parser: argparse.ArgumentParser, method: str, description: str
) -> list[argparse.Action]:
    """Enter the flags of a method; return them."""
    group = parser.add_argument_group(f"--method {method}: {description}")
    before = len(parser._actions)
    METHODS[method].add_arguments(group)
    return parser._actions[before:]


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    out = parser.add_argument_group("output")
    out.add_argument(
        "--history",
        metavar="FILE",
        type=Path,
        help="write the history as .csv or .jsonl, for `plot`",
    )
    out.add_argument(
        "--history-every",
        metavar="N",
        type=int,
        help="a row after so many steps as well, not only when an epoch is evaluated",
    )
    out.add_argument(
        "--checkpoint",
        metavar="FILE",
        type=Path,
        help="write all that is needed to go on after a stop, at the end of every epoch",
    )
    out.add_argument(
        "--checkpoint-every",
        metavar="TIME",
        type=arguments.seconds,
        default=DEFAULTS.checkpoint_seconds,
        help="and within an epoch after so much time (default: 10m)",
    )
    out.add_argument(
        "--statistics",
        metavar="FILE.npz",
        type=Path,
        help="learn on the way, and write, that by which `onnxprune --statistics --method snp` "
        "prunes without samples",
    )
    out.add_argument("--resume", action="store_true", help="go on from --checkpoint")
    out.add_argument("--json", action="store_true", help="print what it came to as JSON")
    add_loudness(out)


def run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Train, write what was asked for, print what it came to and return the exit code."""
    configure_logging(given)
    try:
        chosen = options(given)
    except (ValueError, CalibrationError) as error:
        parser.error(str(error))
    _check_written(parser, given)
    try:  # only training needs torch, and only it pays for the import
        from onnxprune.train.training import train
    except ImportError as error:
        raise MissingLibraryError(
            f"training needs torch ({error}); install it: pip install torch, or this package "
            "with its extra [train]"
        ) from error
    try:
        result = train(given.model, given.data, chosen)
    except KeyboardInterrupt as stop:
        if given.checkpoint and given.checkpoint.is_file():
            raise KeyboardInterrupt(f"go on from {given.checkpoint} with --resume") from stop
        raise
    result.save(given.output)
    if given.statistics:
        result.save_statistics(given.statistics)
    if result.leads and given.json:
        show(result.to_dict())
    elif result.leads and not given.quiet:
        print(result.table())
    return 0


def options(given: argparse.Namespace) -> TrainOptions:
    """The settings that the flags state.

    Raises:
        ValueError: they contradict each other, or a flag is one of another method.
    """
    return TrainOptions(
        method=given.method,
        method_settings=_method_settings(given),
        epochs=given.epochs,
        seconds=given.time,
        batch=given.batch,
        optimizer=given.optimizer,
        rate=given.learning_rate,
        schedule=given.schedule,
        warmup=given.warmup,
        momentum=given.momentum,
        weight_decay=given.weight_decay,
        smoothing=given.smoothing,
        clip=given.clip,
        augment=tuple(given.augment or ()),
        validation=given.validation,
        labels=given.labels,
        validation_labels=given.validation_labels,
        preprocessing=preprocessing(given),
        keep=given.keep,
        fresh=given.fresh,
        freeze_norms=given.freeze_norms,
        seed=given.seed,
        device=given.device,
        precision=given.precision,
        checkpoint=given.checkpoint,
        checkpoint_seconds=given.checkpoint_every,
        resume=given.resume,
        history=given.history,
        history_every=given.history_every,
        statistics=given.statistics is not None,
        progress=not given.quiet,
    )


def _method_settings(given: argparse.Namespace) -> Mapping[str, Any]:
    """The values of the method's own flags; those of other methods have to be left alone."""
    bare = argparse.ArgumentParser(add_help=False)
    flags = {name: _settings_of(bare, name, "") for name in METHODS}
    own = {action.dest for action in flags[given.method]}
    for name, actions in flags.items():
        for action in actions:
            if action.dest not in own and getattr(given, action.dest) != action.default:
                flag = action.option_strings[0]
                raise ValueError(f"{flag} is for --method {name}, not {given.method}")
    return {dest: getattr(given, dest) for dest in sorted(own)}


def _check_written(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    reads = {"IN": given.model, "--data": Path(given.data)}
    for flag in ("labels", "validation_labels"):
        if getattr(given, flag):
            reads[f"--{flag.replace('_', '-')}"] = Path(getattr(given, flag))
    if isinstance(given.validation, str):
        reads["--validation"] = Path(given.validation)
    writes = {
        "OUT": given.output,
        "--history": given.history,
        "--checkpoint": given.checkpoint,
        "--statistics": given.statistics,
    }
    check_places(parser, reads, writes)
