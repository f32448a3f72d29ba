"""What the documents promise: commands parse, snippets run, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import cli
from onnxprune.cli.commands import PRUNE
from onnxprune.cli.prune import EXAMPLES
from onnxprune.cli.run_settings import options
from onnxprune.target import KINDS, Target

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "models").glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def console_lines() -> list[str]:
    """The lines of the README that call the command, without a prompt or what goes before."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    found = [re.search(r"(?:^|/)onnxprune (.*)$", line.removeprefix("$ ")) for line in lines]
    return [match.group(1) for match in found if match]


def test_the_python_block_runs(tmp_path, monkeypatch):
    (snippet,) = blocks("python")
    (tmp_path / "models").symlink_to(ROOT / "models", target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split() == ["before", "after", "kept"]
    onnx.checker.check_model(tmp_path / "smaller.onnx", full_check=True)


TRAINING = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def training_folder(path):
    """A network, and samples under the names that the page has."""
    digits = np.load(ROOT / "models" / "digits_test.npz")
    x, labels = digits["input"][:80], digits["labels"][:80]
    (path / "in.onnx").symlink_to(ROOT / "models" / "mlp_digits.onnx")
    np.savez(path / "train.npz", input=x, labels=labels)
    np.save(path / "x.npy", x)
    np.save(path / "labels.npy", labels)
    _, function = blocks("python", TRAINING)
    (path / "own.py").write_text(function, encoding="utf-8")


@pytest.mark.slow
def test_the_commands_of_training_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    training_folder(tmp_path)
    _, block = blocks("console", TRAINING)
    lines = [line.removeprefix("onnxprune ") for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        assert cli.main([*shlex.split(line), *["-q"] * line.startswith("train")]) == 0, line
    onnx.checker.check_model("out.onnx", full_check=True)
    assert Path("curves.svg").exists()


def test_the_python_block_of_training_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    training_folder(tmp_path)
    snippet, _ = blocks("python", TRAINING)
    exec(snippet, {})
    assert "validation accuracy" in capsys.readouterr().out
    assert Path("out.onnx").exists()


def test_the_defaults_of_training_are_those_of_the_page():
    flags_of_train = cli.COMMANDS["train"].parser()._option_string_actions
    for flags, default in re.findall(r"^\| `(--[^|]*)` \| ([^|]*) \|", TRAINING, re.MULTILINE):
        for flag in re.findall(r"--[a-z-]+", flags):
            assert flag in flags_of_train, flag
        (first, *_) = re.findall(r"--[a-z-]+", flags)
        value = flags_of_train[first].default
        if isinstance(value, str | float) and not isinstance(value, bool):
            assert str(value).removesuffix(".0") in default.replace("`", ""), first


def test_the_readme_shows_commands():
    assert len(console_lines()) >= 5


@pytest.mark.parametrize("line", console_lines())
def test_every_command_parses(line):
    words = shlex.split(line)
    if words[0] in cli.COMMANDS:
        given = cli.COMMANDS[words[0]].parser().parse_args(words[1:])
    else:
        given = PRUNE.parser().parse_args(words)
        assert [str(Target.parse(text)) for text in given.target] == given.target
        options(given)
    models = {vars(given).get("model"), vars(given).get("output")} - {None}
    assert {path.suffix for path in models} <= {".onnx", ".json"}


def test_the_examples_of_the_help_are_those_of_the_readme():
    shown = re.findall(r"^  onnxprune (.*)$", EXAMPLES, re.MULTILINE)
    assert len(shown) >= 3
    for line in shown:
        words = shlex.split(line)
        if words[0] in cli.COMMANDS:
            cli.COMMANDS[words[0]].parser().parse_args(words[1:])
        else:
            options(PRUNE.parser().parse_args(words))


def test_the_two_prompts_are_the_two_that_the_pipeline_runs():
    pipeline = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (pattern,) = re.findall(r"sed -n '([^']+)' README\.md", pipeline)
    done = subprocess.run(
        ["sed", "-n", pattern, str(ROOT / "README.md")], capture_output=True, text=True, check=True
    )
    prompts = [line[2:] for line in README.splitlines() if line.startswith("$ ")]
    assert done.stdout.splitlines() == prompts
    assert len(prompts) == 2
    assert "onnxprune models/" in prompts[0]
    assert "pytest" in prompts[1]


def test_the_install_commands_name_files_that_exist():
    for line in (line for line in README.splitlines() if line.startswith("$ ")):
        for name in re.findall(r"(?:-c |--calib |onnxprune )([\w./]+\.\w+)", line):
            assert (ROOT / name).exists(), name


def test_flags_and_targets_in_the_readme_exist():
    commands = [PRUNE, *cli.COMMANDS.values()]
    helps = " ".join(command.parser().format_help() for command in commands)
    known = {word.strip("[]") for word in helps.replace(",", " ").split()}
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    flags = set(re.findall(r"--[a-z][a-z-]+", prose)) - {"--help"}
    assert flags
    assert flags <= known
    for text in re.findall(r"`((?:\w+)=[\d.]+\w?)`", prose):
        assert Target.parse(text).kind in KINDS


def test_the_code_map_is_complete():
    """Every module is in the map once, and the map has no others."""
    package = Path(onnxprune.__file__).parent
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Code map\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    names = re.findall(r"`([\w/]+)`", re.sub(r"\|[^|]*\|$", "|", section, flags=re.MULTILINE))
    plumbing = {"__init__", "__main__", "arrays", "errors"}
    modules = {path.stem for path in package.glob("*.py")} - plumbing
    modules |= {f"{path.name}/" for path in package.iterdir() if (path / "__init__.py").exists()}
    assert len(names) == len(set(names))
    assert set(names) - modules == set()
    assert modules - set(names) == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_to_fill_in(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"^[A-Z]+_[A-Z_]+$|\bTODO\b|\bFIXME\b|\bTBD\b", text, re.MULTILINE)


def test_the_readme_links_the_documents():
    for name in ("docs/method.md", "docs/extending.md", "docs/results.md", "docs/decisions/"):
        assert f"({name.removesuffix('/')})" in README or f"({name})" in README
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    ("script", "tables"),
    [
        ("bench_accuracy", 4),
        ("bench_curves", 10),
        ("bench_attention", 1),
        ("bench_latency", 1),
        ("bench_prediction", 2),
        ("bench_reuse", 1),
        ("bench_speed", 1),
        ("bench_refine", 2),
        ("bench_cost", 2),
    ],
)
def test_the_results_are_those_measured(script, tables):
    tool = ROOT / "tools" / f"{script}.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--table"], capture_output=True, text=True, check=True
    )
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert done.stdout.count("|---|") == tables
    assert done.stdout.strip() in results


@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("bench_papers", "papers"),
        ("bench_layer_pruning", "papers"),
        ("bench_decorrelation", "papers"),
        ("bench_pipelines", "pipelines"),
        ("bench_refinements", "decisions/0012-refinements-tried"),
        ("bench_data_free", "decisions/0015-data-free-moments"),
        ("bench_bases", "decisions/0016-basis-filters"),
        ("bench_engine targets", "decisions/0017-rectified-targets"),
        ("bench_engine judges", "decisions/0018-judging-trials"),
        ("bench_engine budgets", "decisions/0022-what-a-run-costs"),
        ("bench_engine starts", "decisions/0022-what-a-run-costs"),
        ("bench_cuda", "decisions/0023-float32-on-a-gpu"),
        ("bench_reuse stages", "decisions/0021-statistics-kept-between-runs"),
    ],
)
def test_the_tables_of_other_pages_are_those_measured(script, page):
    name, *words = script.split()
    tool = ROOT / "tools" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(tool), *words, "--table"], capture_output=True, text=True, check=True
    )
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert "|---|" in done.stdout
    assert done.stdout.strip() in text


def figures(path):
    """The percentages of a file's line of averages, as prose writes them."""
    text = (ROOT / "docs" / "results" / path).read_text(encoding="utf-8")
    (line,) = re.findall(r"^average over .*$", text, re.MULTILINE)
    return [figure.replace("%", " %") for figure in re.findall(r"\d+\.\d%", line)]


@pytest.mark.parametrize("path", ["corpus.md", "networks.md"])
def test_the_prose_has_the_averages_of_the_tables(path):
    results = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    assert len(figures(path)) == 3
    assert all(figure in results for figure in figures(path))


def test_the_table_of_peers_is_what_was_measured():
    command = [sys.executable, str(ROOT / "tools" / "bench_peers.py"), "--table", "--json"]
    rows = str(ROOT / "docs" / "results" / "peers.jsonl")
    done = subprocess.run([*command, rows], capture_output=True, text=True, check=True)
    page = ROOT / "docs" / "results" / "peers.md"
    assert done.stdout == page.read_text(encoding="utf-8")


def test_the_changelog_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[?([^\]\s]+)", text, re.MULTILINE)
    assert {"Unreleased", version("onnxprune")} & set(headings)
    assert set(re.findall(r"^### (\w+)", text, re.MULTILINE)) <= {"Added", "Changed", "Fixed"}


def test_the_public_names_are_importable():
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name).__doc__
    assert len(onnxprune.__all__) <= 15


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_tests_that_documents_name_exist(path):
    for file, name in re.findall(r"`(test_\w+)::(test_\w+)`", path.read_text(encoding="utf-8")):
        source = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source, f"{file}::{name}"


def test_the_reference_is_what_the_docstrings_say():
    tool = ROOT / "tools" / "api_reference.py"
    done = subprocess.run([sys.executable, str(tool)], capture_output=True, text=True, check=True)
    assert (ROOT / "docs" / "api.md").read_text(encoding="utf-8") == done.stdout
