"""Where things are kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

FOLDER_VARIABLE = "ONNXPRUNE_CACHE"
"""Environment variable that names another folder; empty for none at all."""


def chosen_folder() -> Path | None:
    """The folder that the user has named in the environment, if any."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen) if chosen else None


def cache_folder() -> Path | None:
    """The folder the user chose, or the one the system has for caches; None for no cache."""
    if FOLDER_VARIABLE in os.environ:
        return chosen_folder()
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"], "onnxprune")
    root = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(root if root else Path.home() / ".cache", "onnxprune")
    except RuntimeError:  # no home
        return None
