"""What every test of the command needs: a folder to work in, and a way to call it there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_networks import MODELS, digits

from onnxprune.cli import main
from onnxprune.runtime import Session

QUICK = ("--target", "macs=0.5", "--allocation", "uniform", "--criterion", "l2")
"""Settings under which a run takes no time."""


def working_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder made the current one, with the digits' perceptron and a few samples."""
    monkeypatch.chdir(path)
    shutil.copy(MODELS / "mlp_digits.onnx", "in.onnx")
    np.savez("calib.npz", input=digits()[:60])
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(*words: object, model: str = "in.onnx", out: str = "out.onnx") -> int:
    """The command on the files of the working folder; usage errors as their exit code."""
    given = [str(word) for word in words]
    if "--calib" not in given:
        given += ["--calib", "calib.npz"]
    try:
        return main([model, out, *given])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def command(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onnxprune", *map(str, words)],
        capture_output=True,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def finite(path: str) -> bool:
    return bool(np.isfinite(Session(path).run({"input": digits()[:3]})[0]).all())
