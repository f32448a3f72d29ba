"""The page itself: its sections filled in, and what a browser may do with it."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from onnxprune.page import wording
from onnxprune.page.groups import groups
from onnxprune.page.latency import latency
from onnxprune.page.layers import layers
from onnxprune.page.origin import origin
from onnxprune.page.refinement import refinement
from onnxprune.page.summary import summary
from onnxprune.replacing import explained, replacing
from onnxprune.saved_report import SavedReport


def page(report: SavedReport) -> str:
    """The page, one HTML document.

    Scripts and styles are those inside, known by their digests; the browser is told to load and to
    send nothing. What the record says is escaped wherever it stands.
    """
    styles, script = (_source(f"page.{kind}") for kind in ("css", "js"))
    return (
        _templates()
        .get_template("page.html")
        .render(
            policy=_policy(styles, script),
            styles=Markup(styles),
            script=Markup(script),
            summary=summary(report),
            latency=latency(report),
            layers=layers(report),
            groups=groups(report),
            refinement=refinement(report),
            origin=origin(report),
            notes=report.notes,
        )
    )


def write_page(report: SavedReport, path: Path) -> None:
    """Write the page of a report.

    Raises:
        OnnxPruneError: the file cannot be written.
    """
    text = page(report)
    with replacing(path) as temporary, explained(path):
        temporary.write_text(text, encoding="utf-8")


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("onnxprune.page", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "count": wording.count,
        "percent": wording.percent,
        "small": wording.small,
        "shown": wording.shown,
        "ms": wording.milliseconds,
        "path": wording.path,
    }
    return templates


def _source(name: str) -> str:
    """A file of the template as it is."""
    templates = _templates()
    assert templates.loader is not None
    text, _, _ = templates.loader.get_source(templates, name)
    return text


def _policy(styles: str, script: str) -> str:
    """The Content-Security-Policy under which the page runs."""
    allowed = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}
    allowed |= {"style-src": _digest(styles), "script-src": _digest(script)}
    return "; ".join(f"{what} {sources}" for what, sources in allowed.items())


def _digest(text: str) -> str:
    found = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{found}'"
