"""Numbers as the page says them."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

NOTHING = "\N{EN DASH}"
"""Stands where a number was not measured."""


def count(value: float) -> str:
    """A whole number, with commas."""
    return f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share in per cent, with as many digits as tell it from nothing."""
    if share is None:
        return NOTHING
    digits = 1 if share == 0 or abs(share) >= 0.001 else 2
    return f"{share:.{digits}%}"


def small(value: float | None) -> str:
    """An error or a divergence, to three digits."""
    if value is None:
        return NOTHING
    if value == 0 or 1e-4 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def milliseconds(value: float) -> str:
    """A time of a run."""
    digits = next((d for end, d in ((0.1, 4), (10, 3), (100, 2)) if value < end), 1)
    return f"{value:,.{digits}f} ms"


def size(value: float) -> str:
    """Bytes, as the terminal says them."""
    return f"{value / 1e3:,.0f} kB"


def seconds(value: float) -> str:
    """How long a run took."""
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"


def factor(before: float, after: float, less: str, more: str) -> str:
    """How many times less, or more, there is after."""
    if not before or not after:
        return ""
    ratio = before / after
    word = less if ratio >= 1 else more
    ratio = max(ratio, 1 / ratio)
    if ratio < 1.005:
        return "the same"
    return f"{times(ratio)} {word}"


def times(ratio: float) -> str:
    """How many times, to three digits."""
    digits = next((d for end, d in ((10, 2), (100, 1)) if ratio < end), 0)
    return f"{ratio:,.{digits}f}\N{MULTIPLICATION SIGN}"


def ranges(units: Iterable[int]) -> str:
    """Rising indices, those that follow each other as a range."""
    runs: list[list[int]] = []
    for unit in units:
        if runs and unit == runs[-1][1] + 1:
            runs[-1][1] = unit
        else:
            runs.append([unit, unit])
    return ", ".join(str(a) if a == b else f"{a}{NOTHING}{b}" for a, b in runs)


def path(name: str) -> Markup:
    """The name of a node, which may be broken behind its slashes."""
    return Markup("/<wbr>").join(map(escape, name.split("/")))


def shown(value: object) -> str:
    """A setting: words as they are, yes and no for truth values, nothing for what is not set."""
    if value is None or value == [] or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(inner)}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
