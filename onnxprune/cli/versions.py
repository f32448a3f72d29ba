"""``--version``: what is installed, as a report of a fault should state it."""

from __future__ import annotations

import argparse
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

LIBRARIES = ("onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scipy")


def versions() -> str:
    """The versions of the package, the interpreter and the libraries that results depend on."""
    found = [f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f"onnxprune {version('onnxprune')} ({', '.join(found)})"


class VersionAction(argparse.Action):
    """Prints the versions and ends; they are looked up only then."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print them."""
        print(versions())
        parser.exit()
