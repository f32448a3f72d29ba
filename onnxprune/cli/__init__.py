"""The command ``onnxprune``: one module per command, which parses, calls the library and prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from onnxprune.cli import apply, cache, inspect, ops, plan, plot, prune, sweep, train
from onnxprune.errors import OnnxPruneError

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130


class Command(Protocol):
    """What the module of a command offers."""

    def parser(self) -> argparse.ArgumentParser:
        """What the command understands."""

    def run(self, parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
        """Carry it out and return the exit code."""


COMMANDS: Mapping[str, Command] = {
    "apply": apply,
    "cache": cache,
    "inspect": inspect,
    "ops": ops,
    "plan": plan,
    "plot": plot,
    "sweep": sweep,
    "train": train,
}
"""The commands that are called by a first word of their own; without one, it is ``prune``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    A first word that is a command's name is that command; anything else is the model to prune,
    so a file of such a name is written with its folder, as ``./apply``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command: Command = prune
    if words and words[0] in COMMANDS:
        command = COMMANDS[words.pop(0)]
    parser = command.parser()
    try:
        code = command.run(parser, parser.parse_args(words))
        sys.stdout.flush()
        return code
    except OnnxPruneError as error:
        print(f"onnxprune: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except BrokenPipeError:  # printing comes last, and a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        print(f"onnxprune: interrupted; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return EXIT_INTERRUPTED
