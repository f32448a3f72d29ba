"""Values of a saved report, read back as what they must be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def amounts(values: Sequence[Any]) -> list[float]:
    """Finite numbers, none negative."""
    return [amount(value) for value in values]


def maybe(value: Any) -> float | None:
    """A finite number, or none."""
    return None if value is None else number(value)


def amount(value: Any) -> float:
    """A finite number that is not negative."""
    found = number(value)
    if found < 0:
        raise ValueError(f"{value} stands where nothing negative should")
    return found


def whole(value: Any) -> int:
    """A whole number that is not negative."""
    found = amount(value)
    if found != int(found):
        raise ValueError(f"{value} stands where a whole number should")
    return int(found)


def number(value: Any) -> float:
    """A finite number."""
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value} stands where a finite number should")
    return found


def texts(values: Sequence[Any]) -> list[str]:
    """A list of words."""
    if isinstance(values, str):
        raise ValueError(f"'{values}' stands where a list should")
    return [str(value) for value in values]
