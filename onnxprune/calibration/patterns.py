"""Names that stand for several files: ``shard-{000..012}.tar``, ``part-*.parquet``."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from onnxprune.errors import CalibrationError

MAX_FILES = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(text: str) -> bool:
    """Whether a name that is no file may stand for several."""
    return bool(_BRACES.search(text)) or glob.has_magic(text)


def matched(pattern: str) -> list[Path]:
    """The files that a pattern stands for: those in braces in their order, others by name.

    Raises:
        CalibrationError: it stands for none, for one that is missing, or for absurdly many.
    """
    names = list(itertools.islice(_expanded(pattern), MAX_FILES + 1))
    if len(names) > MAX_FILES:
        raise CalibrationError(f"{pattern}: stands for more than {MAX_FILES} files; check it.")
    found: list[Path] = []
    for name in names:
        if glob.has_magic(name):
            found += [Path(path) for path in sorted(glob.glob(name, recursive=True))]
        elif Path(name).exists():
            found.append(Path(name))
        else:
            raise CalibrationError(f"{pattern}: stands for {name} among others, which is missing.")
    files = [path for path in dict.fromkeys(found) if path.is_file()]
    if not files:
        raise CalibrationError(f"{pattern}: stands for no file; check the pattern.")
    return files


def _expanded(text: str) -> Iterator[str]:
    """The text for every choice of its braces, those on the left changing last."""
    braces = _BRACES.search(text)
    if braces is None:
        yield text
        return
    inside = _RANGE.fullmatch(braces[1])
    if inside is None:
        choices: Iterator[str] = iter(braces[1].split(","))
    else:
        digits, first, last = len(inside[1]), int(inside[1]), int(inside[2])
        step = 1 if last >= first else -1
        choices = (f"{number:0{digits}}" for number in range(first, last + step, step))
    for choice in choices:
        for rest in _expanded(text[braces.end() :]):
            yield text[: braces.start()] + choice + rest
