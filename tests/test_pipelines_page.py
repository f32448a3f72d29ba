"""docs/pipelines.md: its commands and blocks run one after the other, as a reader types them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import QUICK, run, working_folder
from small_networks import digits

from onnxprune import errors
from onnxprune.metadata import KEYS, PREVIOUS
from onnxprune.runtime import Session

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    path = working_folder(tmp_path, monkeypatch)
    np.savez("samples.npz", input=digits()[:200])
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    return path


def carried_out(language: str, text: str) -> None:
    code = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
    done = subprocess.run(code, capture_output=True, text=True)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(folder):
    pytest.importorskip("onnxslim")
    pytest.importorskip("onnxsim")
    blocks = BLOCK.findall(PAGE)
    assert [language for language, _ in blocks].count("console") == 3
    for language, text in blocks:
        carried_out(language, text)
    feed = {"input": digits("digits_test.npz")[:100]}
    (reference,) = Session("pruned.onnx").run(feed)
    limits = {"int8": 0.15, "slim": 1e-5, "simple": 1e-5, "half": 0.01, "optimised": 1e-5}
    for name, limit in limits.items():
        (found,) = Session(f"{name}.onnx").run(feed)
        assert np.linalg.norm(found - reference) <= limit * np.linalg.norm(reference), name
    record = json.loads(Path("record.json").read_text(encoding="utf-8"))
    assert [target["holds"] for target in record["targets"]] == [True, True]


def test_the_words_of_the_page_are_those_of_the_code(folder, capsys):
    shown = set(re.findall(r"`(onnxprune\.\w+)`", PAGE)) - {"onnxprune.errors"}
    assert shown == {*KEYS, PREVIOUS}
    (example,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    error = json.loads(example)["error"]
    assert hasattr(errors, error["type"])
    assert run("--json", "--target", "macs=0.0001", *QUICK[2:]) == error["exit_code"]
    said = json.loads(capsys.readouterr().out)["error"]
    assert said == error | {"message": said["message"]}


def test_the_commands_for_tensorrt_name_flags_with_values():
    (block,) = re.findall(r"^```text\n(trtexec.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = block.replace("\\\n", " ").splitlines()
    assert [shlex.split(line)[0] for line in lines] == ["trtexec"] * 2
    assert all("--onnx=" in line and "--saveEngine=" in line for line in lines)
