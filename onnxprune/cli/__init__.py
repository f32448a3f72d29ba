"""The command ``onnxprune``: one module per command, which parses, calls the library and prints."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from onnxprune.cli.commands import COMMANDS, PRUNE, hint
from onnxprune.cli.config import parse
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
    typed = shlex.join(["onnxprune", *words])
    command = PRUNE
    if words and words[0] in COMMANDS:
        command = COMMANDS[words.pop(0)]
    parser = command.parser()
    meant = hint(words[0]) if words and command is PRUNE else None
    if meant:
        parser.error(meant)
    try:
        with _terminable():
            given = parse(parser, words, command.name, [PRUNE.name, *COMMANDS])
            given.typed = typed
            code = command.run(parser, given)
        sys.stdout.flush()
        return code
    except OnnxPruneError as error:
        print(f"onnxprune: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except BrokenPipeError:  # printing comes last, and a reader such as `head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError as error:
        print(
            f"onnxprune: out of memory ({str(error) or 'no more can be had'}); bound what is held "
            "with --max-memory, or give fewer samples with --num-samples or a smaller --batch",
            file=sys.stderr,
        )
        return EXIT_REFUSED
    except KeyboardInterrupt as stop:
        print(f"onnxprune: interrupted; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return EXIT_TERMINATED if isinstance(stop, Terminated) else EXIT_INTERRUPTED


class Terminated(KeyboardInterrupt):
    """The process was asked to end: as with Ctrl-C, what is unfinished is cleared away."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated, unless the program around has other plans for it."""
    try:
        before = signal.getsignal(signal.SIGTERM)
        ours = before is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not in the main thread, where nobody can be told
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(_: int, __: FrameType | None) -> None:
    raise Terminated
