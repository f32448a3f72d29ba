"""The command ``onnxprune``: one module per command, which parses, calls the library and prints."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from onnxprune.cli.commands import COMMANDS, PRUNE, Command, hint
from onnxprune.cli.config import parse
from onnxprune.cli.json_output import Document, document, report_usage
from onnxprune.cli.termination import Terminated, terminable
from onnxprune.errors import OnnxPruneError

__all__ = ["COMMANDS", "main"]

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    A first word that is a command's name is that command; anything else is the model to prune,
    so a file of such a name is written with its folder, as ``./apply``.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = PRUNE
    if words and words[0] in COMMANDS:
        command = COMMANDS[words.pop(0)]
    if "--json" not in words:
        return _carried_out(command, words, None)
    with document() as made:
        return _carried_out(command, words, made)


def _carried_out(command: Command, words: Sequence[str], made: Document | None) -> int:
    """The exit code; what went wrong is said on standard error, and in the document if any."""
    parser = command.parser()
    meant = hint(words[0]) if words and command is PRUNE else None
    if made is not None:
        report_usage(parser, made)
    if meant:
        parser.error(meant)
    try:
        with terminable():
            given = parse(parser, words, command.name, [PRUNE.name, *COMMANDS])
            name = [] if command is PRUNE else [command.name]
            given.typed = shlex.join(["onnxprune", *name, *words])
            code = command.run(parser, given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # printing comes last, and a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OnnxPruneError, OSError, MemoryError, KeyboardInterrupt) as error:
        kind, message, code = _told(error)
        print(f"onnxprune: {message}", file=sys.stderr)
        if made is not None:
            made.fail(kind, message, code)
        return code


def _told(error: BaseException) -> tuple[str, str, int]:
    """The kind of a failure, what is said of it, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        code = EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        return "Interrupted", f"interrupted; {str(error) or 'nothing was written'}", code
    if isinstance(error, MemoryError):
        advice = (
            "bound what is held with --max-memory, or give fewer samples with --num-samples or a "
            "smaller --batch"
        )
        why = str(error) or "no more can be had"
        return "MemoryError", f"out of memory ({why}); {advice}", EXIT_REFUSED
    if isinstance(error, OSError):
        parts = (error.filename, error.strerror or error)
        return "OSError", ": ".join(str(part) for part in parts if part), EXIT_REFUSED
    return type(error).__name__, str(error), EXIT_REFUSED
