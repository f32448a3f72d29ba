"""Samples that a function of the user's own file yields."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onnxprune.calibration import InputSpec, load_calibration
from onnxprune.errors import CalibrationError

INPUT = InputSpec("x", ("N", 2), np.dtype(np.float32))


def refusal(source: str) -> str:
    with pytest.raises(CalibrationError) as caught:
        load_calibration(source, [INPUT])
    return str(caught.value)


SCRIPT = """
import numpy as np
from dataclasses import dataclass, fields
from calibration_sibling import SCALE

@dataclass
class Item:
    value: int
    label: "int" = 0  # text, which dataclasses look up in the module

assert fields(Item)[0].type is int  # annotations are evaluated, as in any other file

def feeds(limit=3):
    for value in range(limit):
        yield {"x": np.full((1, 2), Item(value).value * SCALE, np.float32)}

def stack():
    return {"x": np.ones((4, 2))}

def failing():
    yield {"x": np.ones((1, 2))}
    raise RuntimeError("disk on fire")

def failing_at_once():
    return 1 / 0

def misshapen():
    yield {"x": np.ones((1, 3))}

def needs_arguments(path):
    yield path

def nothing():
    pass

number = 3
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "calibration_sibling.py").write_text("SCALE = 10\n")
    path = tmp_path / "data.py"
    path.write_text(SCRIPT)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    sys.modules.pop("calibration_sibling", None)


def test_script(script: Path) -> None:
    paths, modules = sys.path[:], set(sys.modules)
    calibration = load_calibration(f"{script}:feeds", [INPUT])
    (feed,) = calibration.batches(np.arange(3), 4)
    assert feed["x"].tolist() == [[0, 0], [10, 10], [20, 20]]
    assert len(load_calibration(Path(f"{script}:stack"), [INPUT])) == 4
    assert sys.path == paths
    assert set(sys.modules) - modules <= {"calibration_sibling"}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("failing", ["RuntimeError in line 22: disk on fire"]),
        ("failing_at_once", ["ZeroDivisionError in line 25"]),
        ("misshapen", ["item 0, input 'x'", "[3]", "[2]"]),
        ("needs_arguments", ["TypeError", "path"]),
        ("nothing", ["NoneType", "iterable"]),
        ("number", ["no function named 'number'"]),
        ("absent", ["no function named 'absent'"]),
    ],
)
def test_failing_functions(script: Path, function: str, words: list[str]) -> None:
    paths = sys.path[:]
    message = refusal(f"{script}:{function}")
    assert all(word in message for word in [f"{script}:{function}", *words]), message
    assert sys.path == paths


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import absent_module", "ModuleNotFoundError in line 1"),
        ("def f(:", "SyntaxError"),
        ("import sys\nsys.exit(2)", "SystemExit in line 2"),
    ],
)
def test_scripts_that_do_not_load(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "data.py"
    path.write_text(content)
    message = refusal(f"{path}:f")
    assert f"{path}:f" in message
    assert words in message


def test_missing_script(tmp_path: Path) -> None:
    assert "no such file" in refusal(f"{tmp_path}/missing.py:f")
