"""The command ``onnxprune``: one module per command, which parses, calls the library and prints."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from onnxprune.cli import apply, inspect, ops, plot, prune, train
from onnxprune.cli.json_output import Document, document, report_usage
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
    "inspect": inspect,
    "ops": ops,
    "plot": plot,
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
    if "--json" not in words:
        return _carried_out(command, words, None)
    with document() as made:
        return _carried_out(command, words, made)


def _carried_out(command: Command, words: Sequence[str], made: Document | None) -> int:
    """The exit code; what went wrong is said on standard error, and in the document if any."""
    parser = command.parser()
    if made is not None:
        report_usage(parser, made)
    try:
        code = command.run(parser, parser.parse_args(words))
        sys.stdout.flush()
        return code
    except OnnxPruneError as error:
        print(f"onnxprune: {error}", file=sys.stderr)
        if made is not None:
            made.fail(type(error).__name__, str(error), EXIT_REFUSED)
        return EXIT_REFUSED
    except BrokenPipeError:  # printing comes last, and a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt as stop:
        message = f"interrupted; {str(stop) or 'nothing was written'}"
        print(f"onnxprune: {message}", file=sys.stderr)
        if made is not None:
            made.fail("Interrupted", message, EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
