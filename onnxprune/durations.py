"""Times as users write them."""

from __future__ import annotations

import re

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def seconds_in(text: str) -> float | None:
    """Seconds of a time as 90s, 10m, 10min or 2h; None for any other text."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min|h)", text.strip().lower())
    return float(found[1]) * UNITS[found[2]] if found else None
