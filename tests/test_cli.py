"""The command: what a run leaves and prints."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import onnx
import pytest
from command_line import QUICK, command, files, finite, run, working_folder
from small_networks import accuracy

from onnxprune.allocation import ALLOCATIONS
from onnxprune.cli import main
from onnxprune.criteria import CRITERIA
from onnxprune.rewrite import digest


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def test_a_run_writes_one_model_and_prints_one_table(folder, capsys):
    before = files(folder)
    assert run(*QUICK) == 0
    said = capsys.readouterr()
    assert set(files(folder)) == {*before, "out.onnx"}
    assert files(folder)["in.onnx"] == before["in.onnx"]
    lines = said.out.splitlines()
    assert lines[0].split() == ["before", "after", "kept"]
    assert any(line.startswith("MACs") for line in lines)
    assert any(line.startswith("output logits: relative error") for line in lines)
    assert "\x1b" not in said.out + said.err


def test_the_first_batch_is_shown_on_standard_error(folder, capsys):
    assert run(*QUICK) == 0
    assert capsys.readouterr().err.splitlines() == [
        "60 samples: arrays of calib.npz",
        "input: float32 [8, 1, 8, 8], min 0, mean 0.2943, max 1",
    ]


def test_quiet_is_quiet(folder, capsys):
    assert run(*QUICK, "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert (folder / "out.onnx").exists()


def test_json_stands_alone_on_standard_output(folder, capsys):
    assert run(*QUICK, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["target"] == ["macs=0.5"]
    assert record["after"]["macs"] <= 0.5 * record["before"]["macs"]


def test_the_report_is_the_printed_record(folder, capsys):
    assert run(*QUICK, "--json", "--report", "report.json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((folder / "report.json").read_text(encoding="utf-8")) == printed
    model = onnx.load("out.onnx")
    (group,) = [g for g in printed["groups"] if g["name"] == "/1/Gemm"]
    weight = next(t for t in model.graph.initializer if t.dims[-1:] == [64])
    assert group["kept"] == weight.dims[0] < group["size"]


def test_a_run_leaves_a_record_and_its_page(folder, capsys):
    words = (*QUICK, "-q", "--report", "r.json", "--report", "a page.HTML")
    assert run(*words) == 0
    record = json.loads(Path("r.json").read_text(encoding="utf-8"))
    said = shlex.split(record["run"]["command"])
    assert said[:3] == ["onnxprune", "in.onnx", "out.onnx"]
    assert "a page.HTML" in said
    assert record["run"]["model"] == "in.onnx"
    assert record["run"]["digests"] == {
        "before": digest(onnx.load("in.onnx")),
        "after": digest(onnx.load("out.onnx")),
    }
    assert datetime.fromisoformat(record["run"]["started"]).utcoffset() is not None
    assert 0 < record["run"]["seconds"] < 600
    assert main(["plot", "r.json", "again.html"]) == 0
    assert Path("again.html").read_bytes() == Path("a page.HTML").read_bytes()
    assert b"in.onnx" in Path("again.html").read_bytes()
    assert capsys.readouterr() == ("", "")


def test_the_same_command_makes_the_same_bytes(folder):
    assert run("--target", "macs=0.5", "-q") == 0
    assert run("--target", "macs=0.5", "-q", out="again.onnx") == 0
    assert (folder / "out.onnx").read_bytes() == (folder / "again.onnx").read_bytes()


def test_verbose_says_no_less(folder, capsys):
    assert run(*QUICK, "-v") == 0
    assert "60 samples" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_every_criterion(folder, name):
    assert run("--target", "macs=0.5", "--allocation", "uniform", "--criterion", name, "-q") == 0
    assert finite("out.onnx")


@pytest.mark.parametrize("name", sorted(ALLOCATIONS))
def test_every_allocation(folder, name, capsys):
    assert run("--target", "macs=0.5", "--allocation", name, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["allocation"] == name
    assert record["after"]["macs"] <= 0.5 * record["before"]["macs"]


def test_no_recovery_is_further_away(folder, capsys):
    errors = []
    for words in ((), ("--no-recovery",)):
        assert run("--target", "macs=0.5", *words, "--json") == 0
        errors.append(json.loads(capsys.readouterr().out)["outputs"][0]["relative_error"])
    assert errors[0] < errors[1]


def test_counts_are_aligned(folder, capsys):
    assert run("--target", "macs=0.5", "--align", 8, "--json") == 0
    kept = [group["kept"] for group in json.loads(capsys.readouterr().out)["groups"]]
    assert len(kept) == 3
    assert all(count % 8 == 0 for count in kept)
    assert sum(kept) < 512


def test_include_and_exclude(folder, capsys):
    assert run("--target", "ratio=0.5", "--include", "/[13]/", "--exclude", "3", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [(g["name"], g["kept"]) for g in record["groups"]] == [("/1/Gemm", 96)]


def test_several_targets(folder, capsys):
    targets = ("--target", "params=0.6", "--target", "macs=30k", "--target", "ratio=0.3")
    assert run(*targets, "--allocation", "uniform", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["after"]["macs"] <= 30_000
    assert record["after"]["params"] <= 0.6 * record["before"]["params"]
    assert sum(g["kept"] for g in record["groups"]) <= 0.7 * 512


def test_without_a_target(folder):
    assert run("-q", "--num-samples", 50, "--batch", 7, "--seed", 3) == 0
    assert os.path.getsize("out.onnx") < os.path.getsize("in.onnx")


def test_the_process_prints_nothing_but_the_table(folder):
    done = command("in.onnx", "out.onnx", "--calib", "calib.npz", *QUICK)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["before", "after", "kept"]
    assert len(done.stderr.splitlines()) == 2
    record = command("in.onnx", "o.onnx", "--calib", "calib.npz", *QUICK, "--json", "-q")
    assert json.loads(record.stdout)["samples"]["held_out"] == 6
    assert record.stderr == ""


def test_exit_codes_of_the_process(folder):
    assert command("--help").returncode == 0
    refused = command("none.onnx", "out.onnx", "--calib", "calib.npz")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "onnxprune: none.onnx: no such file\n"
    misused = command("in.onnx")
    assert (misused.returncode, misused.stdout) == (2, "")


def test_help_lists_everything(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for word in (*CRITERIA, *ALLOCATIONS, "macs:", "params:", "ratio:", "exit codes".title()[:4]):
        assert word in said
    for flag in ("--calib", "--target", "--align", "--preset", "--report", "--plan", "--json"):
        assert flag in said


TORCH_FREE = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, NoTorch())
try:
    import torch
except ImportError:
    pass
else:
    sys.exit("torch was not blocked")
from onnxprune.cli import main
code = main(sys.argv[1:])
assert not any(name.split(".")[0] == "torch" for name in sys.modules)
sys.exit(code)
"""


def test_torch_is_not_needed(folder):
    words = ["in.onnx", "out.onnx", "--calib", "calib.npz", "--target", "macs=0.5"]
    done = subprocess.run(
        [sys.executable, "-c", TORCH_FREE, *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert accuracy(onnx.load("out.onnx")) > 0.9
