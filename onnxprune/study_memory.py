"""What a study has learnt, found again where the same model and samples are studied again.

Kept are the moments of what layers read, the orders of channels and the damage laws: these take
matrices, and passes over all samples. Each has a key of all that it depends on, so that a target,
or any flag that changes none of it, leaves it valid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np

from onnxprune import fingerprints
from onnxprune.allocation import PowerLaw
from onnxprune.arrays import Array
from onnxprune.durations import spelled_age
from onnxprune.gram import Gram
from onnxprune.linear_map import FeatureSpec
from onnxprune.options import Options
from onnxprune.ranking import Ranking
from onnxprune.scope import Scope
from onnxprune.statistics_cache import StatisticsCache

Grams = dict[FeatureSpec, Gram]
T = TypeVar("T")

logger = logging.getLogger(__name__)


class StudyMemory:
    """Finds what is kept of one study, or has it made and keeps it.

    Args:
        cache: where; None to have everything made.
        base: what all of it depends on, as JSON values.
        about: what to show of the entries.
    """

    def __init__(
        self,
        cache: StatisticsCache | None = None,
        base: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self._cache, self._base, self._about = cache, dict(base or {}), dict(about or {})
        self._ages: dict[str, float] = {}

    @property
    def notes(self) -> list[str]:
        """What came from the cache and how old it is, and what went wrong with it."""
        notes = [] if self._cache is None else list(dict.fromkeys(self._cache.notes))
        if self._ages:
            kinds, age = ", ".join(self._ages), spelled_age(max(self._ages.values()))
            notes.insert(0, f"statistics came from the cache: {kinds}; up to {age} old")
        return notes

    def moments(
        self, specs: Sequence[FeatureSpec], make: Callable[[], tuple[Grams, Grams]]
    ) -> tuple[Grams, Grams]:
        """The Grams of these features over the samples to fit on, and over those to tune on."""
        once = list(dict.fromkeys(specs))

        def arrays(grams: tuple[Grams, Grams]) -> dict[str, Array]:
            return {
                f"{part}.{number}": held[spec].sums
                for part, held in zip(("fit", "tune"), grams, strict=True)
                for number, spec in enumerate(once)
            }

        def read(found: Mapping[str, Array]) -> tuple[Grams, Grams]:
            fit, tune = (
                {spec: Gram.of(found[f"{part}.{i}"]) for i, spec in enumerate(once)}
                for part in ("fit", "tune")
            )
            return fit, tune

        return self._remembered(
            "moments", {"features": [asdict(spec) for spec in once]}, make, arrays, read
        )

    def rankings(
        self, scope: Scope, options: Options, make: Callable[[], dict[str, Ranking]]
    ) -> dict[str, Ranking]:
        """Group name -> the order of its channels, and what counts cost."""
        if not _has_name(options):
            return make()
        sizes = {group.name: group.size for group in scope.groups}

        def arrays(rankings: dict[str, Ranking]) -> dict[str, Array]:
            orders = {f"order.{i}": rankings[name].order for i, name in enumerate(sizes)}
            return orders | {f"error.{i}": rankings[name].error for i, name in enumerate(sizes)}

        def read(found: Mapping[str, Array]) -> dict[str, Ranking]:
            rankings = {}
            for i, (name, size) in enumerate(sizes.items()):
                order, error = found[f"order.{i}"], found[f"error.{i}"]
                if error.shape != (size + 1,) or not np.array_equal(np.sort(order), range(size)):
                    raise ValueError(f"no order of the {size} channels of '{name}'")
                rankings[name] = Ranking(order, error)
            return rankings

        return self._remembered("orders", _ranked_by(scope, options), make, arrays, read)

    def laws(
        self, scope: Scope, options: Options, make: Callable[[], dict[str, PowerLaw]]
    ) -> dict[str, PowerLaw]:
        """Group name -> its damage law."""
        names = [group.name for group in scope.groups]

        def arrays(laws: dict[str, PowerLaw]) -> dict[str, Array]:
            return {"laws": np.array([[laws[n].a, laws[n].b, laws[n].residual] for n in names])}

        def read(found: Mapping[str, Array]) -> dict[str, PowerLaw]:
            return dict(zip(names, (PowerLaw(*row) for row in _rows(found, 3, names)), strict=True))

        return self._tried("sensitivity", scope, options, make, arrays, read)

    def drops(
        self, scope: Scope, options: Options, make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """Section name -> what dropping it does."""
        names = [section.name for section in scope.sections]
        if not names:
            return make()

        def arrays(drops: dict[str, float]) -> dict[str, Array]:
            return {"laws": np.array([[drops[name]] for name in names])}

        def read(found: Mapping[str, Array]) -> dict[str, float]:
            return {name: row[0] for name, row in zip(names, _rows(found, 1, names), strict=True)}

        return self._tried("sections", scope, options, make, arrays, read)

    def _tried(
        self,
        kind: str,
        scope: Scope,
        options: Options,
        make: Callable[[], T],
        arrays: Callable[[T], dict[str, Array]],
        read: Callable[[Mapping[str, Array]], T],
    ) -> T:
        """What trials have shown: they depend on the orders, and on how trials are recovered."""
        if not _has_name(options):
            return make()
        allowed = {name: counts.tolist() for name, counts in scope.allowed.items()}
        key = _ranked_by(scope, options) | {
            "allowed": allowed,
            "sequential": options.composition.sequential,
        }
        return self._remembered(kind, key, make, arrays, read)

    def _remembered(
        self,
        kind: str,
        key: Mapping[str, Any],
        make: Callable[[], T],
        arrays: Callable[[T], dict[str, Array]],
        read: Callable[[Mapping[str, Array]], T],
    ) -> T:
        if self._cache is None:
            return make()
        whole = {**self._base, **key}
        found = self._cache.get(kind, whole)
        if found is not None:
            try:
                known = read(found.arrays)
            except (KeyError, ValueError, TypeError) as error:
                self._cache.discard(kind, whole, str(error))
            else:
                logger.debug("%s: from the cache, %s old", kind, spelled_age(found.age))
                self._ages[kind] = max(found.age, self._ages.get(kind, 0.0))
                return known
        made = make()
        self._cache.put(kind, whole, arrays(made), self._about)
        return made


def _has_name(options: Options) -> bool:
    """Whether the criterion can be told from any other."""
    return options.criterion is None or isinstance(options.criterion, str)


def _ranked_by(scope: Scope, options: Options) -> dict[str, Any]:
    method = options.composition
    return {
        "groups": [group.name for group in scope.groups],
        "sections": [section.name for section in scope.sections],
        "criterion": method.criterion,
        "settings": fingerprints.of_values(asdict(options.settings)),
        "patches": method.patches,
        "recovery": method.recovery,
    }


def _rows(found: Mapping[str, Array], width: int, names: Sequence[str]) -> list[list[float]]:
    table = found["laws"]
    if table.shape != (len(names), width) or not np.isfinite(table).all():
        raise ValueError(f"laws of shape {table.shape}, or not finite")
    rows: list[list[float]] = table.tolist()
    return rows


NO_MEMORY = StudyMemory()
"""Has everything made."""
