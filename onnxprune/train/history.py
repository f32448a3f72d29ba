"""The record of a training: one row per evaluation, in memory and in a file.

Nothing here needs torch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxprune.errors import ReportError
from onnxprune.replacing import explained, replacing

Row = dict[str, float | None]

COLUMNS = (
    "step",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
)
"""Every row has these, empty where nothing was measured; methods add their own behind them."""
WHOLE = ("step", "epoch")


class History:
    """Rows, appended to a file as they come.

    Args:
        path: a .csv or .jsonl file; None for memory alone. What it held is replaced.
        rows: those of before, when training goes on.

    Raises:
        OnnxPruneError: the file cannot be written.
    """

    def __init__(self, path: Path | None, rows: Sequence[Mapping[str, float | None]] = ()) -> None:
        self.path = path
        self.rows: list[Row] = [dict(row) for row in rows]
        if path is not None:
            with replacing(path) as temporary:
                temporary.write_text("".join(self._lines()), encoding="utf-8")

    def add(self, row: Mapping[str, float | None]) -> None:
        """Append a row; its columns are those of the rows before."""
        self.rows.append(dict(row))
        if self.path is None:
            return
        with explained(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            if len(self.rows) == 1:
                file.write(self._head())
            file.write(self._line(self.rows[-1]))

    def _lines(self) -> list[str]:
        return [self._head() if self.rows else "", *(self._line(row) for row in self.rows)]

    def _head(self) -> str:
        return _csv_line(list(self.rows[0])) if self._is_csv else ""

    @property
    def _is_csv(self) -> bool:
        return self.path is not None and self.path.suffix.lower() == ".csv"

    def _line(self, row: Row) -> str:
        if self._is_csv:
            return _csv_line(["" if v is None else _plain(v) for v in row.values()])
        return json.dumps(row) + "\n"


def _plain(value: float) -> str:
    return repr(value)


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def read_history(path: Path) -> list[Row]:
    """The rows of a file that a training has written.

    Raises:
        ReportError: it is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".csv":
            rows = [_numbers(row) for row in csv.DictReader(io.StringIO(text))]
        else:
            rows = [_checked(json.loads(line)) for line in text.splitlines()]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ReportError(f"{path}: not the history of a training ({error})") from error
    if not rows or any(column not in row for row in rows for column in COLUMNS):
        raise ReportError(
            f"{path}: not the history of a training; give the file that `onnxprune train` wrote "
            "with --history"
        )
    return rows


def _numbers(row: Mapping[str, str]) -> Row:
    return {
        name: None if cell == "" else int(cell) if name in WHOLE else float(cell)
        for name, cell in row.items()
    }


def _checked(row: Mapping[str, object]) -> Row:
    found: Row = {}
    for name, value in row.items():
        if value is not None and not isinstance(value, int | float):
            raise ValueError(f"{name} is {value!r}, which is no number")
        found[name] = value
    return found
