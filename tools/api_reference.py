"""The reference of the public interface, docs/api.md, from the docstrings.

    python tools/api_reference.py > docs/api.md

``onnxprune`` exports the names of the first part; the others lie in the modules they are listed
under. Nothing of the package is imported: griffe reads the sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Reference of the Python interface

Made from the docstrings by `python tools/api_reference.py > docs/api.md`; a test compares the two.
What is not listed here may change from one version to the next.
"""
PARTS = {
    "Pruning": (
        "onnxprune.prune",
        "onnxprune.Pruner",
        "onnxprune.Options",
        "onnxprune.Target",
        "onnxprune.Result",
        "onnxprune.calibration.load_calibration",
        "onnxprune.calibration.Preprocessing",
    ),
    "Plans": (
        "onnxprune.Plan",
        "onnxprune.Weights",
        "onnxprune.apply",
        "onnxprune.api.apply_plan",
        "onnxprune.plan.Keep",
    ),
    "What a run says": (
        "onnxprune.report.Report",
        "onnxprune.report.Footprint",
        "onnxprune.report.GroupReport",
        "onnxprune.report.FrozenReport",
        "onnxprune.latency.Latency",
        "onnxprune.verdict.Check",
    ),
    "Looking and comparing": (
        "onnxprune.compare",
        "onnxprune.comparison.OutputDistance",
        "onnxprune.survey.survey",
        "onnxprune.find_groups",
        "onnxprune.canonicalise",
    ),
    "Training": (
        "onnxprune.refinement.Refine",
        "onnxprune.refinement.Budget",
        "onnxprune.train.options.TrainOptions",
        "onnxprune.train.training.train",
        "onnxprune.train.training.TrainingResult",
    ),
    "Errors": (
        "onnxprune.OnnxPruneError",
        "onnxprune.errors.UnsupportedModelError",
        "onnxprune.errors.CalibrationError",
        "onnxprune.errors.TargetError",
        "onnxprune.errors.MetricError",
        "onnxprune.errors.ValidationError",
        "onnxprune.errors.PlanMismatchError",
        "onnxprune.errors.ReportError",
        "onnxprune.errors.TrainingError",
        "onnxprune.errors.MissingLibraryError",
    ),
}
"""Title -> the public names under it."""

LISTS = ("parameters", "attributes")
OUTCOMES = {"returns": "Returns", "yields": "Yields", "raises": "Raises"}


def reference() -> str:
    """The page."""
    package = griffe.load("onnxprune", docstring_parser="google", search_paths=[str(ROOT)])
    lines = [HEAD]
    for title, names in PARTS.items():
        lines.append(f"## {title}\n")
        for name in names:
            found = package[name.removeprefix("onnxprune.")]
            lines += entry(name, found.final_target if found.is_alias else found)
    return "\n".join(lines).rstrip() + "\n"


def entry(name: str, found: griffe.Object) -> Iterator[str]:
    """A function, or a class with its public methods."""
    yield f"### `{name}`\n"
    if found.is_function or not is_error(found):
        yield f"```python\n{signature(found)}\n```\n"
    yield from sections(found)
    for member in found.members.values():
        if member.is_public and member.docstring and not member.name.startswith("__"):
            if member.is_function:
                yield f"#### `{found.name}.{member.name}`\n"
                yield f"```python\n{signature(member)}\n```\n"
                yield from sections(member)
            else:
                yield f"- `{member.name}` (property): {told(member.docstring.value)}\n"


def is_error(found: griffe.Object) -> bool:
    """Whether nobody but the package makes one."""
    return found.parent is not None and found.parent.name == "errors"


def signature(found: griffe.Object) -> str:
    """The call with the types and defaults, on one line or a parameter a line."""
    if not found.is_function:
        maker = found.all_members.get("__init__")
        text = maker.signature(name=found.name) if maker else f"{found.name}()"
        text = re.sub(r"\(self(, )?", "(", text).removesuffix(" -> None")
    else:
        text = re.sub(r"\((self|cls)(, )?", "(", found.signature())
    if len(text) <= 88:
        return text
    opening, inner, closing = re.fullmatch(r"(.*?\()(.*)(\).*)", text, re.DOTALL).groups()
    return "\n".join([opening, *(f"    {part}," for part in split(inner)), closing])


def split(arguments: str) -> Iterator[str]:
    """The parameters between commas that are in no brackets."""
    depth, start = 0, 0
    for place, letter in enumerate(arguments):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            yield arguments[start:place].strip()
            start = place + 1
    yield arguments[start:].strip()


def sections(found: griffe.Object) -> Iterator[str]:
    """What the docstring says."""
    for section in found.docstring.parsed if found.docstring else ():
        kind = section.kind.value
        if kind == "text":
            yield f"{literal(section.value)}\n"
        elif kind in LISTS:
            rows = (f"- `{item.name}`: {told(item.description)}" for item in section.value)
            yield "\n".join(rows) + "\n"
        elif kind in OUTCOMES:
            yield f"{OUTCOMES[kind]}:\n"
            rows = (f"- `{item.annotation}`: {told(item.description)}" for item in section.value)
            yield "\n".join(rows) + "\n"


def told(text: str) -> str:
    """A description on one line."""
    return literal(" ".join(text.split()))


def literal(text: str) -> str:
    """Code in Markdown's way."""
    return text.replace("``", "`")


if __name__ == "__main__":
    print(reference(), end="")
