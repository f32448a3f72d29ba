"""Many budgets from one study: a model for each, in a folder that a later run goes on from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from onnxprune import fingerprints
from onnxprune.description import settings_of
from onnxprune.errors import OnnxPruneError, TargetError, ValidationError
from onnxprune.frontier import Frontier, Point
from onnxprune.groundwork import Groundwork
from onnxprune.latency import interleaved_latency
from onnxprune.replacing import explained, replacing
from onnxprune.report import Report
from onnxprune.target import Target

FORMAT = 1
JOURNAL, TABLE, FIGURE = "sweep.json", "frontier.csv", "frontier"
"""Names of files in the folder; that of the figure without its ending."""
SECONDS_EACH = 2.5
"""Time for measuring the latency of one model, about."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """Targets that hold together.

    Attributes:
        targets: the targets.
    """

    targets: tuple[Target, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.targets))

    @property
    def stem(self) -> str:
        """The name of its files, without an ending."""
        return "_".join(map(str, self.targets)).replace("=", "-").replace("%", "pct")


class Made(Protocol):
    """A pruned model that is not a file yet."""

    @property
    def report(self) -> Report:
        """What it cost and what it brought."""

    def save(self, path: str | Path) -> None:
        """Validate it and write it."""


def budgets_of(texts: Sequence[str]) -> list[Budget]:
    """Budgets from targets, one of which may have several values with commas between them.

    Raises:
        ValueError: several have, or a value is none, or the same budget is there twice.
    """
    lists = [_values(text) for text in texts]
    many = [values for values in lists if len(values) > 1]
    if len(many) > 1:
        raise ValueError(
            f"{len(many)} targets have several values; sweep over one, and give the others one "
            "value that holds throughout"
        )
    swept = many[0] if many else lists[0] if lists else []
    if not swept:
        raise ValueError("there is no budget; write for example --target macs=0.8,0.65,0.5")
    found = [
        Budget(tuple(value if values is swept else values[0] for values in lists))
        for value in swept
    ]
    stems = [budget.stem for budget in found]
    twice = next((str(b) for i, b in enumerate(found) if b.stem in stems[:i]), None)
    if twice is not None:
        raise ValueError(f"the budget {twice} is there twice")
    return found


def _values(text: str) -> list[Target]:
    kind, equals, values = text.partition("=")
    return [Target.parse(f"{kind}{equals}{value}") for value in values.split(",")]


@dataclass(frozen=True)
class Sweep:
    """Makes the models of budgets, and measures them together.

    Attributes:
        ground: the model and its samples.
        prune: makes the model of some targets.
        folder: where files go.
    """

    ground: Groundwork
    prune: Callable[[Sequence[Target]], Made]
    folder: Path

    def run(self, budgets: Sequence[Budget]) -> Frontier:
        """One model per budget: made, or found as an earlier run has left it.

        A budget that cannot be reached, or whose model is not sound, is a point with its reason.

        Raises:
            OnnxPruneError: the folder cannot be written, or the samples or the metric fail.
        """
        basis = self._basis()
        entries = _read(self.folder / JOURNAL)  # those of other budgets stay
        points = []
        for budget in budgets:
            key = fingerprints.of_values([basis, [str(t) for t in budget.targets]])
            point = self._found(budget, key, entries.get(budget.stem))
            if point is None:
                point = self._made(budget)
            points.append(point)
            if point.is_model:
                digest = fingerprints.of_file(self.folder / point.file)
                entries[budget.stem] = {"key": key, "sha256": digest, "point": point.to_dict()}
                self._write(entries)
            elif budget.stem in entries:  # of other settings, under which it had a model
                self._remove(budget, entries.pop(budget.stem))
                self._write(entries)
        return self._measured(points)

    def _basis(self) -> dict[str, Any]:
        """What all models depend on."""
        return {
            "onnxprune": version("onnxprune"),
            "model": fingerprints.of_model(self.ground.original),
            "samples": fingerprints.of_samples(self.ground.samples),
            "options": fingerprints.of_options(self.ground.options),
        }

    def _found(self, budget: Budget, key: str, entry: Mapping[str, Any] | None) -> Point | None:
        """The point of a model that is there already; None if it is another, or none."""
        if entry is None:
            return None
        try:
            point = Point.from_dict(entry["point"])
            same = (entry["key"], str(budget)) == (key, point.budget)
            whole = entry["sha256"] == fingerprints.of_file(self.folder / point.file)
            report = self.folder / f"{budget.stem}.json"
            if not (same and whole and report.is_file()):
                return None
        except (KeyError, TypeError, ValueError, OSError):
            return None
        logger.info("%s: found in %s", budget, self.folder)
        return replace(point, state="found", latency=None)

    def _made(self, budget: Budget) -> Point:
        name = f"{budget.stem}.onnx"
        try:
            result = self.prune(budget.targets)
            result.save(self.folder / name)
        except (TargetError, ValidationError) as error:
            logger.info("%s: failed", budget)
            return Point(str(budget), "failed", reason=str(error))
        report = self.folder / f"{budget.stem}.json"
        with explained(report), replacing(report) as temporary:
            result.report.save(temporary)
        point = Point.of(str(budget), name, result.report)
        logger.info("%s: error %.4f", budget, point.relative_error)
        return point

    def _measured(self, points: Sequence[Point]) -> Frontier:
        """The points with the latency of all of them, measured in turns with the original."""
        ground, options = self.ground, self.ground.options
        models = [point for point in points if point.is_model]
        judge = ground.judge
        before = judge.before
        original = Point(
            "original",
            "original",
            macs=before.macs,
            params=before.params,
            bytes=before.bytes,
            metric=judge.metric_before,
        )
        if models:
            times = interleaved_latency(
                [ground.original, *(self.folder / point.file for point in models)],
                judge.timed,
                threads=options.threads,
                provider=options.provider,
                budget_seconds=SECONDS_EACH * (1 + len(models)),
                progress=options.progress,
            )
            original = replace(original, latency=times[0])
            timed = dict(zip((point.budget for point in models), times[1:], strict=True))
            points = [replace(point, latency=timed.get(point.budget)) for point in points]
        return Frontier(
            original,
            points,
            "" if judge.metric is None else judge.metric.name,
            int(ground.parts.held_out.size),
            settings_of((), options),
            [*([ground.parts.note] if ground.parts.note else []), *ground.memory.notes],
        )

    def _remove(self, budget: Budget, entry: Mapping[str, Any]) -> None:
        """Take the files of an earlier sweep away, so that none passes for one of this."""
        model = self.folder / f"{budget.stem}.onnx"
        if entry.get("sha256") == fingerprints.of_file(model):
            for path in (model, model.with_suffix(".json")):
                with explained(path):
                    path.unlink(missing_ok=True)

    def _write(self, entries: Mapping[str, Any]) -> None:
        """Leave word of what is there, for a run that goes on."""
        path = self.folder / JOURNAL
        text = json.dumps({"format": FORMAT, "models": entries}, indent=1)
        with explained(path), replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """What an earlier run has left word of; nothing if that cannot be read.

    Raises:
        OnnxPruneError: there is another file of that name.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] == FORMAT:
            return dict(document["models"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise OnnxPruneError(
        f"{path}: not what a sweep of this version has left; name another folder, or remove it"
    )
