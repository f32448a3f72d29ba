"""Files of measurements: one JSON object per line, appended as they come, so that a run resumes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Measurement = dict[str, Any]


def recorded(path: Path) -> list[Measurement]:
    """Every row of a file, of which there need be none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def record(path: Path, row: Measurement) -> None:
    """Append a row and show it on standard error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, file=sys.stderr, flush=True)
