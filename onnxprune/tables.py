"""Rows of text in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], numbers: int = 0) -> list[str]:
    """One line per row, every column as wide as its widest cell.

    Args:
        rows: cells, equally many in each row.
        numbers: how many of the first columns hold numbers, which stand on the right.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place < numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
