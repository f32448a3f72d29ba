"""``onnxprune completion``: a script that completes the commands and flags in a shell."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from onnxprune.cli.commands import COMMANDS, PRUNE
from onnxprune.errors import MissingLibraryError

SHELLS = ("bash", "zsh", "fish", "tcsh")
EXAMPLES = """\
where shells look for such scripts:
  onnxprune completion bash > ~/.local/share/bash-completion/completions/onnxprune
  onnxprune completion zsh > ~/.zfunc/_onnxprune        # with fpath+=~/.zfunc before compinit
  onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish
  onnxprune completion tcsh > ~/.onnxprune.tcsh         # with source ~/.onnxprune.tcsh in ~/.tcshrc

Make it again after an update. Needs shtab, which the extra [completion] installs.
"""
PROGRAM = "onnxprune"
PREFIX = f"_shtab_{PROGRAM}"
PATHS = ("FILE", "DATA")
"""What the name of a flag's value holds that is a path without having its type."""

BASH = f"{PREFIX}_pos_0_COMPGEN=_shtab_compgen_files\n"
"""The first word is a command or a file."""
FISH = (
    f"complete -c {PROGRAM} -n '{PREFIX}_using; and test ${PREFIX}_npos -eq 0' "
    "-ka '(__fish_complete_path (commandline -ct))' -d 'the trained model'\n"
)
ZSH = f"""\
functions[{PREFIX}_words]=$functions[{PREFIX}_commands]
{PREFIX}_commands() {{ {PREFIX}_words; _files }}
"""
TCSH = f"'p/1/`echo {' '.join(COMMANDS)}; ls -d *`/'"
TCSH_REST = "'p/*/()/'", "'p/*/f/'"
"""Words that shtab has nothing for are files."""


def parser() -> argparse.ArgumentParser:
    """The words and flags of the command."""
    parser = argparse.ArgumentParser(
        prog="onnxprune completion",
        description="Print a script that completes commands, flags and their values in a shell.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def run(_: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Print the script and return the exit code."""
    try:
        import shtab
    except ImportError as error:
        raise MissingLibraryError(
            f"completion scripts need shtab ({error}); install it: pip install shtab, or this "
            "package with its extra [completion]"
        ) from error
    print(script(shtab, given.shell), end="")
    return 0


def script(shtab: ModuleType, shell: str) -> str:
    """The script for a shell.

    Args:
        shtab: the library that makes it.
        shell: one of ``SHELLS``.
    """
    preamble = {"bash": BASH, "zsh": ZSH}
    root = _root(shtab, first_word_only=shell == "zsh")
    made: str = shtab.complete(root, shell=shell, preamble=preamble)
    if shell == "zsh":
        return "\n".join(_with_default(made.splitlines())) + "\n"
    if shell == "tcsh":
        return made.replace(f"'p/1/({' '.join(COMMANDS)})/'", TCSH).replace(*TCSH_REST) + "\n"
    return made + "\n" + (FISH if shell == "fish" else "")


def _root(shtab: ModuleType, *, first_word_only: bool) -> argparse.ArgumentParser:
    """One parser of all commands, as shtab takes it.

    Pruning has no word of its own, and argparse knows no command whose word is missing: in the
    place of the model stand the words of the others.

    Args:
        shtab: the library that completes paths.
        first_word_only: whether all that follows the first word is left to the commands, of which
            pruning is one then.
    """
    root = PRUNE.parser()
    positionals = root._get_positional_actions()
    for action in positionals if first_word_only else positionals[:1]:
        root._remove_action(action)
    words = root.add_subparsers()
    words.nargs = None  # one word, and no rest of the line, which shtab would take it for
    root._actions.insert(0, root._actions.pop())
    every = [*COMMANDS.values(), *[PRUNE] * first_word_only]
    for command in every:
        inner = words.add_parser(command.name, help=command.summary, add_help=False)
        own = command.parser()
        inner.description = command.summary
        inner._actions = own._actions
    for command_parser in (root, *words.choices.values()):
        for action in command_parser._actions:
            if _is_path(action):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return root


def _is_path(action: argparse.Action) -> bool:
    named = isinstance(action.metavar, str) and any(part in action.metavar for part in PATHS)
    return action.choices is None and (action.type is Path or named)


def _with_default(lines: list[str]) -> Iterator[str]:
    """A zsh script in which a first word that is no command is a model to prune."""
    case = f"{PRUNE.name}) "
    default = next(line for line in lines if line.lstrip().startswith(case))
    for line in lines:
        if line.strip() == "esac" and default:
            yield default.replace(case, "*) ", 1)
            default = ""
        listed = line.strip().startswith(f"{PRUNE.name}:")
        if not listed and not line.lstrip().startswith(case):
            yield line
