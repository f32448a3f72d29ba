"""Flags that several commands share, each written once."""

from __future__ import annotations

import argparse
from typing import get_args

from onnxprune.cli import arguments
from onnxprune.runtime import Provider


def add_json(container: argparse._ActionsContainer, instead: str = "the table") -> None:
    """Enter ``--json``."""
    container.add_argument(
        "--json", action="store_true", help=f"print the record as JSON instead of {instead}"
    )


def add_judging(container: argparse._ActionsContainer, labels: str) -> None:
    """Enter ``--eval`` and ``--labels``, of which one can be given.

    Args:
        container: where to.
        labels: how models are judged by labels.
    """
    judging = container.add_mutually_exclusive_group()
    judging.add_argument(
        "--eval",
        metavar="FILE.py:FUNCTION",
        help="judge models by function(predict) -> number, or one for each sample, higher is "
        "better, where predict takes a dictionary of input arrays and returns the list of outputs",
    )
    judging.add_argument("--labels", metavar="FILE.npy", help=labels)


def add_num_samples(container: argparse._ActionsContainer) -> None:
    """Enter ``--num-samples``."""
    container.add_argument(
        "--num-samples", metavar="N", type=arguments.positive, help="use a random subset of samples"
    )


def add_mask(container: argparse._ActionsContainer, effect: str) -> None:
    """Enter ``--mask``.

    Args:
        container: where to.
        effect: what it does.
    """
    container.add_argument(
        "--mask",
        metavar="NAME",
        help=f"the input that is 0 where a position is padding, as attention_mask: {effect}",
    )


def add_provider(container: argparse._ActionsContainer) -> None:
    """Enter ``--provider``, where models run."""
    container.add_argument("--provider", choices=get_args(Provider), default="cpu")


def add_threads(container: argparse._ActionsContainer, default: int) -> None:
    """Enter ``--threads``."""
    container.add_argument(
        "--threads",
        metavar="N",
        type=int,
        default=default,
        help=f"threads within one operator (default: {default})",
    )


def add_augment(container: argparse._ActionsContainer, changed: str) -> None:
    """Enter ``--augment``.

    Args:
        container: where to.
        changed: what is changed, for the help.
    """
    container.add_argument(
        "--augment",
        metavar="CHANGE",
        action="append",
        help=f"change {changed} at random: flip, crop=PIXELS, or file.py:function, a function of a "
        "batch of arrays that returns one; repeat for several",
    )


def add_shapes(container: argparse._ActionsContainer) -> None:
    """Enter ``--shape``."""
    container.add_argument(
        "--shape",
        metavar="NAME:1x3x224x224",
        type=arguments.input_shape,
        action="append",
        default=[],
        help="an input's shape, where the model leaves extents open; repeat for several inputs "
        "(default: a batch of 1)",
    )


def shapes(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> dict[str, tuple[int, ...]]:
    """Input name -> its shape, as the flags state it."""
    found = dict(given.shape)
    if len(found) < len(given.shape):
        parser.error("give one --shape for each input")
    return found
