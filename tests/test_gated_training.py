"""Training with gates through the loop and the command: checkpoints, files, words."""

from __future__ import annotations

import csv
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from gated_networks import USELESS, planted, torch
from oracles import distance, structure_ok
from small_networks import MODELS, digits
from test_cli_train import finished, started, together
from test_train_fit import labelled as drawn_classes
from test_train_fit import network_model

from onnxprune.cli import main
from onnxprune.cli import train as command
from onnxprune.model import load
from onnxprune.runtime import Session
from onnxprune.train.gated_sections import gated_sections
from onnxprune.train.layer_pruning import LayerPruning
from onnxprune.train.method import Backpropagation, Changes, Step
from onnxprune.train.methods import METHODS
from onnxprune.train.options import TrainOptions
from onnxprune.train.training import train
from onnxprune.train.unit_pruning import UnitPruning

SECTIONS = {
    "section_price": 0.03, "section_decay": 0.01, "section_warmup": 0.05, "section_every": 1,
}  # fmt: skip
LAYERS = TrainOptions(
    method="layer-pruning", method_settings=SECTIONS, epochs=6, batch=32, optimizer="sgd",
    rate=0.05, progress=False,
)  # fmt: skip
UNITS = replace(
    LAYERS,
    method="unit-pruning",
    method_settings={"unit_price": 0.005, "unit_theta": 0.5, "unit_decay": 0.02},
)


def labelled(count: int = 2000) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((count, 8)).astype(np.float32)
    return {"x": x, "labels": (x[:, 0] * x[:, 1] > 0).astype(np.int64)}


class StoppedError(Exception):
    """A kill."""


# --- the loop -----------------------------------------------------------------------------------


def test_the_loop_prunes_and_the_optimiser_forgets() -> None:
    result = train(planted(), labelled(), LAYERS)
    (left,) = gated_sections(result.model).found
    assert left.total != USELESS
    structure_ok(result.model, planted())
    assert result.fitted.rows[0]["sections"] == 2
    assert result.fitted.rows[-1]["sections"] == 1
    assert result.fitted.rows[-1]["theta Add_4"] == 0
    assert result.fitted.rows[-1]["theta Add_9"] == 1
    assert 0 < (result.fitted.rows[-1]["executed"] or 0) < 1
    assert result.fitted.after is not None
    assert result.fitted.after.accuracy > 0.93
    assert result.notes[0].startswith("sections: 1 of 2 left, ")
    assert result.notes[1] == "cut: Add_4"


@pytest.mark.parametrize("estimator", ["two-pass", "gradient"])
@pytest.mark.parametrize("at", [60, 270])
def test_layer_pruning_goes_on_exactly_after_a_stop(
    at: int, estimator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before and after the useless section is cut."""
    settings = {**SECTIONS, "section_estimator": estimator}
    options = replace(LAYERS, method_settings=settings, checkpoint=tmp_path / "run.pt")
    cut = goes_on_exactly(LayerPruning, options, at, monkeypatch)
    assert cut == (at > 200)


@pytest.mark.parametrize("at", [60, 270])
def test_unit_pruning_goes_on_exactly_after_a_stop(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on_exactly(UnitPruning, replace(UNITS, checkpoint=tmp_path / "run.pt"), at, monkeypatch)


def goes_on_exactly(
    kind: Any, options: TrainOptions, at: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Train with and without a stop; return whether anything was pruned before it."""
    whole = train(planted(), labelled(), replace(options, checkpoint=None))
    after_step, pruned = kind.after_step, []

    def stopping(self: Any, step: Any) -> None:
        after_step(self, step)
        if step.number == at:
            pruned.append(bool(getattr(self, "pruned", ())))
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(kind, "after_step", stopping)
        with pytest.raises(StoppedError):
            train(planted(), labelled(), options)
    resumed = train(planted(), labelled(), replace(options, resume=True))
    assert resumed.model.SerializeToString() == whole.model.SerializeToString()
    for one, other in zip(resumed.fitted.rows, whole.fitted.rows, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    return pruned[0]


class Again(Backpropagation):
    """Measures the loss of every step again."""

    def __init__(self) -> None:
        self.pairs: list[tuple[float, float]] = []
        self._changes = Changes()

    def before_forward(self, step: Step) -> Changes:
        self._changes = Changes()
        return self._changes

    def after_backward(self, step: Step) -> None:
        assert step.value is not None
        with torch.no_grad():
            self.pairs.append((float(step.value), float(step.loss(self._changes))))


def test_the_same_pass_again_has_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout included, and without a trace: the training is the one without it."""
    method = Again()
    entry = replace(METHODS["backprop"], make=lambda network, model, settings: method)
    options = replace(LAYERS, method="backprop", method_settings={}, epochs=1)
    plain = train(network_model(0.5), drawn_classes(), options)
    monkeypatch.setitem(METHODS, "backprop", entry)
    measured = train(network_model(0.5), drawn_classes(), options)
    assert len(method.pairs) >= 5
    for own, again in method.pairs:
        assert again == pytest.approx(own, rel=1e-5)
    assert measured.model.SerializeToString() == plain.model.SerializeToString()


def test_half_precision_measures_what_single_precision_does() -> None:
    """fp16 scales the loss before the backward pass; theta must not see it."""
    settings = {**SECTIONS, "section_estimator": "gradient", "section_rate": 0.02}
    short = replace(LAYERS, epochs=1, method_settings=settings)
    thetas = []
    for precision in ("float32", "fp16"):
        rows = train(planted(), labelled(600), replace(short, precision=precision)).fitted.rows
        thetas.append([rows[-1][f"theta {name}"] for name in ("Add_4", "Add_9")])
    np.testing.assert_allclose(thetas[0], thetas[1], atol=2e-3)
    assert all(0.1 < theta < 0.9 and abs(theta - 0.5) > 4e-3 for theta in thetas[0])


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the planted network and its samples."""
    monkeypatch.chdir(tmp_path)
    onnx.save(planted(), "in.onnx")
    np.savez("train.npz", **labelled())
    return tmp_path


WORDS = ["train", "in.onnx", "out.onnx", "--data", "train.npz", "--epochs", "6", "--batch", "32"]
WORDS += ["--optimizer", "sgd", "--learning-rate", "0.05"]


def test_the_command_prunes_layers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--method layer-pruning --section-price 0.03 --section-every 1 --section-decay 0.01"
    assert main([*WORDS, *words.split(), "--history", "run.csv"]) == 0
    out = capsys.readouterr().out
    assert "sections: 1 of 2 left" in out
    assert "cut: Add_4" in out
    assert len(load("out.onnx").graph.node) < len(planted().graph.node)
    with Path("run.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {"sections", "executed", "theta Add_4", "theta Add_9"} <= set(rows[0])
    assert float(rows[-1]["theta Add_4"]) == 0


def test_the_command_prunes_units(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--method unit-pruning --unit-price 0.005 --unit-theta 0.5 --unit-decay 0.02"
    assert main([*WORDS, *words.split()]) == 0
    assert "units: " in capsys.readouterr().out
    size, before = (Path(name).stat().st_size for name in ("out.onnx", "in.onnx"))
    assert size < before


def test_log_gamma_is_over_all_samples(folder: Path) -> None:
    """1 800 of the 2 000 samples are learnt from."""
    common = [*WORDS, "--method", "layer-pruning", "--epochs", "1"]
    for out, words in (
        ("a.onnx", ["--section-log-gamma", "54"]),
        ("b.onnx", ["--section-price", "0.03"]),
    ):
        given = [out if word == "out.onnx" else word for word in common]
        assert main([*given, *words]) == 0
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method layer-pruning --section-theta 0.01", "must rise within 0 and 1"),
        ("--method layer-pruning --section-price -1", "price must be a positive number"),
        ("--method unit-pruning --section-price 0.1", "--section-price is for --method layer-"),
    ],
)
def test_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*WORDS, *words.split()])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def test_a_chain_without_bypasses_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "digits.npz"
    np.savez(data, **labelled_digits(slice(None)))
    words = ["train", str(MODELS / "mlp_digits.onnx"), str(tmp_path / "out.onnx")]
    words += ["--data", str(data)]
    assert main([*words, "--method", "layer-pruning", "--epochs", "1"]) == 1
    assert "ask for bypasses" in capsys.readouterr().err


def labelled_digits(which: slice) -> dict[str, np.ndarray]:
    images, labels = (digits("digits_test.npz", key) for key in ("input", "labels"))
    return {"input": images[which], "labels": labels[which].astype(np.int64)}


def test_a_chain_with_bypasses_loses_layers() -> None:
    settings = {**SECTIONS, "bypasses": "unchanged", "section_price": 0.5}
    options = replace(LAYERS, epochs=25, method_settings=settings)
    result = train(load(MODELS / "mlp_digits.onnx"), labelled_digits(slice(400)), options)
    held_out = labelled_digits(slice(400, None))
    scores = Session(result.model, threads=1).run({"input": held_out["input"]})[0]
    assert np.mean(scores.argmax(1) == held_out["labels"]) > 0.85
    linear = [node.name for node in result.model.graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(linear) == 2
    assert not any("bypass" in name for name in linear)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "layer-pruning --section-price 0.03 --section-every 1 --section-decay 0.01",
        "layer-pruning --section-price 0.03 --section-estimator gradient --section-decay 0.01",
        "unit-pruning --unit-price 0.005 --unit-theta 0.5 --unit-decay 0.02",
    ],
)
def test_two_processes_prune_what_one_does(folder: Path, words: str) -> None:
    given = [*WORDS[3:], "--epochs", "2", "--method", *words.split()]
    one, two = Path("one.onnx"), Path("two.onnx")
    said = finished(started("in.onnx", one, *given))
    both = together("in.onnx", two, *given, count=2)
    assert [line for line in both[0].splitlines() if ":" in line] == [
        line for line in said.splitlines() if ":" in line
    ]
    models = load(one), load(two)
    feed = {"x": labelled(50)["x"]}
    made = [Session(model, threads=1).run(feed) for model in models]
    assert distance(*made) < 1e-4
    assert len({len(model.graph.node) for model in models}) == 1


# --- the page -----------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "pruning-in-training.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("onnxprune ")
    for line in re.search(r"```console\n(.*?)```", PAGE, re.DOTALL).group(1).splitlines()  # type: ignore[union-attr]
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("resnet", "vgg", "mlp"):
        Path(f"{name}.onnx").symlink_to(MODELS / f"{name}_digits.onnx")
    np.savez("train.npz", **labelled_digits(slice(160)))
    words = shlex.split(line)
    assert main([*words, "--epochs", "1", "-q"]) == 0
    onnx.checker.check_model(words[2], full_check=True)


def test_the_page_has_the_defaults() -> None:
    flags = command.parser()._option_string_actions
    table = dict(re.findall(r"^\| `(--[a-z-]+)` \| ([^|]*) \|", PAGE, re.MULTILINE))
    assert {f for f in flags if f.startswith("--section")} | {"--bypasses"} == set(table)
    for flag, default in table.items():
        value = flags[flag].default
        assert default.strip("` ") == ("none" if value is None else str(value)), flag
    units = dict(re.findall(r"`(--unit-[a-z]+)` \(([0-9.]+)\)", PAGE))
    assert units == {flag: str(flags[flag].default) for flag in units}
    for flag in flags:
        if flag.startswith("--unit") and flag not in units:
            section = flag.replace("unit", "section")
            assert flags[flag].default == flags[section].default, flag
