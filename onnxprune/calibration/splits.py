"""Which samples solutions are fitted on, which decide, and which only report."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.arrays import IndexArray
from onnxprune.errors import CalibrationError

HELD_OUT_SHARE = 0.10
TUNE_SHARE = 0.15
MAX_SAMPLES = 500
"""Neither the report nor a choice gets better from more samples than this; the fit does."""


@dataclass(frozen=True)
class Split:
    """Sample indices by use; each sorted, and disjoint if there are enough samples.

    Attributes:
        fit: the statistics and the recovered weights come from these.
        tune: features, ridge and counts are chosen by these.
        held_out: only measured, for the report.
        note: one sentence where the three are not disjoint, else empty.
        choose: the weights of a refinement are chosen by these; nothing else looks at them.
    """

    fit: IndexArray
    tune: IndexArray
    held_out: IndexArray
    note: str = ""
    choose: IndexArray = field(default_factory=lambda: np.empty(0, np.int64))

    def with_copies(self, length: int) -> Split:
        """The same with copies of all that is fitted on; a copy lies ``length`` behind its sample.

        What is tuned on, chosen by or reported stays as it is, and has copies only where the parts
        are not disjoint.
        """
        return replace(self, fit=np.concatenate([self.fit, self.fit + length]))

    def with_choice(self, seed: int, *, batch_extent: int = 1) -> Split:
        """The same with samples to choose by, as many as there are to tune, taken from ``fit``.

        Recovery ends on the samples to fit and to tune on together, so that neither could tell
        whether other weights are better. Where there are too few to be divided, those to tune on
        choose as well.
        """
        units = self.fit.size // batch_extent
        taken = min(self.tune.size // batch_extent, units // 2) * batch_extent
        if not taken or self.note:
            note = "Too few samples: those that choose refined weights were fitted on as well."
            return replace(self, choose=self.tune, note=self.note or note)
        order = np.random.default_rng([seed, 1]).permutation(self.fit)
        choose, fit = np.split(order, [taken])
        return replace(self, fit=np.sort(fit), choose=np.sort(choose))


def split(length: int, seed: int, *, batch_extent: int = 1) -> Split:
    """Divide the samples 0 .. length - 1 at random: 10 % held out, 15 % to tune, the rest to fit.

    Held-out and tune samples are at least 1 and at most 500 each. One sample serves all three
    uses; of two, one is held out and the other serves to fit and to tune.

    Args:
        length: number of samples.
        seed: of the random permutation.
        batch_extent: the batch size the model is fixed to, if any: samples are then divided in
            whole batches, so that every part can be run; the remainder goes to ``fit``.
    """
    if length == 0:
        raise CalibrationError("There are no calibration samples; at least one is needed.")
    units = length // batch_extent
    if units == 0:
        raise CalibrationError(
            f"The model takes batches of exactly {batch_extent} samples, but the calibration set "
            f"has {length}; add {batch_extent - length} or more."
        )
    order = np.random.default_rng(seed).permutation(length).astype(np.int64)
    one, two = ("sample", "samples") if batch_extent == 1 else ("batch", "batches")
    if units == 1:
        every = np.sort(order)
        note = (
            f"Only one calibration {one}: it fits, tunes and reports, so the report is optimistic."
        )
        return Split(every, every, every, note)
    held_out, rest = np.split(order, [_share(units, HELD_OUT_SHARE, batch_extent)])
    if units == 2:
        fit = np.sort(rest)
        note = f"Only two calibration {two}: one is held out, the other both fits and tunes."
        return Split(fit, fit, np.sort(held_out), note)
    tune, fit = np.split(rest, [_share(units, TUNE_SHARE, batch_extent)])
    return Split(np.sort(fit), np.sort(tune), np.sort(held_out))


def _share(units: int, share: float, batch_extent: int) -> int:
    """Samples in a share of the units, within the bounds."""
    most = max(1, MAX_SAMPLES // batch_extent)
    return min(max(round(share * units), 1), most) * batch_extent
