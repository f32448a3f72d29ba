"""How a run is carried out; every default lives here, once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from onnxprune.alignment import Align
from onnxprune.allocation import ALLOCATIONS
from onnxprune.calibration import Preprocessing
from onnxprune.criteria import CRITERIA, Criterion, Settings
from onnxprune.criteria.orders import ORDERS
from onnxprune.criteria.protocol import Moments
from onnxprune.labels import Labels
from onnxprune.methods import METHODS, RECOVERIES, Method
from onnxprune.metric import UserMetric
from onnxprune.recovery import Recovery
from onnxprune.refinement import Refine
from onnxprune.runtime import Provider
from onnxprune.saved_moments import SavedMoments

_READERS = {
    "order": ("snp",),
    "moments": ("squeeze", "information"),
    "cutoff": ("cumvar",),
    "information": ("information",),
}
"""Setting -> the criteria and allocations that look at it."""


@dataclass(frozen=True)
class Options:
    """Settings of ``prune``; the names are the command's.

    Attributes:
        method: name of a method; what follows overrides parts of it.
        criterion: name of a criterion, or a criterion; None for the method's.
        allocation: name of an allocation; None for the method's.
        recovery: whether consumers are recovered; without, they are only sliced.
        sequential: whether consumers are recovered in order, each on the pruned network's inputs;
            None for what the method does.
        order: which channels come first for the criterion "snp", a name in ``ORDERS``; None for
            the paper's.
        moments: what the criterion and the allocation of "squeeze" look at, "covariance" or
            "correlation"; None for the former.
        cutoff: for the allocation "cumvar", in place of targets: channels go whose share of what
            is left unexplained is below it.
        information: for the allocation "information", in place of targets: the share of the
            variance that the principal components carry of which as many channels are kept.
        align: channel counts are multiples of this; "auto" stays in onnxruntime's fast layout;
            None for what the method does.
        include: regular expression; only groups whose name, or the name of a node that
            makes their channels, it finds are cut.
        exclude: regular expression; groups whose name, or the name of a node that makes their
            channels, it finds stay whole.
        sections: whether residual sections may be dropped, where that does less than narrowing;
            only the "sensitivity" allocation can tell.
        provider: onnxruntime provider: "cpu", "cuda" or "tensorrt".
        num_samples: calibration samples used; None for all.
        batch: samples per batch, where the model leaves that open.
        max_memory: bytes of statistics and activations to hold; more go to temporary files, which
            changes the time and not the result. What onnxruntime and the work on one layer take
            comes on top. None for no limit.
        seed: of every random choice.
        preprocessing: how image files become inputs.
        mask: name of the input that says which positions of a sample count, of shape (samples,
            positions) and zero where there is padding: rows of padding are left out of all
            statistics, and of outputs that have positions. None where all count.
        mirror: whether samples are also fitted on with their images mirrored, left and right; for
            models that take an image and its mirror image for the same.
        progress: whether long stages show a bar.
        latency: whether latency is measured for the report.
        latency_batch: samples in the feed that is timed; None for one, or for the batch size the
            model is fixed to.
        latency_shape: input name -> shape of the feed that is timed, batch included, where samples
            differ; None for the most common one.
        threads: threads within one operator while latency is measured.
        evaluate: judges a model by a function of what it predicts, or ``file.py:function``;
            higher is better.
        labels: classes of the calibration samples, by which models are judged instead; an array,
            or an .npy file.
        refine: how the weights are trained after pruning, with the original as the teacher; None
            for not at all. Needs torch.
        statistics: moments of plain channels that training has learnt, or the file they are in,
            in place of those of the samples; for methods that know channels and not patches.
        cache: folder where statistics of the samples are kept for later runs; None for the one that
            the environment variable ONNXPRUNE_CACHE names, if it names one; empty for none.
        cache_size: bytes that all that is kept there may take.
    """

    method: str = "onnxprune"
    criterion: str | Criterion | None = None
    allocation: str | None = None
    recovery: bool = True
    sequential: bool | None = None
    order: str | None = None
    moments: Moments | None = None
    cutoff: float | None = None
    information: float | None = None
    align: Align | None = None
    include: str | None = None
    exclude: str | None = None
    sections: bool = False
    provider: Provider = "cpu"
    num_samples: int | None = None
    batch: int = 32
    max_memory: int | None = None
    seed: int = 0
    preprocessing: Preprocessing | None = None
    mask: str | None = None
    mirror: bool = False
    progress: bool = False
    latency: bool = True
    latency_batch: int | None = None
    latency_shape: Mapping[str, tuple[int, ...]] | None = None
    threads: int = 1
    evaluate: str | UserMetric | None = None
    labels: Labels | None = None
    refine: Refine | None = None
    statistics: str | Path | SavedMoments | None = None
    cache: str | Path | None = None
    cache_size: int = 2_000_000_000

    def __post_init__(self) -> None:
        _check_name("method", self.method, METHODS)
        _check_name("criterion", self.criterion, CRITERIA)
        _check_name("allocation", self.allocation, ALLOCATIONS)
        _check_name("order", self.order, ORDERS)
        _check_name("moments", self.moments, dict.fromkeys(get_args(Moments)))
        self._check_parts()
        if self.provider not in get_args(Provider):
            known = ", ".join(get_args(Provider))
            raise ValueError(f"unknown provider '{self.provider}'; known: {known}")
        if isinstance(self.align, str) and self.align != "auto":
            raise ValueError(f"align is 'auto' or a number of channels, not '{self.align}'")
        for name in ("batch", "num_samples", "align", "threads", "latency_batch"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
        if self.max_memory is not None and self.max_memory < 0:
            raise ValueError(f"max_memory must not be negative, but is {self.max_memory}")
        if self.cache_size < 0:
            raise ValueError(f"cache_size must not be negative, but is {self.cache_size}")
        if self.evaluate is not None and self.labels is not None:
            raise ValueError("evaluate and labels are two ways to judge a model; give one")
        if self.mask is not None and self.refine is not None:
            raise ValueError(
                "refining does not leave masked positions out; give a mask or refine, not both"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")
        _check_pattern(self.include)
        _check_pattern(self.exclude)

    def _check_parts(self) -> None:
        """What only some parts of a method look at is given with one of them."""
        for name in ("cutoff", "information"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {share:g}")
        parts = {self.composition.criterion, self.composition.allocation}
        for name, readers in _READERS.items():
            if getattr(self, name) is not None and parts.isdisjoint(readers):
                raise ValueError(
                    f"{name} is for {' and '.join(readers)}, which this run does not use; choose "
                    "a method or a part that does"
                )

        if self.statistics is not None and METHODS[self.method].patches:
            known = ", ".join(name for name, method in METHODS.items() if not method.patches)
            raise ValueError(
                f"statistics are moments of plain channels, and {self.method} needs those of "
                f"patches; choose a method that knows channels: {known}"
            )
        if self.statistics is not None and self.mirror:
            raise ValueError(
                "learnt statistics are of no samples that could be mirrored; give one of the two"
            )

    def require_choice(self, targets: Sequence[object]) -> None:
        """Counts are fixed by a share or bound by targets.

        Raises:
            ValueError: there are both.
        """
        if targets and self.level is not None:
            name = "information" if self.cutoff is None else "cutoff"
            raise ValueError(f"{name} fixes how much is pruned; give it or a target, not both")

    @property
    def level(self) -> float | None:
        """The share left unexplained that fixes all counts (see ``spectra``); None for targets.

        A channel goes if its own share is below the cut-off, not if it reaches it.
        """
        if self.cutoff is not None:
            return math.nextafter(self.cutoff, -1.0)
        return None if self.information is None else 1.0 - self.information

    @property
    def frontier_memory(self) -> int | None:
        """The share of ``max_memory`` that is for tensors at a cut; None for no limit."""
        return None if self.max_memory is None else self.max_memory // 2

    @property
    def composition(self) -> Method:
        """The method with what overrides it; a criterion without a name cannot be told."""
        method = METHODS[self.method]
        recovery = method.recovery if self.recovery else "none"
        in_order = method.sequential if self.sequential is None else self.sequential
        return replace(
            method,
            criterion=self.criterion if isinstance(self.criterion, str) else method.criterion,
            allocation=self.allocation or method.allocation,
            recovery=recovery,
            sequential=in_order and recovery != "none",
            align=method.align if self.align is None else self.align,
        )

    @property
    def settings(self) -> Settings:
        """What the criterion is told."""
        order, moments = self.order or Settings.order, self.moments or Settings.moments
        return Settings(self.seed, order, moments)

    def make_criterion(self) -> Criterion:
        """The criterion itself."""
        if self.criterion is None or isinstance(self.criterion, str):
            return CRITERIA[self.composition.criterion](self.settings)
        return self.criterion

    def make_recovery(self) -> Recovery:
        """The recovery itself."""
        return RECOVERIES[self.composition.recovery]

    def selects(self, names: tuple[str, ...]) -> bool:
        """Whether a group made by nodes of these names may be cut."""
        included = self.include is None or any(re.search(self.include, n) for n in names)
        excluded = self.exclude is not None and any(re.search(self.exclude, n) for n in names)
        return included and not excluded


def _check_name(kind: str, given: object, table: Mapping[str, object]) -> None:
    if isinstance(given, str) and given not in table:
        raise ValueError(f"unknown {kind} '{given}'; known: {', '.join(table)}")


def _check_pattern(pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"'{pattern}' is not a regular expression: {error}") from error
