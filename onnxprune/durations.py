"""Times as users write them."""

from __future__ import annotations

import re

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_in(text: str) -> float | None:
    """Seconds of a time as 90s, 10m, 10min, 2h or 30d; None for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h|d)", text.strip().lower())
    return float(found[1]) * UNITS[found[2]] if found else None


def spelled_age(seconds: float) -> str:
    """A time in its largest whole unit: 45 seconds, 3 minutes, 2 hours, 5 days."""
    for unit, size in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' * (count > 1)}"
    count = int(seconds)
    return f"{count} second{'s' * (count != 1)}"
