"""What the consumers of one stage are regressed on: rows of the networks' tensors at a cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array
from onnxprune.regression import Moments, Regression
from onnxprune.sampling import GramRequest, draw_uniforms
from onnxprune.side_by_side import Frontier
from onnxprune.stages import Site

FIT, TUNE = 0, 1
Reader = tuple[int, str]
"""The number of a variant, and the name of a consumer in it."""
Sums = dict[Reader, list[Moments]]
"""Moments on the samples to fit on and, where they are wanted, on those to tune on."""


@dataclass(frozen=True)
class StageRows:
    """How the consumers of one stage are seen in all variants.

    Attributes:
        sites: the consumers.
        regressions: what is solved.
        requests: consumer -> which rows are taken, to fit on and, where wanted, to tune on.
        fit_batches: how many batches there are to fit on; those to tune on follow.
        seed: of the drawn positions.
    """

    sites: Sequence[Site]
    regressions: Mapping[Reader, Regression]
    requests: Mapping[str, Sequence[GramRequest]]
    fit_batches: int
    seed: int = 0

    def of_batch(self, batch: int, frontier: Frontier) -> tuple[int, dict[Reader, Moments]]:
        """Which samples a batch belongs to, and its moments."""
        which = FIT if batch < self.fit_batches else TUNE
        shard = batch - which * self.fit_batches
        found = {}
        for site in self.sites:
            if which >= len(self.requests[site.name]):
                continue
            request = self.requests[site.name][which]
            uniforms = draw_uniforms(self.seed + which, shard, request.points)
            x = frontier.original(site.x)
            readers = {v: r for (v, name), r in self.regressions.items() if name == site.name}
            own: Array | None = None  # the same for all variants that make their own outputs
            for variant, regression in readers.items():
                if own is None or not regression.makes_own:
                    y = regression.target_rows(request, x, uniforms)
                    own = y if regression.makes_own else own
                else:
                    y = own
                y = self._with_missing(y, variant, site, frontier, request, uniforms)
                pruned = frontier.of(variant, site.x)
                found[variant, site.name] = regression.moments(request, pruned, y, uniforms)
        return which, found

    def _with_missing(
        self,
        y: Array,
        variant: int,
        site: Site,
        frontier: Frontier,
        request: GramRequest,
        uniforms: NDArray[np.float32],
    ) -> Array:
        """Targets with what a variant lacks at the joins behind a consumer."""
        regression = self.regressions[variant, site.name]
        if not regression.takes_missing:
            return y
        shape = regression.output_shape(request, frontier.original(site.x))
        for skip in site.skips:
            if frontier.differs(variant, skip) and _fits(frontier.original(skip).shape, shape):
                lacks = frontier.original(skip) - frontier.of(variant, skip)
                y = y + regression.missing_rows(request, np.broadcast_to(lacks, shape), uniforms)
        return y

    @staticmethod
    def add(total: Sums, partial: tuple[int, dict[Reader, Moments]]) -> Sums:
        """Adds the moments of a batch."""
        which, found = partial
        for reader, moments in found.items():
            sums = total.setdefault(reader, [])
            if which < len(sums):
                sums[which].add(moments)
            else:
                sums.append(moments)
        return total


def _fits(shape: tuple[int, ...], output: tuple[int, ...]) -> bool:
    """Whether adding something keeps an output's shape, row by row."""
    pairs = zip(shape[::-1], output[::-1], strict=False)
    return len(shape) <= len(output) and all(own in (1, extent) for own, extent in pairs)
