"""The same model, samples, settings and seed make the same file, whatever else differs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
from small_networks import MODELS

WORDS = ("--target", "macs=0.5", "--quiet")


def digests(folder, name: str, *words: str, **environment: str) -> dict[str, str]:
    """What a process of its own makes of the digits' networks."""
    model, samples = MODELS / f"{name}.onnx", MODELS / "digits_calib.npz"
    made = {kind: folder / f"made.{kind}" for kind in ("onnx", "json", "npz")}
    given = (str(model), str(made["onnx"]), "--calib", str(samples), "--plan", str(made["json"]))
    subprocess.run(
        [sys.executable, "-m", "onnxprune", *given, "--num-samples", "120", *WORDS, *words],
        env=os.environ | environment,
        check=True,
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_digits", "resnet_digits"])
def test_bytes_of_several_processes(tmp_path, name):
    first = digests(tmp_path, name, PYTHONHASHSEED="0")
    assert len(first) >= 2
    assert digests(tmp_path, name, PYTHONHASHSEED="1") == first
    assert digests(tmp_path, name, "--max-memory", "1MB", PYTHONHASHSEED="2") == first
