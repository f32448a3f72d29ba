"""The command ``onnxprune``: one module per command, which parses, calls the library and prints."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from onnxprune.cli.commands import COMMANDS, PRUNE, hint
from onnxprune.cli.config import parse
from onnxprune.errors import OnnxPruneError

__all__ = ["COMMANDS", "main"]

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130


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
    except KeyboardInterrupt as stop:
        print(f"onnxprune: interrupted; {str(stop) or 'nothing was written'}", file=sys.stderr)
        return EXIT_INTERRUPTED
