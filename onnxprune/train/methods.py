"""Methods of training by name. Nothing here needs torch before one is made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from onnxprune.train import decorrelation_flags as decorrelation
from onnxprune.train import gate_flags as gates

if TYPE_CHECKING:
    from onnxprune.train.method import Method
    from onnxprune.train.network import TrainableNetwork


@dataclass(frozen=True)
class Entry:
    """A method that can be asked for by its name.

    Attributes:
        description: what it is, in a line.
        add_arguments: enters its flags into a parser; their destinations name its settings.
        make: makes it for a network, the model that the network is of, and its settings, beside
            which are ``samples``, how many there are to learn from, and the ``seed``.
        check: raises ValueError for settings that make no sense.
        prepare: the model to make the network of, by the given one and the settings, the seed
            beside them.
        cuts: whether it makes the network smaller on the way.
    """

    description: str
    add_arguments: Callable[[argparse._ActionsContainer], None]
    make: Callable[[TrainableNetwork, onnx.ModelProto, Mapping[str, Any]], Method]
    check: Callable[[Mapping[str, Any]], None] = lambda settings: None
    prepare: Callable[[onnx.ModelProto, Mapping[str, Any]], onnx.ModelProto] = (
        lambda model, settings: model
    )
    cuts: bool = False


def _no_arguments(parser: argparse._ActionsContainer) -> None:
    """Enter no flags."""


def _backpropagation(
    network: TrainableNetwork, model: onnx.ModelProto, settings: Mapping[str, Any]
) -> Method:
    from onnxprune.train.method import Backpropagation

    return Backpropagation()


METHODS: dict[str, Entry] = {
    "backprop": Entry("gradients and nothing else", _no_arguments, _backpropagation),
    "decorrelated": Entry(
        "every layer learns to read uncorrelated inputs",
        decorrelation.add_flags,
        decorrelation.decorrelated,
        decorrelation.check,
    ),
    "layer-pruning": Entry(
        "gates on residual sections; those that are not worth their price are cut out",
        gates.add_section_flags,
        gates.layer_pruning,
        gates.check_sections,
        gates.bypassed,
        cuts=True,
    ),
    "unit-pruning": Entry(
        "gates on channels; those that are not worth their price are cut out in the end",
        gates.add_unit_flags,
        gates.unit_pruning,
        gates.check_units,
        cuts=True,
    ),
}
