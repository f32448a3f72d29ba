"""Mutated inputs of every reader: success or a typed error, within limits of memory and time."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))

import fuzz
from fuzzing import targets, workers
from fuzzing.targets import READERS
from fuzzing.workers import run

from onnxprune.errors import OnnxPruneError

QUICK, MANY = 300, 10_000
"""Inputs of all targets together, in the daily run and in CI."""
SEED = 7


def inputs(whole: int, name: str) -> range:
    """The share of a target."""
    shares = sum(reader.share for reader in READERS.values())
    return range(max(1, round(whole * READERS[name].share / shares)))


@pytest.mark.parametrize("whole", [QUICK, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_nothing_but_typed_errors(name, whole):
    numbers = inputs(whole, name)
    outcome = run(SEED, name, numbers)
    assert outcome.findings == []
    assert outcome.counts.total() == len(numbers)


def test_an_input_follows_from_its_number():
    for name in READERS:
        assert workers.made(SEED, name, 3) == workers.made(SEED, name, 3)
        assert workers.made(SEED, name, 3) != workers.made(SEED + 1, name, 3)


def test_the_figures_are_those_recorded():
    page = Path(fuzz.ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert fuzz.table(fuzz.recorded(fuzz.RESULTS)) in page


def eats(_: Path) -> None:
    held = []
    while True:
        held.append(bytearray(1 << 24))


def spins(_: Path) -> None:
    while True:
        pass


def dies(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def trespasses(folder: Path) -> None:
    (folder.parent.parent / "litter").write_text("litter")


def connects(_: Path) -> None:
    socket.create_connection(("127.0.0.1", 9))


def unpickles(_: Path) -> None:
    pickle.loads(b"cos\nsystem\n.")


def fails(_: Path) -> None:
    raise KeyError("no typed error")


def says_nothing(_: Path) -> None:
    raise OnnxPruneError("")


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (eats, "memory"),
        (spins, "slow"),
        (dies, "signal 11"),
        (trespasses, "ForbiddenError"),
        (connects, "ForbiddenError"),
        (unpickles, "ForbiddenError"),
        (fails, "KeyError"),
        (says_nothing, "no message"),
    ],
)
def test_what_must_not_happen_is_found(monkeypatch, planted, kind):
    monkeypatch.setitem(READERS, "planted", targets.Reader(lambda _: {"in": b""}, planted, 1))
    monkeypatch.setattr(workers, "MEMORY", 1 << 27)
    monkeypatch.setattr(workers, "CPU_SECONDS", 0.1 if planted is spins else 10)
    outcome = run(SEED, "planted", range(2))
    assert outcome.counts == {kind: 2}
    assert [finding["number"] for finding in outcome.findings] == [0, 1]
