"""How far the outputs of several variants of a network are from the original's."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from onnxprune.arrays import Feed
from onnxprune.comparison import OutputDistance, looks_like_scores
from onnxprune.row_mask import RowMask, add_counted
from onnxprune.side_by_side import Frontier


@dataclass(frozen=True)
class VariantDistances:
    """Accumulator of output distances over some of the batches.

    Attributes:
        outputs: names of the model's outputs that are arrays of numbers, and not constant.
        feed: one batch of samples, by which outputs are told apart.
        first: the number of the first batch that counts.
        totals: for each variant the distances of its outputs so far.
        mask: says which positions of outputs count; None for all.
    """

    outputs: tuple[str, ...]
    feed: Feed
    first: int
    totals: list[dict[str, OutputDistance]]
    mask: RowMask | None = None

    @classmethod
    def of(
        cls,
        model: onnx.ModelProto,
        feed: Feed,
        first: int,
        variants: int,
        mask: RowMask | None = None,
    ) -> VariantDistances:
        """Empty accumulators for the outputs of a model."""
        text = onnx.TensorProto.STRING
        constants = {weight.name for weight in model.graph.initializer}
        outputs = [
            value.name
            for value in model.graph.output
            if value.type.HasField("tensor_type")
            and value.type.tensor_type.elem_type != text
            and value.name not in constants
        ]
        return cls(tuple(outputs), feed, first, [{} for _ in range(variants)], mask)

    def of_batch(self, batch: int, frontier: Frontier) -> list[dict[str, OutputDistance]]:
        """The distances of one batch, if it counts."""
        if batch < self.first:
            return [{} for _ in self.totals]
        said = None if self.mask is None else frontier.original(self.mask.name)
        found: list[dict[str, OutputDistance]] = []
        for variant in range(len(self.totals)):
            own = {}
            for name in self.outputs:
                reference = frontier.original(name)
                own[name] = OutputDistance(name, looks_like_scores(reference, self.feed))
                add_counted(own[name], reference, frontier.of(variant, name), self.mask, said)
            found.append(own)
        return found

    def add(self, _: None, partial: list[dict[str, OutputDistance]]) -> None:
        """Adds the distances of a batch."""
        for total, own in zip(self.totals, partial, strict=True):
            for name, distance in own.items():
                if name in total:
                    total[name].merge(distance)
                else:
                    total[name] = distance

    def distances(self, variant: int) -> list[OutputDistance]:
        """Those of a variant, in the order of the model's outputs."""
        return [self.totals[variant][name] for name in self.outputs]
