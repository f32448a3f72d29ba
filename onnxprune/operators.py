"""The operators that have a channel rule, as the registry knows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnxprune.rules import find_fixup, registered
from onnxprune.tables import columns

HEADER = ("operator", "domain", "fix-up", "rule")
INTRODUCTION = """\
# Operators

The operators with a channel rule. Channels pass only through these: at any other operator, and
where a rule leaves an axis out, they are frozen, and `onnxprune inspect` says so. A *fix-up*
corrects attributes and shape constants after a cut. [extending.md](extending.md) says how to add
an operator.

`onnxprune ops --markdown > docs/operators.md` writes this page.
"""


@dataclass(frozen=True)
class Operator:
    """One operator with a channel rule.

    Attributes:
        name: the operator.
        domain: its domain.
        fixup: whether it is corrected after a cut.
        rule: what its rule says, in a line.
    """

    name: str
    domain: str
    fixup: bool
    rule: str


def operators() -> list[Operator]:
    """Every operator with a channel rule, by domain and name."""
    return [
        Operator(
            name,
            domain or "ai.onnx",
            find_fixup(gs.Node(name, domain=domain)) is not None,
            (rule.__doc__ or "").strip().partition("\n")[0],
        )
        for (domain, name), rule in sorted(registered().items())
    ]


def table(rows: Sequence[Operator]) -> str:
    """The operators for a terminal."""
    return "\n".join(columns([HEADER, *map(_cells, rows)]))


def markdown(rows: Sequence[Operator]) -> str:
    """The operators as a page of the documentation."""
    lines = [HEADER, ("---",) * len(HEADER), *map(_cells, rows)]
    return "\n".join([INTRODUCTION, *(f"| {' | '.join(map(_escaped, line))} |" for line in lines)])


def _cells(row: Operator) -> tuple[str, ...]:
    return row.name, row.domain, "yes" if row.fixup else "", row.rule


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
