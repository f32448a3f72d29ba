"""How far the outputs of several variants of a network are from the original's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.comparison import OutputDistance, looks_like_scores
from onnxprune.executor import Executor
from onnxprune.row_mask import RowMask, add_counted
from onnxprune.runtime import Provider
from onnxprune.side_by_side import Frontier, Key, SideBySide
from onnxprune.tensor_store import TensorStore


def variant_distances(
    model: onnx.ModelProto,
    changes: Sequence[Mapping[str, Array]],
    batches: Iterable[Feed],
    executor: Executor,
    *,
    provider: Provider = "cpu",
    mask: RowMask | None = None,
    label: str = "comparing outputs",
) -> list[list[OutputDistance]]:
    """The distances of every variant, each of which runs from its first change on.

    Args:
        model: the original, sorted.
        changes: for every variant what initializers hold instead.
        batches: the samples; there is at least one.
        executor: where batches run.
        provider: where the networks run.
        mask: says which positions of outputs count; None for all.
        label: what is done, for progress bars.
    """
    compared = VariantDistances.of(model, len(changes), mask)
    nodes, wanted = len(model.graph.node), {*compared.outputs, *compared.inputs}
    store: TensorStore[Key]
    with TensorStore() as store:
        networks = SideBySide(model, [nodes], [wanted], batches, changes, store, executor, provider)
        networks.advance(compared.of_batch, compared.add, None, label=label, last=True)
    return [compared.distances(variant) for variant in range(len(changes))]


@dataclass(frozen=True)
class VariantDistances:
    """Accumulator of output distances over some of the batches.

    Attributes:
        outputs: names of the model's outputs that are arrays of numbers, and not constant.
        inputs: names of the model's inputs, by which outputs are told apart.
        totals: for each variant the distances of its outputs so far.
        mask: says which positions of outputs count; None for all.
    """

    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    totals: list[dict[str, OutputDistance]]
    mask: RowMask | None = None

    @classmethod
    def of(
        cls, model: onnx.ModelProto, variants: int, mask: RowMask | None = None
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
        inputs = [value.name for value in model.graph.input if value.name not in constants]
        return cls(tuple(outputs), tuple(inputs), [{} for _ in range(variants)], mask)

    def of_batch(self, _: int, frontier: Frontier) -> list[dict[str, OutputDistance]]:
        """The distances of one batch."""
        feed = {name: frontier.original(name) for name in self.inputs}
        said = None if self.mask is None else feed[self.mask.name]
        found: list[dict[str, OutputDistance]] = []
        for variant in range(len(self.totals)):
            own = {}
            for name in self.outputs:
                reference = frontier.original(name)
                own[name] = OutputDistance(name, looks_like_scores(reference, feed))
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
