"""Methods of training by name. Nothing here needs torch before one is made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    from onnxprune.train.method import Method
    from onnxprune.train.network import TrainableNetwork


@dataclass(frozen=True)
class Entry:
    """A method that can be asked for by its name.

    Attributes:
        description: what it is, in a line.
        add_arguments: enters its flags into a parser; their destinations name its settings.
        make: makes it for a network, the model that the network is of, and its settings.
    """

    description: str
    add_arguments: Callable[[argparse._ActionsContainer], None]
    make: Callable[[TrainableNetwork, onnx.ModelProto, Mapping[str, Any]], Method]


def _no_arguments(parser: argparse._ActionsContainer) -> None:
    """Enter no flags."""


def _backpropagation(
    network: TrainableNetwork, model: onnx.ModelProto, settings: Mapping[str, Any]
) -> Method:
    from onnxprune.train.method import Backpropagation

    return Backpropagation()


METHODS: dict[str, Entry] = {
    "backprop": Entry("gradients and nothing else", _no_arguments, _backpropagation),
}
