"""Which distribution of onnxruntime is installed, and what to do if it is not exactly one."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata

FLAVOURS = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-gpu",
    "onnxruntime-migraphx",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-training",
    "onnxruntime-training-cpu",
    "onnxruntime-windowsml",
    "ort-nightly",
    "ort-nightly-gpu",
)
"""Distributions that provide the module onnxruntime.

Asking for each by name is quick; finding out which distributions provide a module reads the file
lists of all that are installed.
"""


def flavour_advice(
    installed: Sequence[str],
    system: str = sys.platform,
    machine: str = platform.machine(),
) -> str | None:
    """What to do about the installed distributions of onnxruntime; None when there is one.

    Args:
        installed: names of the distributions that provide the module ``onnxruntime``.
        system: as ``sys.platform``.
        machine: as ``platform.machine()``.
    """
    has_gpu_wheels = (system, machine) in {("linux", "x86_64"), ("win32", "AMD64")}
    wanted = "onnxruntime-gpu" if has_gpu_wheels else "onnxruntime"
    if not installed:
        return f"onnxruntime is missing: install it with `pip install {wanted}`"
    if len(installed) == 1:
        return None
    names = sorted(installed)
    return (
        f"several distributions overwrite each other's onnxruntime: {', '.join(names)}; run "
        f"`pip uninstall {' '.join(names)}`, then `pip install` only the one you want "
        f"({wanted} on this platform)"
    )


def installed_flavours() -> list[str]:
    """Names of the distributions that provide the module onnxruntime."""
    found = []
    for name in FLAVOURS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            metadata.distribution(name)
            found.append(name)
    return sorted(found)


def check_flavours() -> None:
    """Warn of several flavours, which overwrite each other.

    Raises:
        ImportError: there is none.
    """
    installed = installed_flavours()
    advice = flavour_advice(installed)
    # A build from source may lack metadata and still work.
    if not installed and importlib.util.find_spec("onnxruntime") is None:
        raise ImportError(advice)
    if len(installed) > 1:
        warnings.warn(str(advice), stacklevel=2)
