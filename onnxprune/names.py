"""Names that nothing else in a graph has."""

from __future__ import annotations


def fresh(name: str, taken: set[str]) -> str:
    """The name, with underscores appended until it is new; it is entered into ``taken``."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
