"""The flags of training with gates, and the methods that they are for. Nothing here needs torch."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import onnx

from onnxprune.train.gate_options import ESTIMATORS, GateOptions

if TYPE_CHECKING:
    from onnxprune.train.method import Method
    from onnxprune.train.network import TrainableNetwork

OF_UNITS: Mapping[str, Any] = {
    "price": 5e-4, "initial": 0.8, "every": 1, "estimator": "gradient",
}  # fmt: skip
"""Defaults of unit pruning: units are many, most of them on at a time, and all measured at once."""
BYPASSES = ("none", "unchanged", "fresh")
NAMES = {"theta": "initial", "warmup": "warm_up"}
"""Flags that are not named as the settings are."""


def add_section_flags(parser: argparse._ActionsContainer) -> None:
    """Enter the flags of layer pruning."""
    _add_flags(parser, "section", GateOptions())
    parser.add_argument(
        "--section-estimator",
        choices=ESTIMATORS,
        default=GateOptions().estimator,
        help="how what a section is worth is measured: by the loss with and without it, or by the "
        "gradient (default: %(default)s)",
    )
    parser.add_argument(
        "--bypasses",
        choices=BYPASSES,
        default="none",
        help="linear bypasses around the layers of plain chains: 'unchanged' start at zero and "
        "leave the function as it is, 'fresh' start at the identity, for --fresh "
        "(default: %(default)s)",
    )


def add_unit_flags(parser: argparse._ActionsContainer) -> None:
    """Enter the flags of unit pruning."""
    _add_flags(parser, "unit", GateOptions(**OF_UNITS))


def _add_flags(parser: argparse._ActionsContainer, what: str, default: GateOptions) -> None:
    for flag, metavar, kind, text in (
        ("price", "X", float, f"nats per sample that a {what} has to be worth to stay"),
        ("log-gamma", "X", float, "the same over all samples, |log gamma|; instead of the price"),
        ("rate", "X", float, "step size of theta, the chance to be on"),
        ("theta", "X", float, "theta at the start"),
        ("floor", "X", float, f"theta is at least this until a {what} is pruned"),
        ("warmup", "SHARE", float, "part of the training in which theta stays where it is"),
        ("every", "STEPS", int, "from one measurement to the next"),
        ("tolerance", "X", float, f"theta up to which a {what} may be pruned"),
        (
            "decay",
            "SHARE",
            float,
            f"of its last weights that a {what} which is off loses in a step",
        ),
        ("decayed", "SHARE", float, "of these weights that may be left when it is pruned"),
        ("tests", "N", int, "in a row that it has to pass"),
        ("test-every", "STEPS", int, "from one test to the next"),
    ):
        value = getattr(default, NAMES.get(flag, flag.replace("-", "_")))
        note = "" if value is None else f" (default: {value})"
        parser.add_argument(
            f"--{what}-{flag}", metavar=metavar, type=kind, default=value, help=f"{text}{note}"
        )


def gate_options(what: str, settings: Mapping[str, Any]) -> GateOptions:
    """The options that flags state, or settings named like them.

    Args:
        what: "section" or "unit".
        settings: such as ``section_price``; those that are missing have their defaults.

    Raises:
        ValueError: they make no sense.
    """
    given = {name.removeprefix(f"{what}_"): value for name, value in settings.items()}
    named = {NAMES.get(name, name): value for name, value in given.items()}
    known = {field.name for field in fields(GateOptions)}
    if what == "unit":
        named = {**OF_UNITS, **named}
    return GateOptions(**{name: value for name, value in named.items() if name in known})


def check_sections(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of layer pruning that make no sense."""
    gate_options("section", settings)
    if settings.get("bypasses", "none") not in BYPASSES:
        raise ValueError(f"bypasses are {', '.join(BYPASSES)}, not '{settings['bypasses']}'")


def check_units(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for settings of unit pruning that make no sense."""
    gate_options("unit", settings)


def bypassed(model: onnx.ModelProto, settings: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with the bypasses that are asked for."""
    start = settings.get("bypasses", "none")
    if start == "none":
        return model
    from onnxprune.train.bypasses import with_bypasses
    from onnxprune.train.gated_sections import inlined

    return with_bypasses(inlined(model), start=start, seed=settings.get("seed", 0)).model


def layer_pruning(
    network: TrainableNetwork, model: onnx.ModelProto, settings: Mapping[str, Any]
) -> Method:
    """The method of layer pruning."""
    from onnxprune.train.layer_pruning import LayerPruning

    options = gate_options("section", settings)
    return LayerPruning(network, model, options, **_run(settings))


def unit_pruning(
    network: TrainableNetwork, model: onnx.ModelProto, settings: Mapping[str, Any]
) -> Method:
    """The method of unit pruning."""
    from onnxprune.train.unit_pruning import UnitPruning

    return UnitPruning(network, model, gate_options("unit", settings), **_run(settings))


def _run(settings: Mapping[str, Any]) -> dict[str, int]:
    return {"samples": int(settings["samples"]), "seed": int(settings["seed"])}
