"""Bars are for terminals; the items come through unchanged either way."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from onnxprune import progress
from onnxprune.executor import InProcess
from onnxprune.progress import shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal(delay: float = 0.0) -> Iterator[Terminal]:
    """Standard error as a terminal; no fixture, as pytest takes it back before the test runs."""
    with pytest.MonkeyPatch.context() as patch:
        screen = Terminal()
        patch.setattr(sys, "stderr", screen)
        patch.setattr(progress, "DELAY", delay)
        yield screen


def test_nothing_is_printed_where_there_is_no_terminal(capfd, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    assert list(shown(range(5), "counting")) == list(range(5))
    assert capfd.readouterr() == ("", "")


def test_a_terminal_sees_the_label_and_the_count():
    with terminal() as screen:
        assert list(shown(iter("abc"), "spelling", count=3)) == ["a", "b", "c"]
        assert list(shown([1, 2], "adding")) == [1, 2]
    assert "spelling" in screen.getvalue()
    assert "0/3" in screen.getvalue()
    assert "0/2" in screen.getvalue()


def test_the_bar_is_gone_in_the_end():
    with terminal() as screen:
        list(shown(range(3), "counting"))
    *_, last = screen.getvalue().removesuffix("\r").split("\r")
    assert last.strip() == ""
    assert "\n" not in screen.getvalue()


def test_no_bar_on_request():
    with terminal() as screen:
        assert list(shown(range(5), "counting", progress=False)) == list(range(5))
    assert screen.getvalue() == ""


def test_what_is_fast_needs_no_bar():
    with terminal(progress.DELAY) as screen:
        list(shown(range(5), "counting"))
    assert screen.getvalue() == ""


def test_items_are_taken_one_by_one():
    """A bar must not read ahead: batches are large."""
    taken = []

    def items():
        for number in range(3):
            taken.append(number)
            yield number

    iterator = iter(shown(items(), "counting", progress=False))
    assert next(iterator) == 0
    assert taken == [0]


def test_a_bar_that_is_moved_by_hand_shows_how_far_it_is_and_what_is_known():
    with terminal() as screen, progress.counter("training", 40, start=10, unit="steps") as bar:
        bar.update(20)
        bar.set_postfix(loss="0.25")
    assert "training:  75%" in screen.getvalue()
    assert "30/40 steps" in screen.getvalue()
    assert "left, loss=0.25" in screen.getvalue()


def test_data_passes_show_what_they_do():
    with terminal() as screen:
        total = InProcess(progress=True).map_reduce(
            lambda number, shard: number * shard, [3, 4], lambda a, b: a + b, 0, label="statistics"
        )
    assert total == 4
    assert "statistics" in screen.getvalue()
