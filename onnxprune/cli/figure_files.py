"""Files that figures are written to, and the library that draws them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onnxprune.errors import MissingLibraryError

ENDINGS = (".svg", ".png", ".pdf")


def check_ending(parser: argparse.ArgumentParser, figure: Path, others: Sequence[str] = ()) -> None:
    """The file's ending is that of a kind of figure that can be drawn, or another known one."""
    known = (*others, *ENDINGS)
    if figure.suffix.lower() not in known:
        parser.error(f"{figure}: name a file that ends in {', '.join(known)}")


@contextmanager
def needing_matplotlib() -> Iterator[None]:
    """Around imports of what draws: only a figure needs matplotlib, and only it pays for it.

    Raises:
        MissingLibraryError: matplotlib is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingLibraryError(
            f"plots need matplotlib ({error}); install it: pip install matplotlib, or this "
            "package with its extra [plot]"
        ) from error
