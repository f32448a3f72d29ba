"""The commands by name; the module of each is imported when it is called."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from onnxprune.cli.versions import VersionAction

FIRST_COLUMN = 12
"""Width of the names in the list of commands."""


class Module(Protocol):
    """What the module of a command offers."""

    def parser(self) -> argparse.ArgumentParser:
        """What the command understands."""

    def run(self, parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
        """Carry it out and return the exit code."""


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: its module in ``onnxprune.cli``, its table in a ``--config`` file and, but for
            ``prune``, its first word.
        summary: what it does, in one line.
    """

    name: str
    summary: str

    @property
    def module(self) -> Module:
        """Its module."""
        return cast(Module, import_module(f"onnxprune.cli.{self.name}"))

    def parser(self) -> argparse.ArgumentParser:
        """What the command understands, with the flags that every command has."""
        parser = self.module.parser()
        parser.add_argument(
            "--config",
            metavar="FILE.toml",
            type=Path,
            help="take flags from a file: keys are long flags without dashes, those of one "
            f"command in a table [{self.name}]; flags given here win",
        )
        parser.add_argument("--version", action=VersionAction, help="print versions and exit")
        return parser

    def run(self, parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
        """Carry it out and return the exit code."""
        return self.module.run(parser, given)


PRUNE = Command("prune", "make a model smaller")
"""What is called without a first word of its own."""

COMMANDS: Mapping[str, Command] = {
    command.name: command
    for command in (
        Command("apply", "cut a model as a saved plan says"),
        Command("bench", "latency of one or several models, measured in turns"),
        Command("cache", "statistics that are kept for later runs: list, info, clear, path"),
        Command("compare", "how far the outputs of two models are apart, with bounds for CI"),
        Command("completion", "a script that completes all this in bash, zsh, fish or tcsh"),
        Command("inspect", "what can be pruned, what cannot, and why; needs no samples"),
        Command("ops", "the operators that channels pass through"),
        Command("plan", "what a run would cut, and what is predicted of it; no model is made"),
        Command("plot", "a page or a figure of a report, or of the history of a training"),
        Command("sweep", "a model for each of several budgets, measured side by side"),
        Command("train", "train the weights of a classifier in its own graph; needs torch"),
    )
}
"""The commands that are called by a first word of their own."""


def listed() -> str:
    """A line for every command, for the help."""
    rows = {"IN OUT": PRUNE.summary} | {name: c.summary for name, c in COMMANDS.items()}
    lines = [f"  onnxprune {name:<{FIRST_COLUMN}}{summary}" for name, summary in rows.items()]
    return "\n".join(["commands (each has --help):", *lines])


def hint(word: str) -> str | None:
    """What was probably meant by a first word that is no command; None if it may be a model."""
    if word.startswith("-") or Path(word).suffix or Path(word).exists():
        return None
    if word == PRUNE.name:
        return "pruning has no word of its own: onnxprune IN OUT --calib DATA"
    close = get_close_matches(word, COMMANDS, n=1)
    if close:
        return f"'{word}' is no command and no file; did you mean: onnxprune {close[0]}"
    return None
