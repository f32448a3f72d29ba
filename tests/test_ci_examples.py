"""The examples for CI: what is in them runs, passes within the bound and fails beyond it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_networks import MODELS, digits

from onnxprune.cli import prune
from onnxprune.cli.run_settings import options
from onnxprune.target import Target

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SCRIPT = EXAMPLES / "check_divergence.sh"


@pytest.fixture
def project(tmp_path) -> Path:
    """A project as the examples have it: a model, samples and the script."""
    for name in ("models", "samples", "ci"):
        (tmp_path / name).mkdir()
    shutil.copy(MODELS / "mlp_digits.onnx", tmp_path / "models" / "net.onnx")
    np.savez(tmp_path / "samples" / "calib.npz", input=digits()[:120])
    shutil.copy(SCRIPT, tmp_path / "ci" / SCRIPT.name)
    return tmp_path


def bash(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "ONNXPRUNE": f"{shlex.quote(sys.executable)} -m onnxprune",
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def document(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_within_the_bound_the_build_passes(project):
    done = bash(
        "bash ci/check_divergence.sh models/net.onnx out.onnx samples/calib.npz 0.3", project
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((project / "record.json").read_text(encoding="utf-8"))
    assert all(target["holds"] for target in record["targets"])
    assert record["outputs"][0]["relative_error"] <= 0.3
    onnx.checker.check_model(project / "out.onnx")


@pytest.mark.slow
def test_beyond_the_bound_the_build_fails(project):
    line = "bash ci/check_divergence.sh models/net.onnx out.onnx samples/calib.npz 0.001 macs=0.3"
    done = bash(line, project)
    assert done.returncode == 1
    error = json.loads((project / "record.json").read_text(encoding="utf-8"))["error"]
    assert error["type"] == "TargetError"
    assert "error=0.001" in error["message"]
    assert error["message"] in done.stderr
    assert not (project / "out.onnx").exists()


def test_without_its_words_the_script_says_its_usage(project):
    done = bash("bash ci/check_divergence.sh models/net.onnx", project)
    assert done.returncode == 2
    assert "IN.onnx OUT.onnx SAMPLES MAX_ERROR [COST]" in done.stderr


def test_the_workflow_is_one():
    found = document("prune.yml")
    assert set(found) == {"name", True, "permissions", "jobs"}  # YAML reads `on` as true
    (job,) = found["jobs"].values()
    assert {"runs-on", "steps"} <= set(job)
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    uploaded = job["steps"][-1]["with"]["path"].split()
    assert uploaded == ["pruned.onnx", "record.json"]


@pytest.mark.slow
def test_the_steps_of_the_workflow_run(project):
    (job,) = document("prune.yml")["jobs"].values()
    lines = [step["run"] for step in job["steps"] if "run" in step and step["name"] != "Install"]
    assert len(lines) == 2
    for line in lines:
        done = bash(line, project)
        assert done.returncode == 0, done.stderr
    assert (project / "pruned.onnx").exists()
    assert '"targets"' in (project / "summary.md").read_text(encoding="utf-8")


def test_the_hook_calls_the_command():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language"} <= set(hook)
    assert hook["entry"] == "onnxprune"
    assert not hook["pass_filenames"]
    (repository,) = document("pre-commit-config.yaml")["repos"]
    (used,) = repository["hooks"]
    assert used["id"] == hook["id"]
    given = prune.parser().parse_args(used["args"])
    options(given)
    assert [Target.parse(text).kind for text in given.target] == ["macs", "error"]
