"""Elements of SVG as escaped text."""

from __future__ import annotations

from markupsafe import Markup, escape

Value = str | float


def element(tag: str, *children: Markup | str, **attributes: Value) -> Markup:
    """One element; text among the children and the attributes is escaped.

    Args:
        tag: its name.
        children: what it holds.
        attributes: with ``_`` for ``-``, and one at the end where Python has that word itself.
    """
    said = "".join(
        f' {name.strip("_").replace("_", "-")}="{escape(written(value))}"'
        for name, value in attributes.items()
    )
    inside = "".join(map(escape, children))
    return Markup(f"<{tag}{said}>{inside}</{tag}>")


def written(value: Value) -> str:
    """A coordinate to a tenth of a pixel, or a word."""
    if isinstance(value, str):
        return value
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def picture(
    width: float, height: float, label: str, *children: Markup, classes: str = ""
) -> Markup:
    """A chart, which says in words what it shows."""
    return element(
        "svg",
        *children,
        class_=f"chart {classes}".strip(),
        viewBox=f"0 0 {written(width)} {written(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def text(x: float, y: float, words: str, classes: str = "tick", **attributes: Value) -> Markup:
    """Words at a place."""
    return element("text", words, x=x, y=y, class_=classes, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=classes)


def bar(x: float, y: float, width: float, height: float, classes: str, title: str = "") -> Markup:
    """A rectangle, with words that show where the pointer rests."""
    inside = [element("title", title)] if title else []
    return element("rect", *inside, x=x, y=y, width=width, height=max(height, 0.0), class_=classes)


def dot(x: float, y: float, radius: float, classes: str, title: str = "") -> Markup:
    """A point, with words that show where the pointer rests."""
    inside = [element("title", title)] if title else []
    return element("circle", *inside, cx=x, cy=y, r=radius, class_=classes)


def meter(share: float, classes: str = "") -> Markup:
    """A bar as wide as a share of its place; beside a number that says the same."""
    width = f"{100 * min(max(share, 0.0), 1.0):.1f}%"
    return element(
        "svg",
        element("rect", width="100%", height="100%", rx="3", class_="track"),
        element("rect", width=width, height="100%", rx="3", class_="fill"),
        class_=f"meter {classes}".strip(),
        aria_hidden="true",
        focusable="false",
    )
