"""``--config``: flags from a file, and what is said of a file that is wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import onnx
import pytest
from command_line import QUICK, run, working_folder

from onnxprune.cli import COMMANDS, main
from onnxprune.cli.commands import PRUNE
from onnxprune.cli.config import parse

TABLES = [PRUNE.name, *COMMANDS]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def given(content: str, *words: str, command: str = "prune") -> argparse.Namespace:
    """What a file and words state together."""
    Path("c.toml").write_text(content, encoding="utf-8")
    parser = (PRUNE if command == "prune" else COMMANDS[command]).parser()
    return parse(parser, [*words, "--config", "c.toml"], command, TABLES)


def refused(capsys, content: str, *words: str, command: str = "prune") -> str:
    with pytest.raises(SystemExit, match="2"):
        given(content, *words, command=command)
    return capsys.readouterr().err.partition("error: ")[2]


EVERYTHING = """
calib = "calib.npz"
target = ["macs=0.5", "error=0.1"]
align = 8
batch = 16
mean = [0.5, 0.25, 0.125]
std = 2
scale = 1
resize = [32, 24]
max-memory = "2GB"
cutoff = 0.25
sections = true
no-recovery = false
sequential = false
criterion = "l2"
report = "report.json"
quiet = true
"""


def test_every_kind_of_value(folder):
    found = given(EVERYTHING, "in.onnx", "out.onnx")
    assert found.target == ["macs=0.5", "error=0.1"]
    assert (found.calib, found.align, found.batch, found.cutoff) == ("calib.npz", 8, 16, 0.25)
    assert (found.mean, found.std, found.scale) == ((0.5, 0.25, 0.125), (2.0,), 1.0)
    assert (found.resize, found.max_memory) == ((32, 24), 2_000_000_000)
    assert (found.sections, found.no_recovery, found.sequential) == (True, False, False)
    assert (found.criterion, found.report, found.quiet) == ("l2", [Path("report.json")], True)


def test_a_file_says_what_the_same_words_say(folder):
    words = ["--calib", "calib.npz", "--target", "macs=0.5", "--target", "error=0.1"]
    words += ["--align", "8", "--batch", "16", "--mean", "0.5,0.25,0.125", "--std", "2"]
    words += ["--scale", "1", "--resize", "32x24", "--max-memory", "2GB", "--cutoff", "0.25"]
    words += ["--sections", "--no-sequential", "--criterion", "l2", "--report", "report.json", "-q"]
    plain = PRUNE.parser().parse_args(["in.onnx", "out.onnx", *words])
    found = given(EVERYTHING, "in.onnx", "out.onnx")
    assert vars(found) | {"config": None} == vars(plain)


def test_flags_of_the_command_line_win(folder):
    words = ("in.onnx", "out.onnx", "--target", "ratio=0.3", "--align=auto", "--batch", "32", "-v")
    found = given(EVERYTHING, *words, "--sequential", "--calib", "other.npz")
    assert found.target == ["ratio=0.3"]  # in place of those of the file, not after them
    assert (found.align, found.batch, found.calib) == ("auto", 32, "other.npz")
    assert found.sequential is True
    assert (found.verbose, found.quiet) == (True, False)
    assert found.cutoff == 0.25


def test_a_table_for_each_command(folder):
    content = """
    quiet = true
    threads = 3
    batch = 4
    [prune]
    batch = 8
    [bench]
    batch = [1, 8]
    provider = "cpu"
    [compare]
    data = "calib.npz"
    """
    assert given(content, "in.onnx", "out.onnx").batch == 8
    found = given(content, "in.onnx", command="bench")
    assert (found.batch, found.provider, found.threads, found.quiet) == ([1, 8], ["cpu"], 3, True)
    shared = content.replace("threads = 3", "")
    found = given(shared, "a.onnx", "b.onnx", command="compare")  # a required flag
    assert (found.data, found.batch) == ("calib.npz", 4)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("targt = 'macs=0.5'", ("c.toml", "'targt'", "did you mean target")),
        ("max_memory = '1GB'", ("'max_memory'", "did you mean max-memory")),
        ("[prune]\nzzz = 1", ("'zzz' in [prune]", "known: ", "calib")),
        ("[prun]\nbatch = 1", ("no command for the table [prun]", "did you mean prune?")),
        ("config = 'c.toml'", ("no flag --config for the key 'config'",)),
        ("help = true", ("'help'",)),
        ("batch = '32'", ("key 'batch' is a text; write a whole number",)),
        ("batch = 1.5", ("key 'batch' is a number; write a whole number",)),
        ("batch = true", ("key 'batch' is true; write a whole number",)),
        ("cutoff = '0.5'", ("key 'cutoff' is a text; write a number",)),
        ("calib = 3", ("key 'calib' is a number; write a text such as DATA",)),
        ("include = ['a', 'b']", ("key 'include' is a list; write a text",)),
        ("calib = 2020-01-01", ("key 'calib' is a date; write a text",)),
        ("sections = 1", ("key 'sections' is a number; write true or false",)),
        ("sequential = 'no'", ("key 'sequential' is a text; write true or false",)),
        ("criterion = 'l3'", ("c.toml: key 'criterion': invalid choice: 'l3'",)),
        ("align = 'eight'", ("c.toml: key 'align': write auto or a number, not 'eight'",)),
        ("max-memory = 'lots'", ("key 'max-memory': write a size as 512MB",)),
        ("target = []", ("key 'target' is an empty list",)),
        ("target = [1]", ("key 'target' is a number; write a text such as KEY=VALUE",)),
        ("eval = 'a.py:f'\nlabels = 'b.npy'", ("'eval' and 'labels' exclude each other",)),
        ("batch = = 3", ("--config c.toml: is not TOML", "line 1")),
    ],
)
def test_what_is_wrong_with_a_file_is_said(folder, capsys, content, parts):
    said = refused(capsys, content, "in.onnx", "out.onnx")
    for part in parts:
        assert part in said


def test_a_file_that_is_not_there(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "in.onnx", "--config", "none.toml"])
    assert "--config none.toml: cannot be read (No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "in.onnx", "--config"])
    assert "--config: expected one argument" in capsys.readouterr().err


def test_words_alone_and_an_abbreviation_are_as_ever(folder):
    assert PRUNE.parser().parse_args(["a", "b"]) == parse(PRUNE.parser(), ["a", "b"], "prune", [])
    Path("c.toml").write_text("batch = 4", encoding="utf-8")
    assert parse(PRUNE.parser(), ["a", "b", "--conf", "c.toml"], "prune", TABLES).batch == 4


@pytest.mark.parametrize("name", TABLES)
def test_every_flag_of_every_command_has_a_key(folder, capsys, name):
    """A value of a wrong type is refused as that, and its key not as unknown."""
    parser = (PRUNE if name == PRUNE.name else COMMANDS[name]).parser()
    flags = {f.removeprefix("--") for f in parser._option_string_actions if f.startswith("--")}
    opposites = {flag for flag in flags if flag.removeprefix("no-") in flags - {flag}}
    for flag in flags - opposites - {"config", "help", "version"}:
        Path("c.toml").write_text(f"{flag} = 12:00:00", encoding="utf-8")
        with pytest.raises(SystemExit):
            parse(parser, ["--config", "c.toml"], name, TABLES)
        assert f"key '{flag}' is a time; write" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_with_a_file_makes_what_the_flags_make(folder, capsys):
    assert run(*QUICK, "--seed", 5, "--json", "-q") == 0
    plain = json.loads(capsys.readouterr().out)
    Path("prune.toml").write_text(
        'calib = "calib.npz"\nquiet = true\n[prune]\ntarget = "macs=0.5"\njson = true\n'
        'allocation = "uniform"\ncriterion = "l2"\nseed = 5\n',
        encoding="utf-8",
    )
    assert main(["in.onnx", "again.onnx", "--config", "prune.toml"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == plain["settings"]
    assert onnx.load("again.onnx") == onnx.load("out.onnx")


class Pairs(argparse.Action):
    """A flag of a command's own kind: NAME=VALUE, each name once."""

    def __call__(self, parser, namespace, values, option_string=None):
        name, _, value = str(values).partition("=")
        pairs = getattr(namespace, self.dest) or {}
        if name in pairs:
            raise argparse.ArgumentError(self, f"{name} is given twice")
        setattr(namespace, self.dest, pairs | {name: value})


def test_a_flag_with_an_action_of_its_own(folder, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    parser.add_argument("--pair", action=Pairs)
    words = ["--config", "c.toml"]
    Path("c.toml").write_text("pair = ['a=1', 'b=2']", encoding="utf-8")
    assert parse(parser, words, "prune", TABLES).pair == {"a": "1", "b": "2"}
    assert parse(parser, [*words, "--pair", "c=3"], "prune", TABLES).pair == {"c": "3"}
    Path("c.toml").write_text("pair = ['a=1', 'a=2']", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        parse(parser, words, "prune", TABLES)
    assert "c.toml: key 'pair': a is given twice" in capsys.readouterr().err
