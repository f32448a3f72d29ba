"""What the consumers of one stage are regressed on: rows of the networks' tensors at a cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array
from onnxprune.rectified import Misses
from onnxprune.regression import Regression
from onnxprune.row_sum import RowSum
from onnxprune.sampling import GramRequest, draw_uniforms
from onnxprune.side_by_side import Frontier
from onnxprune.stages import Site

FIT, TUNE = 0, 1
Reader = tuple[int, str]
"""The number of a variant, and the name of a consumer in it."""
Sums = dict[Reader, list[RowSum]]
"""Sums over the samples to fit on and, where they are wanted, over those to tune on."""


@dataclass(frozen=True)
class _Look:
    """How a consumer sees one batch.

    Attributes:
        site: the consumer.
        request: which rows are taken.
        uniforms: the batch's numbers.
    """

    site: Site
    request: GramRequest
    uniforms: NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """What is seen of a batch.

    Attributes:
        batch: its number.
        which: the samples it belongs to, FIT or TUNE.
        rows: what all that is solved keeps, shape (parts, rows, kept features), and its targets,
            shape (parts, rows, outputs).
    """

    batch: int
    which: int
    rows: Mapping[Reader, tuple[Array, Array]]


@dataclass(frozen=True)
class StageRows:
    """How the consumers of one stage are seen in all variants.

    Attributes:
        sites: the consumers.
        regressions: what is solved.
        requests: consumer -> which rows are taken, to fit on and, where wanted, to tune on.
        fit_batches: how many batches there are to fit on; those to tune on follow.
        seed: of the drawn positions.
        mask: the input that says which positions count; None for all.
    """

    sites: Sequence[Site]
    regressions: Mapping[Reader, Regression]
    requests: Mapping[str, Sequence[GramRequest]]
    fit_batches: int
    seed: int = 0
    mask: str | None = None

    def of_batch(self, batch: int, frontier: Frontier) -> Seen:
        """What is seen of a batch."""
        which, looks = self._looks(batch, frontier)
        found = {}
        for look in looks:
            for variant, y in self._targets(look, frontier):
                pruned = frontier.of(variant, look.site.x)
                reader = variant, look.site.name
                rows = self.regressions[reader].kept_rows(look.request, pruned, look.uniforms)
                found[reader] = rows, y
        return Seen(batch, which, found)

    def misses_of_batch(
        self, batch: int, frontier: Frontier, solved: Mapping[Reader, tuple[Array, Array]]
    ) -> dict[Reader, Misses]:
        """What the solutions of some consumers miss in a batch.

        Args:
            batch: its number.
            frontier: the tensors at the cut.
            solved: weights of shape (parts, outputs, kept features), biases (parts, outputs).
        """
        found = {}
        for look in self._looks(batch, frontier)[1]:
            site = look.site
            if site.active is None:
                continue
            for variant, name in solved:
                if name != site.name:
                    continue
                added = self._added(variant, look, frontier)
                if added is None:
                    continue
                found[variant, name] = self.regressions[variant, name].misses(
                    look.request,
                    frontier.of(variant, site.x),
                    frontier.waiting(variant, name),
                    added,
                    solved[variant, name],
                    site.active,
                    look.uniforms,
                )
        return found

    def rectifiable(self, reader: Reader) -> bool:
        """Whether all that is added to what a consumer makes is known, and the activation of it."""
        site = next(site for site in self.sites if site.name == reader[1])
        return site.active is not None and self.regressions[reader].takes_missing

    def _looks(self, batch: int, frontier: Frontier) -> tuple[int, list[_Look]]:
        """Which samples a batch belongs to, and how the sites see it."""
        mask = None if self.mask is None else frontier.original(self.mask)
        which = FIT if batch < self.fit_batches else TUNE
        shard = batch - which * self.fit_batches
        looks = []
        for site in self.sites:
            if which < len(self.requests[site.name]):
                request = self.requests[site.name][which]
                uniforms = draw_uniforms(self.seed + which, shard, request.points)
                looks.append(_Look(site, request.of_batch(mask, uniforms), uniforms))
        return which, looks

    def _targets(self, look: _Look, frontier: Frontier) -> Iterator[tuple[int, Array]]:
        """The variants in which a site is solved, and its targets there."""
        site = look.site
        x = frontier.original(site.x)
        readers = {v: r for (v, name), r in self.regressions.items() if name == site.name}
        own: Array | None = None  # the same for all variants that make their own outputs
        for variant, regression in readers.items():
            if own is None or not regression.makes_own:
                y = regression.target_rows(look.request, x, look.uniforms)
                own = y if regression.makes_own else own
            else:
                y = own
            yield variant, self._with_missing(y, variant, look, frontier)

    def _with_missing(self, y: Array, variant: int, look: _Look, frontier: Frontier) -> Array:
        """Targets with what a variant lacks at the joins behind a consumer."""
        regression = self.regressions[variant, look.site.name]
        if not regression.takes_missing:
            return y
        shape = regression.output_shape(look.request, frontier.original(look.site.x))
        for skip in look.site.skips:
            if frontier.differs(variant, skip) and _fits(frontier.original(skip).shape, shape):
                lacks = frontier.original(skip) - frontier.of(variant, skip)
                rows = np.broadcast_to(lacks, shape)
                y = y + regression.missing_rows(look.request, rows, look.uniforms)
        return y

    def _added(self, variant: int, look: _Look, frontier: Frontier) -> Array | float | None:
        """What a variant adds at the joins behind a consumer, shape (parts, rows, outputs).

        None where a sum is larger than what the consumer makes: one of its rows then stands for
        many of the sum.
        """
        regression = self.regressions[variant, look.site.name]
        shape = regression.output_shape(look.request, frontier.original(look.site.x))
        total: Array | float = 0.0
        for skip in look.site.skips:
            if not _fits(frontier.original(skip).shape, shape):
                return None
            rows = np.broadcast_to(frontier.of(variant, skip), shape)
            total = total + regression.missing_rows(look.request, rows, look.uniforms)
        return total


def add_rows(total: Sums, seen: Seen) -> Sums:
    """Adds the rows of a batch."""
    for reader, (x, y) in seen.rows.items():
        sums = total.setdefault(reader, [])
        if seen.which == len(sums):
            sums.append(RowSum(len(x), x.shape[2], y.shape[2]))
        sums[seen.which].add(x, y)
    return total


def add_misses(total: dict[Reader, Misses], found: dict[Reader, Misses]) -> dict[Reader, Misses]:
    """Adds what was missed in a batch."""
    for reader, misses in found.items():
        if reader in total:
            total[reader].add(misses)
        else:
            total[reader] = misses
    return total


def _fits(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether adding something keeps an output's shape, row by row."""
    pairs = zip(shape[::-1], output[::-1], strict=False)
    return len(shape) <= len(output) and all(own in (1, extent) for own, extent in pairs)
