"""The list of commands, mistyped ones, versions, and what starting costs."""

from __future__ import annotations

import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from command_line import command, working_folder

import onnxprune
from onnxprune.cli import COMMANDS, main
from onnxprune.cli.commands import PRUNE, hint

MODULES = Path(onnxprune.__file__).parent / "cli"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def stopped(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_the_help_has_a_line_for_every_command(capsys):
    assert stopped("--help") == 0
    said = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert re.search(rf"^  onnxprune {name} +{re.escape(entry.summary)}$", said, re.MULTILINE)


def test_every_command_is_in_the_list():
    """A module with both functions of a command is one."""
    found = {
        path.stem
        for path in MODULES.glob("*.py")
        if {"def parser()", "def run("} <= set(re.findall(r"^def \w+\(\)?", path.read_text(), re.M))
    }
    assert found == {*COMMANDS, PRUNE.name}


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_teaches_with_examples_that_parse(name):
    entry = COMMANDS[name] if name else PRUNE
    shown = re.findall(r"^  onnxprune (.*?)(?: +[>#].*)?$", entry.parser().epilog or "", re.M)
    assert shown
    for line in shown:
        words = shlex.split(line)
        if words[0] in COMMANDS:
            COMMANDS[words[0]].parser().parse_args(words[1:])
        else:
            PRUNE.parser().parse_args(words)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("inspct", "did you mean: onnxprune inspect"),
        ("benhc", "did you mean: onnxprune bench"),
        ("prune", "pruning has no word of its own"),
    ],
)
def test_a_mistyped_command_gets_a_hint(folder, capsys, word, part):
    assert stopped(word, "in.onnx") == 2
    assert part in capsys.readouterr().err


def test_what_may_be_a_model_gets_none(folder):
    Path("inspct").touch()
    for word in ("inspct", "plan.onnx", "models/benhc.onnx", "--quiet", "resnet", "x"):
        assert hint(word) is None, word
    assert hint("aply") is not None


@pytest.mark.parametrize("words", [["--version"], ["inspect", "--version"], ["a", "--version"]])
def test_versions(capsys, words):
    assert stopped(*words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"onnxprune {version('onnxprune')} (Python {platform.python_version()}")
    assert f"onnx {version('onnx')}" in said


def modules(*words: str) -> set[str]:
    """What a command imports."""
    script = "import sys; from onnxprune.cli import main\ntry: main(sys.argv[1:])\nfinally: "
    script += "sys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60
    )
    return set(done.stderr.split())


@pytest.mark.slow
def test_a_command_imports_what_it_needs():
    """Pruning is what takes longest to import, and no other command's help needs it."""
    light = modules("compare", "--help")
    assert "onnxprune.cli.compare" in light
    assert not {"onnxprune.api", "onnxprune.options", "scipy", "matplotlib"} & light
    assert "onnxprune.api" not in modules("--help")


@pytest.mark.slow
def test_the_process_takes_a_hint(folder):
    done = command("inspct", "in.onnx")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean: onnxprune inspect" in done.stderr


def test_the_public_names_are_found_where_they_are():
    assert set(onnxprune.__all__) <= set(dir(onnxprune))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        onnxprune.nothing  # noqa: B018
