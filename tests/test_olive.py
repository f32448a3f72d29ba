"""The pass for Microsoft Olive: its settings, and workflows where olive-ai is installed."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_networks import MODELS, accuracy, digits

from onnxprune import Options, Target
from onnxprune.calibration import IMAGENET
from onnxprune.metadata import PREFIX, records
from onnxprune.olive.settings import OTHERS, PLAIN, SETTINGS, options_of, targets_of

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
DEFAULTS = {name: setting.default for name, setting in SETTINGS.items()}
INSTALLED = importlib.util.find_spec("olive") is not None
needs_olive = pytest.mark.skipif(not INSTALLED, reason="olive-ai is not installed")


def test_the_settings_are_those_of_the_options():
    assert set(PLAIN) <= {field.name for field in fields(Options)}
    assert options_of(DEFAULTS, "CPUExecutionProvider") == Options()
    assert not set(PLAIN) & set(OTHERS)


def test_settings_become_options():
    given = DEFAULTS | {"align": 8, "preset": "imagenet", "refine": "steps=5", "seed": 3}
    made = options_of(given, "CUDAExecutionProvider")
    assert (made.align, made.seed, made.preprocessing) == (8, 3, IMAGENET)
    assert made.refine is not None
    assert made.refine.budget.steps == 5
    assert made.provider == "cuda"
    assert options_of(given | {"provider": "cpu"}, "CUDAExecutionProvider").provider == "cpu"


def test_targets_have_commas_between_them():
    assert targets_of("macs=0.5, error=0.1") == [Target("macs", 0.5), Target("error", 0.1)]
    assert targets_of(None) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "cifar"}, "unknown preset 'cifar'; known: imagenet"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"refine": "soon"}, "soon"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        options_of(DEFAULTS | settings, None)


def test_the_page_has_every_setting_with_its_default():
    page = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| \w[^|]*\| ([^|]*) \|", page, re.MULTILINE))
    assert set(rows) == {*SETTINGS, "data_config"}
    for name, setting in SETTINGS.items():
        assert rows[name].strip("` ") == ("" if setting.default is None else str(setting.default))


@pytest.mark.slow
def test_without_olive_the_module_says_what_to_install():
    code = (
        "import sys; sys.modules['olive'] = None; from onnxprune.olive.__main__ import main; "
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "install it: pip install olive-ai" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The example of the page, with a network and samples of the names it has."""
    monkeypatch.setenv("OLIVE_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("CI", "1")  # Olive reports its start elsewhere unless this is set
    monkeypatch.chdir(tmp_path)
    for name in ("olive_workflow.json", "samples.py"):
        shutil.copy(EXAMPLES / name, name)
    shutil.copy(MODELS / "mlp_digits.onnx", "in.onnx")
    np.savez("samples.npz", input=digits()[:200])
    return tmp_path


def workflow(**settings: object) -> dict[str, object]:
    """The example with other settings of the pass, and nothing after it."""
    found = json.loads(Path("olive_workflow.json").read_text(encoding="utf-8"))
    del found["passes"]["quantise"]
    found["passes"]["prune"] |= settings
    for name in [key for key, value in found["passes"]["prune"].items() if value is None]:
        del found["passes"]["prune"][name]
    return found


def carried_out(document: dict[str, object]) -> onnx.ModelProto | None:
    """What a workflow makes; None where Olive goes on without a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Olive and of what it brings
        from olive.workflows import run

        from onnxprune.olive.passes import package_config

        Path("passes.json").write_text(json.dumps(package_config()), encoding="utf-8")
        run(document, package_config="passes.json")
    path = Path("out/model.onnx")
    return onnx.load(path) if path.exists() else None


@needs_olive
@pytest.mark.slow
def test_the_commands_of_the_page_prune_and_then_quantise(folder):
    passes = subprocess.run([sys.executable, "-m", "onnxprune.olive"], stdout=subprocess.PIPE)
    Path("passes.json").write_bytes(passes.stdout)
    words = ["--config", "olive_workflow.json", "--package-config", "passes.json"]
    done = subprocess.run(
        [sys.executable, "-m", "olive", "run", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = onnx.load("out/model.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in made.graph.node}
    (record,) = records(made)
    assert record[PREFIX + "targets"] == "macs=0.6"
    assert int(record[PREFIX + "macs"]) <= 0.6 * int(record[PREFIX + "source_macs"])
    assert accuracy(made) > 0.9
    report = json.loads(Path("out/onnxprune_report.json").read_text(encoding="utf-8"))
    assert report["after"]["macs"] == int(record[PREFIX + "macs"])


@needs_olive
@pytest.mark.slow
def test_samples_may_come_from_a_data_config(folder):
    made = carried_out(workflow(calib=None, data_config="samples", save_report=False))
    assert made is not None
    (record,) = records(made)
    counts = [int(count) for count in re.findall(r"=(\d+)", record[PREFIX + "samples"])]
    assert sum(counts) == 128
    assert not Path("out/onnxprune_report.json").exists()


@needs_olive
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_config": "samples"}, "takes its samples from calib or from data_config; give one"),
        ({"calib": None}, "takes its samples from calib or from data_config; give one"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"target": "macs"}, "macs"),
        ({"calib": "none.npz"}, "no such file or folder"),
    ],
)
def test_what_is_wrong_ends_the_workflow_with_the_reason(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        carried_out(workflow(**settings))
    assert not Path("out/model.onnx").exists()


@needs_olive
@pytest.mark.slow
def test_a_target_out_of_reach_leaves_no_model(folder, caplog):
    assert carried_out(workflow(target="macs=0.0001")) is None
    assert "the smallest" in caplog.text
