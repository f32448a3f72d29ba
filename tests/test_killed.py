"""The command when the system ends it: by SIGKILL, SIGTERM or Ctrl-C, at any time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import QUICK, files, finite, working_folder

from onnxprune.replacing import replacing
from onnxprune.scratch import SUFFIX, sweep

READY = "ready"
PLANTED = """
import sys, time
from onnxprune import api, cli
from onnxprune.executor import InProcess

def stop(*_, **__):
    print("ready", flush=True)
    time.sleep(60)

setattr({owner}, {name!r}, stop)
raise SystemExit(cli.main(sys.argv[1:]))
"""
PLACES = {
    "while samples run": ("InProcess", "map_reduce"),
    "while the result is checked": ("api", "check_file"),
}
WORDS = ("in.onnx", "out.onnx", "--calib", "calib.npz", *QUICK, "--report", "r.json", "--quiet")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("ONNXPRUNE_CACHE", "")
    found = working_folder(tmp_path / "work", monkeypatch)
    (found / "out.onnx").write_text("precious", encoding="utf-8")
    return found


def begun(code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_ended_at_a_planted_place(folder, place, number, code):
    owner, name = PLACES[place]
    before = files(folder)
    with begun(PLANTED.format(owner=owner, name=name), *WORDS) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == READY
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert files(folder) == before
    assert [p.name for p in folder.iterdir() if p.is_dir()] == []
    assert list((folder.parent / "temporary").iterdir()) == []
    if number != signal.SIGKILL:
        assert said == "onnxprune: interrupted; nothing was written\n"


@pytest.mark.slow
def test_killed_at_any_time_the_output_is_old_or_new(folder):
    rng = random.Random(0)
    plain = "import sys; from onnxprune import cli; raise SystemExit(cli.main(sys.argv[1:]))"
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", plain, *WORDS], check=True)
    whole = time.monotonic() - started
    for _ in range(12):
        (folder / "out.onnx").write_text("precious", encoding="utf-8")
        with begun(plain, *WORDS) as process:
            time.sleep(rng.uniform(0.5, 1.1) * whole)
            process.kill()
        content = (folder / "out.onnx").read_bytes()
        assert content == b"precious" or finite("out.onnx")
    with replacing(folder / "r.json") as temporary:  # sweeps what a record has left
        temporary.write_text("{}", encoding="utf-8")
    assert sorted(p.name for p in folder.iterdir()) == [
        "calib.npz",
        "in.onnx",
        "out.onnx",
        "r.json",
    ]


SPILLING = """
import os, signal, sys
import numpy as np
from onnxprune.tensor_store import TensorStore

store = TensorStore(0)
store.replace(0, (), {"x": np.ones(1000)})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_has_spilled_goes_with_the_next(folder):
    place = folder.parent / "temporary"
    done = subprocess.run([sys.executable, "-c", SPILLING], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = place.iterdir()
    assert left.name.endswith(SUFFIX)
    assert list(left.iterdir())
    (place / "of somebody else").mkdir()
    sweep("", place)
    assert os.listdir(place) == ["of somebody else"]
