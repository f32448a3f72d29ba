"""Values of flags: from a word to what it stands for."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from onnxprune.alignment import Align
from onnxprune.durations import seconds_in


def align(text: str) -> Align:
    """``auto`` or a number of channels."""
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"write auto or a number, not '{text}'") from None


def positive(text: str) -> int:
    """A whole number from 1."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        found = int(text)
    except ValueError:
        found = least - 1
    if found < least:
        raise argparse.ArgumentTypeError(f"write a whole number from {least}, not '{text}'")
    return found


def share(text: str) -> float:
    """A share from 0 to 1, as 0.99 or 99%."""
    found = bound(text)
    if found > 1:
        raise argparse.ArgumentTypeError(f"write a share as 99% or 0.99, not '{text}'")
    return found


def bound(text: str) -> float:
    """A number from 0, as 0.05 or 5%."""
    number = text.strip()
    try:
        found = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"write a number as 0.05 or 5%, not '{text}'")
    return found


def numbers(text: str) -> tuple[float, ...]:
    """Numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"write a number, or one per channel as 0.5,0.5,0.5, not '{text}'"
        ) from None


def size(text: str) -> tuple[int, int]:
    """Height and width, as 224x224."""
    try:
        height, width = extents(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"write height and width as 224x224, not '{text}'"
        ) from None
    return height, width


def memory(text: str) -> int:
    """Bytes, as 512MB, 2GB (powers of 1000), 1GiB (powers of 1024) or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if found is None or (found[3] and not found[2]):
        raise argparse.ArgumentTypeError(f"write a size as 512MB, 2GB or 1GiB, not '{text}'")
    count = float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " ")
    if not math.isfinite(count):
        raise argparse.ArgumentTypeError("no machine has as much memory; write a size as 2GB")
    return int(count)


def seconds(text: str) -> float:
    """A time, as 90, 90s, 10m or 2h."""
    found = seconds_in(text)
    if found is None:  # a plain number is one of seconds
        found = seconds_in(f"{text}s")
    if found is None:
        raise argparse.ArgumentTypeError(f"write a time as 90s, 10m or 2h, not '{text}'")
    return found


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The name of an input and its shape, as name:1x3x224x224; the name may hold colons."""
    name, _, shape = text.rpartition(":")
    try:
        found = extents(shape)
    except ValueError:
        found = ()
    if not name or not found or min(found) < 1:
        raise argparse.ArgumentTypeError(
            f"write an input and its shape as name:1x3x224x224, not '{text}'"
        )
    return name, found


def named(text: str) -> tuple[str, str] | None:
    """An input and its source, as name=source; None for a source that stands alone.

    What exists as it is written is a file with that name.
    """
    name, separator, source = text.partition("=")
    if not separator or not name or not source or Path(text).exists():
        return None
    return name, source


def extents(text: str) -> tuple[int, ...]:
    """Whole numbers with x or commas between them."""
    return tuple(int(part) for part in text.replace(",", "x").split("x"))
