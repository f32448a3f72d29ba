"""``--json``: standard output holds one JSON document, the record or the error, and nothing else.

What is printed meanwhile, by the code of users or of libraries, goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO


@dataclass
class Document:
    """The document of one call of the command.

    Attributes:
        stream: where it goes.
        shown: whether it is there; it may be a record although an error follows.
    """

    stream: TextIO
    shown: bool = False

    def write(self, content: Any) -> None:
        """Put it out."""
        print(json.dumps(content, indent=1, allow_nan=False), file=self.stream, flush=True)
        self.shown = True

    def fail(self, kind: str, message: str, code: int) -> None:
        """Say what went wrong, unless there is a record that says it."""
        if not self.shown:
            self.write({"error": {"type": kind, "message": message, "exit_code": code}})


_CURRENT: ContextVar[Document | None] = ContextVar("document", default=None)


def show(record: Any) -> None:
    """Print a record as the one document of this call."""
    (_CURRENT.get() or Document(sys.stdout)).write(record)


@contextmanager
def document() -> Iterator[Document]:
    """Keep standard output for what ``show`` prints."""
    made = Document(sys.stdout)
    token = _CURRENT.set(made)
    try:
        with redirect_stdout(sys.stderr):
            yield made
    finally:
        _CURRENT.reset(token)


def report_usage(parser: argparse.ArgumentParser, made: Document) -> None:
    """Have a parser say what is wrong with the usage in the document as well."""
    plain = parser.error

    def error(message: str) -> NoReturn:
        made.fail("UsageError", message, 2)
        plain(message)

    parser.error = error  # type: ignore[method-assign]
