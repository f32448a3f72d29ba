"""The flags of decorrelated backpropagation, and the method. Nothing here needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import onnx

from onnxprune.train import decorrelation_options as defaults
from onnxprune.train.decorrelation_options import DecorrelationOptions

if TYPE_CHECKING:
    from onnxprune.train.method import Method
    from onnxprune.train.network import TrainableNetwork

SETTINGS = {
    "decorrelation_rate": "rate",
    "kappa": "kappa",
    "decorrelation_loss": "loss",
    "triangular": "triangular",
    "decorrelation_share": "share",
    "decorrelation_points": "points",
    "decorrelate": "layers",
}
"""Name of a flag -> what it sets."""


def add_flags(parser: argparse._ActionsContainer) -> None:
    """Enter the flags."""
    parser.add_argument(
        "--decorrelation-rate",
        metavar="X",
        type=float,
        help="step size of the rule by which a layer's inputs become uncorrelated "
        f"(default: {defaults.RATE:g}, or {defaults.TRIANGULAR_RATE:g} with --triangular)",
    )
    parser.add_argument(
        "--kappa",
        metavar="SHARE",
        type=float,
        help="how much it counts that they have unit second moments as well "
        f"(default: {defaults.KAPPA:g}, or 0 with --triangular)",
    )
    parser.add_argument(
        "--decorrelation-loss",
        choices=get_args(defaults.Loss),
        default="standard",
        help="what the rule lessens; normalised does not depend on a layer's width "
        "(default: standard)",
    )
    parser.add_argument(
        "--triangular",
        action="store_true",
        help="a triangular transform of plain channels in place of one of patches",
    )
    parser.add_argument(
        "--decorrelation-share",
        metavar="SHARE",
        type=float,
        default=defaults.SHARE,
        help=f"of a batch's samples that the rule learns from (default: {defaults.SHARE:g})",
    )
    parser.add_argument(
        "--decorrelation-points",
        metavar="N",
        type=int,
        default=defaults.POINTS,
        help=f"positions of each of these samples (default: {defaults.POINTS})",
    )
    parser.add_argument(
        "--decorrelate", metavar="REGEX", help="only layers whose node matches (default: all)"
    )


def decorrelation_options(settings: Mapping[str, Any]) -> DecorrelationOptions:
    """The options that flags state, or settings named like them.

    Raises:
        ValueError: they make no sense.
    """
    given = {SETTINGS[name]: value for name, value in settings.items() if name in SETTINGS}
    return DecorrelationOptions(**given)


def check(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings that make no sense."""
    decorrelation_options(settings)


def decorrelated(
    network: TrainableNetwork, model: onnx.ModelProto, settings: Mapping[str, Any]
) -> Method:
    """The method itself."""
    from onnxprune.train.decorrelation import Decorrelation

    return Decorrelation(network, model, decorrelation_options(settings))
