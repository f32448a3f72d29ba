"""Progress bars: on standard error, on a terminal only, and only for what takes a while."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import NoReturn, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

DELAY = 2.0
"""Seconds before a bar shows; whatever is faster needs none."""


def shown(
    items: Iterable[Item], label: str, *, progress: bool = True, count: int | None = None
) -> Iterable[Item]:
    """The items, with a bar that counts them.

    Args:
        items: what is worked through.
        label: what the work is.
        progress: False for no bar at all.
        count: how many items there are; their own length where they have one.
    """
    return tqdm(
        items,
        desc=label,
        total=len(items) if count is None and isinstance(items, Sized) else count,
        delay=DELAY,
        leave=False,
        disable=None if progress else True,  # None: off unless standard error is a terminal
    )


def counter(
    label: str, total: float, *, start: float = 0, progress: bool = True, unit: str = "it"
) -> tqdm[NoReturn]:
    """A bar that is moved by hand.

    Args:
        label: what the work is.
        total: how far it goes.
        start: how far it is already.
        progress: False for no bar at all.
        unit: what is counted.
    """
    counted = "{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} {unit}"
    bar: tqdm[NoReturn] = tqdm(
        desc=label,
        total=total,
        initial=start,
        unit=unit,
        delay=DELAY,
        leave=False,
        bar_format=f"{{desc}}: {counted} [{{remaining}} left{{postfix}}]",
        disable=None if progress else True,
    )
    return bar
