"""``onnxprune completion``: the script completes in a shell."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.cli import COMMANDS, main
from onnxprune.cli.completion import SHELLS

pytest.importorskip("shtab")
BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> Path:
    """A folder with the script of every shell, and a few files to complete."""
    folder = tmp_path_factory.mktemp("scripts")
    for shell in SHELLS:
        with pytest.MonkeyPatch.context() as patch, (folder / f"c.{shell}").open("w") as file:
            patch.setattr(sys, "stdout", file)
            assert main(["completion", shell]) == 0
    for name in ("in.onnx", "out.onnx", "labels.npy"):
        (folder / name).touch()
    return folder


def completed(folder: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    line = " ".join(shlex.quote(word) for word in ("onnxprune", *words))
    script = f"source c.bash; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
    script += 'complete -p onnxprune >/dev/null; _shtab_onnxprune; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        [str(BASH), "--norc", "-c", script], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(BASH is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["be"], {"bench"}),
        (["in"], {"in.onnx", "inspect"}),
        (["in.onnx", "o"], {"out.onnx"}),  # not the command ops
        (["in.onnx", "out.onnx", "--targ"], {"--target"}),
        (["in.onnx", "out.onnx", "--method", "sq"], {"squeeze"}),
        (["in.onnx", "out.onnx", "--labels", "l"], {"labels.npy"}),
        (["bench", "i"], {"in.onnx"}),
        (["bench", "in.onnx", "o"], {"out.onnx"}),
        (["bench", "--provider", "cpu", "t"], {"tensorrt"}),
        (["compare", "in.onnx", "out.onnx", "--max-e"], {"--max-error"}),
        (["compare", "in.onnx", "out.onnx", "--data", "l"], {"labels.npy"}),
        (["completion", "z"], {"zsh"}),
        (["inspect", "--targ"], set()),
        (["inspect", "in.onnx", "--conf"], {"--config"}),
    ],
)
def test_bash_completes(scripts, words, expected):
    assert completed(scripts, *words) == expected


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_offers_commands_and_files_first(scripts):
    offered = completed(scripts, "")
    assert {*COMMANDS, "in.onnx", "labels.npy"} <= offered


@pytest.mark.parametrize("shell", SHELLS)
def test_every_script_knows_every_command_and_its_flags(scripts, shell):
    text = (scripts / f"c.{shell}").read_text(encoding="utf-8")
    for word in (*COMMANDS, "max-error", "section-price", "calib", "tensorrt"):
        assert word in text, word


def test_a_first_word_that_is_no_command_is_a_model_in_every_shell(scripts):
    texts = {shell: (scripts / f"c.{shell}").read_text(encoding="utf-8") for shell in SHELLS}
    cases = [line.strip() for line in texts["zsh"].splitlines() if "_options ;;" in line]
    assert "*) _arguments -C -s $_shtab_onnxprune_prune_options ;;" in cases
    words = {*COMMANDS, "*"} - {"cache"}  # which has words of its own behind it
    assert {case.partition(")")[0] for case in cases} >= words
    assert "{ _shtab_onnxprune_words; _files }" in texts["zsh"]
    assert "'prune':" not in texts["zsh"]
    assert "and test $_shtab_onnxprune_npos -eq 0' -ka '(__fish_complete_path" in texts["fish"]
    assert "; ls -d *`/'" in texts["tcsh"]
    assert "'p/*/f/'" in texts["tcsh"]


def test_without_the_library_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "pip install shtab" in said.err
