"""Regressions of a consumer's targets on what it reads in the pruned network, one per part.

The features x' are the kept entries of the pruned network's activation, the targets y what the
consumer made in the original network, and what is missing at the residual join behind it:

    y = W x + b + (skip - skip')

with x and skip from the original network and skip' from the pruned one, at the same positions of
the same samples (asymmetric reconstruction, arXiv 1505.06798; the skip term is derived here).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.arrays import Array, IndexArray, Matrix
from onnxprune.host_gram import feature_rows
from onnxprune.layer_problem import LayerProblem, Targets
from onnxprune.linear_map import FeatureSpec
from onnxprune.normal_equations import features_of
from onnxprune.problems import ConsumerView
from onnxprune.rectified import Misses, missed
from onnxprune.row_sum import Moments
from onnxprune.sampling import GramRequest, window_extents
from onnxprune.scores import about_zero
from onnxprune.stages import Interval


@dataclass(frozen=True)
class Regression:
    """How one consumer's rows are taken, and what they are regressed on.

    Attributes:
        view: the consumer.
        entries: entries of the axis it reads that survive, shape (kept entries,).
        keep: for every part the entries of its problem that survive.
        target: W and b of the targets, for every part shape (outputs, features + 1).
        prior: weights of the kept features to start from, shape (outputs, kept features + 1).
        makes_own: whether ``target`` holds the consumer's own weights.
    """

    view: ConsumerView
    entries: IndexArray
    keep: list[IndexArray]
    target: Array
    prior: list[Matrix]
    makes_own: bool = True

    @classmethod
    def of(
        cls,
        view: ConsumerView,
        alive: Array,
        target: tuple[Array, Array],
        prior: tuple[Array, Array],
        *,
        makes_own: bool = True,
    ) -> Regression:
        """The regression of a consumer.

        Args:
            view: the consumer.
            alive: which network-wide channels survive, shape (channels,).
            target: weight tensor and bias that make the targets of the original's activation.
            prior: weight tensor with the kept inputs only, and bias.
            makes_own: whether ``target`` is the consumer's own.
        """
        kept = view.kept_inputs(alive)
        width = view.linear_map.inputs // view.linear_map.groups
        entries = np.concatenate([part + i * width for i, part in enumerate(kept)])
        made = np.stack(view.matrices(*target)).astype(np.float32)
        return cls(view, entries, view.keep(alive), made, view.matrices(*prior), makes_own)

    @property
    def features(self) -> int:
        """Kept features of each part."""
        return int(self.prior[0].shape[1]) - 1

    def sliced(self, part: int) -> Matrix | None:
        """The consumer's own weights of the kept features; None where others make the targets.

        Returns:
            Array of shape (outputs, kept features + 1), the bias last.
        """
        if not self.makes_own:
            return None
        keep, own = self.keep[part], self.target[part].astype(np.float64)
        taps = self.features // max(keep.size, 1)
        sliced: Matrix = own[:, np.append(features_of(keep, taps), -1)]
        return sliced

    def target_rows(self, request: GramRequest, x: Array, uniforms: NDArray[np.float32]) -> Array:
        """The targets W x + b of one batch, shape (parts, rows, outputs).

        Args:
            request: which rows of x.
            x: what the consumer reads in the original network.
            uniforms: the shard's numbers.
        """
        original = feature_rows(request, x, uniforms).astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # shows in the moments
            y: Array = original @ self.target[:, :, :-1].transpose(0, 2, 1)
        return y if self._about_zero else y + self.target[:, None, :, -1]

    def kept_rows(
        self, request: GramRequest, pruned_x: Array, uniforms: NDArray[np.float32]
    ) -> Array:
        """The kept features of one batch, shape (parts, rows, kept features).

        Args:
            request: which rows of x.
            pruned_x: what the consumer reads in the pruned network, at full size.
            uniforms: the shard's numbers.
        """
        axis = request.spec.axis
        kept_x = np.take(pruned_x, self.entries, axis=axis)
        narrow = replace(request, extent=kept_x.shape[axis])
        return feature_rows(narrow, kept_x, uniforms).astype(np.float32)

    def misses(
        self,
        request: GramRequest,
        pruned_x: Array,
        y: Array,
        added: Array | float,
        solved: tuple[Array, Array],
        active: Interval,
        uniforms: NDArray[np.float32],
    ) -> Misses:
        """How weights miss the targets of one batch, as far as it matters (see ``rectified``).

        Args:
            request: which rows of x.
            pruned_x: what the consumer reads in the pruned network, at full size.
            y: the targets, shape (parts, rows, outputs).
            added: what the pruned network adds to the output, of the same shape; 0 for nothing.
            solved: weights of shape (parts, outputs, kept features), biases (parts, outputs).
            active: where the activation of the sum is not constant.
            uniforms: the shard's numbers.
        """
        x = self.kept_rows(request, pruned_x, uniforms)
        weight, bias = solved
        made = x @ weight.transpose(0, 2, 1) + bias[:, None] + added
        return Misses.of(x, missed(y + added, made, active))

    def missing_rows(
        self, request: GramRequest, missing: Array, uniforms: NDArray[np.float32]
    ) -> Array:
        """What is missing at the rows' positions, shape (parts, rows, outputs).

        Args:
            request: which rows of x.
            missing: what the pruned network lacks at a join behind, of the shape of the output.
            uniforms: the shard's numbers.
        """
        linear_map = self.view.linear_map
        spec = FeatureSpec(
            linear_map.y.name, missing.ndim, linear_map.y_axis, parts=linear_map.groups
        )
        wanted = GramRequest(
            spec, missing.shape[linear_map.y_axis], request.points, picked=request.picked
        )
        return feature_rows(wanted, missing, uniforms).astype(np.float32)

    def problems(self, fit: Moments, tune: Moments) -> list[LayerProblem]:
        """A problem for every part, whose entries are all kept."""
        rows, tune_rows = fit.rows, tune.rows
        fit, tune = (self._complete(moments.mean()) for moments in (fit, tune))
        channels = self.view.linear_map.read(self.view.channels)
        return [
            LayerProblem(
                name=self.view.name,
                weight=self.prior[part],
                gram=fit.gram[part],
                tune_gram=tune.gram[part],
                channels=channels[part][keep],
                taps=(self.prior[part].shape[1] - 1) // max(keep.size, 1),
                rows=rows,
                zero_padded=self.view.zero_padded,
                targets=Targets(fit.cross[part], float(fit.second[part])),
                tune_targets=Targets(tune.cross[part], float(tune.second[part])),
                tune_rows=tune_rows,
            )
            for part, keep in enumerate(self.keep)
        ]

    @property
    def _about_zero(self) -> bool:
        """Whether one bias cannot take over means, as behind a transposed convolution."""
        return self.view.linear_map.upsampling > 1

    def _complete(self, moments: Moments) -> Moments:
        """Moments as if features had mean zero, where the bias must stay what it is."""
        if not self._about_zero:
            return moments
        bias = self.target[:, :, -1].astype(np.float64)
        cross = moments.cross.copy()
        cross[:, :, -1] = bias
        second = moments.second + np.einsum("po,po->p", bias, bias)
        return Moments(about_zero(moments.gram), cross, second)

    def output_shape(self, request: GramRequest, x: Array) -> tuple[int, ...]:
        """The shape of what the consumer makes of x, where its rows are positions of that."""
        linear_map, window = self.view.linear_map, request.spec.window
        if window is None:
            others = [n for axis, n in enumerate(x.shape) if axis != request.spec.axis]
        else:
            pads = zip(x.shape[2:], window.pads_begin, window.pads_end, strict=True)
            others = [len(x), *window_extents(window, tuple(map(sum, pads)))]
        others.insert(linear_map.y_axis, linear_map.outputs)
        return tuple(others)

    @property
    def takes_missing(self) -> bool:
        """Whether every row of targets is one position of the output."""
        linear_map, stacked = self.view.linear_map, self.view.stack > 1
        unseen = linear_map.taps > 1 and self.view.specs[0].window is None
        return not stacked and not unseen and not linear_map.transposed
