"""The record of a training in a file, read back and drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from onnxprune.cli import main
from onnxprune.curves import draw_history
from onnxprune.errors import ReportError
from onnxprune.train.history import COLUMNS, History, read_history

ROWS = [
    dict.fromkeys(COLUMNS)
    | {
        "step": 10 * epoch,
        "epoch": epoch,
        "train_loss": 1 / 3 / epoch if epoch else None,
        "train_accuracy": 0.5 if epoch else None,
        "validation_loss": 1.5 - 0.1 * epoch,
        "validation_accuracy": 0.1 * epoch,
        "learning_rate": 1e-3,
        "seconds": 1.25 * epoch,
        "decorrelation": 2.0**-epoch,
    }
    for epoch in range(4)
]


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_rows_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    history = History(path)
    for number, row in enumerate(ROWS):
        history.add(row)
        assert read_history(path) == ROWS[: number + 1]
    assert isinstance(read_history(path)[1]["step"], int)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_a_training_that_goes_on_drops_what_it_takes_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    history = History(path)
    for row in ROWS:
        history.add(row)
    again = History(path, ROWS[:2])
    assert read_history(path) == ROWS[:2]
    again.add(ROWS[2])
    assert read_history(path) == ROWS[:3]


def test_the_first_line_of_a_table_names_the_columns(tmp_path: Path) -> None:
    History(tmp_path / "log.csv").add(ROWS[0])
    head, row = (tmp_path / "log.csv").read_text().splitlines()
    assert head == ",".join([*COLUMNS, "decorrelation"])
    assert row == "0,0,,,1.5,0.0,0.001,0.0,1.0"


def test_without_a_file_rows_are_in_memory() -> None:
    history = History(None)
    history.add(ROWS[0])
    assert history.rows == ROWS[:1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.csv", ""),
        ("log.csv", "a,b\n1,2\n"),
        ("log.csv", ",".join(COLUMNS) + "\nx,0,,,,,,\n"),
        ("log.jsonl", "{"),
        ("log.jsonl", '"text"'),
        ("log.jsonl", json.dumps(ROWS[0] | {"step": "ten"})),
        ("log.jsonl", json.dumps({"step": 1})),
    ],
)
def test_what_is_no_history_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ReportError, match="not the history of a training"):
        read_history(tmp_path / name)


def test_curves_show_every_column() -> None:
    panels = {axes.get_label(): axes for axes in draw_history(ROWS).axes}
    assert list(panels) == ["loss", "accuracy", "learning rate", "decorrelation"]
    training, validation = panels["loss"].get_lines()
    assert training.get_xdata().tolist() == [10, 20, 30]
    assert training.get_ydata()[0] == pytest.approx(1 / 3)
    assert validation.get_ydata().tolist() == [row["validation_loss"] for row in ROWS]
    (line,) = panels["decorrelation"].get_lines()
    assert line.get_ydata().tolist() == [1, 0.5, 0.25, 0.125]


def test_a_training_without_validation_is_drawn() -> None:
    rows = [row | {"validation_loss": None, "validation_accuracy": None} for row in ROWS]
    panels = {axes.get_label(): axes for axes in draw_history(rows).axes}
    (line,) = panels["accuracy"].get_lines()
    assert math.isclose(line.get_ydata()[0], 0.5)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
def test_the_command_draws_a_history(tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    History(Path(name), ROWS)
    assert main(["plot", name, "curves.svg"]) == 0
    assert Path("curves.svg").read_bytes().startswith(b"<?xml")


def test_the_command_refuses_what_is_none(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("a\n")
    assert main(["plot", "log.csv", "curves.svg"]) == 1
    assert "not the history of a training" in capsys.readouterr().err
    assert not Path("curves.svg").exists()
