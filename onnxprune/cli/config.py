"""``--config file.toml``: flags from a file, which those of the command line override.

Keys are the long flags without dashes in front. At the top level they are for whichever command
is called; those in a table named after a command (``[prune]`` for the one without a word) are for
that command and come before those at the top level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, cast

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_IN_FILES = ("config", "help", "version")
LISTED = 3
"""Keys that an unknown one may have been meant for."""


def parse(
    parser: argparse.ArgumentParser, words: Sequence[str], command: str, commands: Sequence[str]
) -> argparse.Namespace:
    """What words and the file that they name state together.

    Args:
        parser: of the command, with a flag ``--config``.
        words: the command line.
        command: the command's table in the file.
        commands: the tables of all commands.
    """
    file = _named(words)
    if file is None:
        return parser.parse_args(words)
    flags = _flags(parser)
    stated = _keys(parser, file, command, commands, flags)
    values = {key: _Reader(parser, file, key)(flags[key], value) for key, value in stated.items()}
    for key in values:
        flags[key].required = False
    given, typed = _parsed(parser, words)
    exclusive = _exclusive(parser, file, values, flags)
    for key, value in values.items():
        dest = flags[key].dest
        if not typed & {dest, *exclusive.get(key, ())}:
            setattr(given, dest, value)
    return given


def _named(words: Sequence[str]) -> Path | None:
    """The file that ``--config`` names, if it does."""
    finder = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    finder.add_argument("--config", type=Path)
    try:
        return cast("Path | None", finder.parse_known_args(words)[0].config)
    except argparse.ArgumentError:  # without a file; the command's own parser says so
        return None


def _flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Key -> the flag that it stands for."""
    return {
        flag.removeprefix("--"): action
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--") and not _negates(action, flag)
        if flag.removeprefix("--") not in NOT_IN_FILES
    }


def _negates(action: argparse.Action, flag: str) -> bool:
    return isinstance(action, argparse.BooleanOptionalAction) and flag.startswith("--no-")


def _keys(
    parser: argparse.ArgumentParser,
    file: Path,
    command: str,
    commands: Sequence[str],
    flags: Mapping[str, argparse.Action],
) -> dict[str, Any]:
    """Keys of the file that are for the command, and their values as TOML has them."""
    content = _content(parser, file)
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    for name in tables:
        if name not in commands:
            close = _close(name, commands)
            parser.error(f"{file}: there is no command for the table [{name}]; {close}")
    top = {key: value for key, value in content.items() if key not in tables}
    for where, table in (("", top), (f" in [{command}]", tables.get(command, {}))):
        for key in table:
            if key not in flags:
                close = _close(key, list(flags))
                parser.error(
                    f"{file}: there is no flag --{key} for the key '{key}'{where}; {close}"
                )
    return top | tables.get(command, {})


def _close(word: str, known: Sequence[str]) -> str:
    found = get_close_matches(word, known, n=LISTED)
    return f"did you mean {' or '.join(found)}?" if found else f"known: {', '.join(sorted(known))}"


def _content(parser: argparse.ArgumentParser, file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        parser.error(f"--config {file}: cannot be read ({error.strerror})")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        parser.error(f"--config {file}: is not TOML ({error})")


class _Reader:
    """From a value of the file to that of a flag."""

    def __init__(self, parser: argparse.ArgumentParser, file: Path, key: str) -> None:
        self._parser, self._file, self._key = parser, file, key

    def __call__(self, action: argparse.Action, value: object) -> Any:
        """What the flag would be if the value had been written on the command line."""
        if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0:
            return self._switch(action, value)
        once = isinstance(action, argparse._StoreAction)
        if once and action.nargs not in ("+", "*"):
            return self._single(action, value)
        items = value if isinstance(value, list) else [value]
        if not items:
            self._refuse("an empty list", "a value, or a list of some")
        found = [self._single(action, item) for item in items]
        return found if once else self._repeated(action, found)

    def _repeated(self, action: argparse.Action, values: list[Any]) -> Any:
        """What a flag makes of being given several times."""
        made = argparse.Namespace(**{action.dest: action.default})
        try:
            for value in values:
                action(self._parser, made, value, f"--{self._key}")
        except argparse.ArgumentError as error:
            self._parser.error(f"{self._file}: key '{self._key}': {error.message}")
        return getattr(made, action.dest)

    def _switch(self, action: argparse.Action, value: object) -> Any:
        if not isinstance(value, bool):
            self._refuse(_spelt(value), "true or false")
        if isinstance(action, argparse.BooleanOptionalAction):
            return value
        constant: Any = action.const
        return constant if value else action.default

    def _single(self, action: argparse.Action, value: object) -> Any:
        wanted = _wanted(action)
        text = self._text(action, value, wanted)
        try:
            found = self._parser._get_value(action, text)
            self._parser._check_value(action, found)
        except argparse.ArgumentError as error:
            self._parser.error(f"{self._file}: key '{self._key}': {error.message}")
        return found

    def _text(self, action: argparse.Action, value: object, wanted: str) -> str:
        """The value as a word, if it is of the right kind."""
        kind = action.type
        if isinstance(value, bool) or not isinstance(value, str | int | float | list):
            self._refuse(_spelt(value), wanted)
        if kind is int and not isinstance(value, int):
            self._refuse(_spelt(value), wanted)
        if kind is float and not isinstance(value, int | float):
            self._refuse(_spelt(value), wanted)
        if kind in (None, str, Path) and not isinstance(value, str):
            self._refuse(_spelt(value), wanted)
        if not isinstance(value, list):
            return str(value)
        if kind in (int, float) or any(isinstance(v, bool | str | list | dict) for v in value):
            self._refuse("a list", wanted)
        return ",".join(map(str, value))  # one value of several numbers, such as a mean

    def _refuse(self, found: str, wanted: str) -> NoReturn:
        self._parser.error(f"{self._file}: key '{self._key}' is {found}; write {wanted}")


def _wanted(action: argparse.Action) -> str:
    if action.choices is not None:
        return f"one of {', '.join(map(str, action.choices))}"
    known: dict[Any, str] = {int: "a whole number", float: "a number"}
    return known.get(action.type, f"a text such as {action.metavar or 'the flag takes'}")


def _spelt(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    kinds = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _parsed(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.Namespace, set[str]]:
    """What the words state, and where argparse stores what they state and defaults do not."""
    typed: set[str] = set()
    plain = parser._get_values

    def values(action: argparse.Action, strings: list[str]) -> Any:
        typed.add(action.dest)
        return plain(action, strings)

    parser._get_values = values  # type: ignore[assignment,method-assign]
    try:
        return parser.parse_args(words), typed
    finally:
        del parser._get_values


def _exclusive(
    parser: argparse.ArgumentParser,
    file: Path,
    values: Mapping[str, object],
    flags: Mapping[str, argparse.Action],
) -> dict[str, set[str]]:
    """Key -> where the flags are stored that cannot be given beside it."""
    found: dict[str, set[str]] = {}
    for group in parser._mutually_exclusive_groups:
        members = [key for key in values if flags[key] in group._group_actions]
        asked = [key for key in members if values[key] != flags[key].default]
        if len(asked) > 1:
            parser.error(f"{file}: keys '{asked[0]}' and '{asked[1]}' exclude each other")
        for key in members:
            found.setdefault(key, set()).update(action.dest for action in group._group_actions)
    return found
