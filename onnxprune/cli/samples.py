"""The flag that names calibration samples."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.cli import arguments

FILES = (
    ".npz, .npy, .parquet, .arrow or .tar, a folder of them or of images, a data set saved by "
    "Hugging Face datasets"
)
FORMS = f"{FILES}, file.py:function, or random; or repeat NAME=DATA, one for each input"


def add_samples(
    container: argparse._ActionsContainer,
    flag: str = "--calib",
    what: str = "unlabelled samples",
    *,
    required: bool = False,
) -> None:
    """Enter the flag; its value is a calibration source.

    Args:
        container: where to.
        flag: its name.
        what: it names.
        required: whether it has to be given.
    """
    container.add_argument(
        flag, metavar="DATA", action=_Source, required=required, help=f"{what}: {FORMS}"
    )


def samples_read(source: str | Mapping[str, str] | None, flag: str = "--calib") -> dict[str, Path]:
    """What a file or folder is -> its path, of those that a source names."""
    if source is None:
        return {}
    if isinstance(source, str):
        return {flag: Path(source)}
    return {f"{flag} {name}": Path(path) for name, path in source.items()}


class _Source(argparse.Action):
    """One source, or a dictionary of NAME=DATA, one for each input."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        text, before = str(values), getattr(namespace, self.dest)
        named = arguments.named(text)
        if named is None and before is not None:
            raise argparse.ArgumentError(
                self, f"is given twice; for several inputs write NAME=DATA each time, not '{text}'"
            )
        if named is None:
            setattr(namespace, self.dest, text)
            return
        if isinstance(before, str):
            raise argparse.ArgumentError(
                self, f"write NAME=DATA for every input, not '{before}' beside '{text}'"
            )
        name, source = named
        if name in (before or {}):
            raise argparse.ArgumentError(self, f"input '{name}' is given twice")
        setattr(namespace, self.dest, {**(before or {}), name: source})
