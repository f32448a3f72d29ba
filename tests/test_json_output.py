"""``--json``: one document on standard output, whatever happens, and all else on standard error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import QUICK, command, run, working_folder
from small_networks import digits

import onnxprune.cli
from onnxprune.cli import json_output, main
from onnxprune.errors import OnnxPruneError

CHATTY = """
import numpy as np
print("reading samples")

def samples():
    print("here they come")
    for image in np.load("calib.npz")["input"]:
        yield {"input": image[None]}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def refusal(text: str) -> dict[str, object]:
    (name, error) = json.loads(text).popitem()
    assert name == "error"
    assert set(error) == {"type", "message", "exit_code"}
    return dict(error)


def test_what_scripts_of_users_print_goes_to_standard_error(folder, capsys):
    Path("feeds.py").write_text(CHATTY, encoding="utf-8")
    assert run(*QUICK, "--json", "--calib", "feeds.py:samples") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["after"]["macs"] > 0
    assert "reading samples" in said.err
    assert "here they come" in said.err


@pytest.mark.parametrize(
    ("words", "kind", "code", "part"),
    [
        (("--target", "macs=0.0001"), "TargetError", 1, "the smallest"),
        (("--calib", "none.npz"), "CalibrationError", 1, "none.npz"),
        (("--target", "colour=1"), "UsageError", 2, "colour"),
        (("--batch", "many"), "UsageError", 2, "--batch"),
    ],
)
def test_errors_are_documents_too(folder, capsys, words, kind, code, part):
    assert run("--json", *words) == code
    said = capsys.readouterr()
    error = refusal(said.out)
    assert (error["type"], error["exit_code"]) == (kind, code)
    assert part in str(error["message"])
    assert str(error["message"]) in said.err
    assert not Path("out.onnx").exists()


def test_without_the_flag_errors_are_text_only(folder, capsys):
    assert run("--calib", "none.npz") == 1
    assert capsys.readouterr().out == ""


def test_an_interruption_is_a_document(folder, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxprune.api.prune", stopped)
    assert run("--json") == 130
    error = refusal(capsys.readouterr().out)
    assert (error["type"], error["exit_code"]) == ("Interrupted", 130)


def test_an_error_after_the_record_leaves_one_document(folder, capsys, monkeypatch):
    class Late:
        def to_dict(self):
            json_output.show({"the": "record"})
            raise OnnxPruneError("too late")

    monkeypatch.setattr("onnxprune.survey.survey", lambda *_: Late())
    assert main(["inspect", "in.onnx", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"the": "record"}
    assert said.err == "onnxprune: too late\n"


@pytest.mark.parametrize("words", [("inspect", "in.onnx"), ("ops",)])
def test_commands_with_results_print_one_document(folder, capsys, words):
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["inspect", "none.onnx", "--json"]) == 1
    assert refusal(capsys.readouterr().out)["type"] == "UnsupportedModelError"


@pytest.mark.slow
def test_training_has_a_record(folder, capsys):
    pytest.importorskip("torch")
    labels = digits("digits_test.npz", "labels")[:60]
    np.savez("train.npz", input=digits("digits_test.npz")[:60], labels=labels)
    words = ["train", "in.onnx", "out.onnx", "--data", "train.npz", "--epochs", "1", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"] >= 1
    assert 0 <= record["before"]["accuracy"] <= 1
    onnx.checker.check_model("out.onnx")


def test_only_one_module_writes_json():
    """A command that prints its record itself prints it to standard error under ``--json``."""
    folder = Path(onnxprune.cli.__file__).parent
    modules = {path.name for path in folder.glob("*.py") if "json.dumps" in path.read_text()}
    assert modules == {"json_output.py"}


@pytest.mark.slow
def test_the_process_prints_one_document(folder):
    done = command("in.onnx", "out.onnx", "--calib", "calib.npz", "--json", "--target", "macs=0.5")
    assert (done.returncode, next(iter(json.loads(done.stdout)))) == (0, "settings")
    done = command("in.onnx", "--json")
    assert (done.returncode, refusal(done.stdout)["type"]) == (2, "UsageError")
