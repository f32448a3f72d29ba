"""Names of channel groups as short as figures need them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_OPERATOR = re.compile(r"(?:Conv(?:Transpose|2D)?|Gemm|MatMul|Einsum|LSTM|GRU|RNN)(?=$|[_#])")
"""How exporters end a node's name: the operator, and a number where there are several."""


def group_labels(names: Sequence[str], room: int) -> list[str]:
    """A different short name for every group.

    ``/layer1/layer1.0/conv1/Conv`` becomes ``layer1.0/conv1``: the operator goes, and so does what
    is said twice or of all groups; of what is still too long, the end stays. Names that would read
    the same get their position, from 1.

    Args:
        names: different names.
        room: characters that a label may have, a position not included; at least 2.
    """
    paths = [_path(name) for name in names]
    while len(paths) > 1 and all(len(p) > 1 for p in paths) and len({p[0] for p in paths}) == 1:
        paths = [path[1:] for path in paths]
    labels = ["/".join(path) for path in paths]
    labels = [text if len(text) <= room else f"…{text[1 - room :]}" for text in labels]
    uses = Counter(labels)
    return [f"{at}: {t}" if uses[t] > 1 else t for at, t in enumerate(labels, start=1)]


def _path(name: str) -> list[str]:
    """The parts of a name, at least one, without the operator and what the next part repeats."""
    *parts, last = [part for part in name.split("/") if part] or [name]
    if parts:
        last = parts.pop() + _OPERATOR.sub("", last) if _OPERATOR.match(last) else last
    parts.append(last)
    pairs = zip(parts, [*parts[1:], ""], strict=True)
    return [part for part, after in pairs if not after.startswith(f"{part}.")]
