"""Trial prunings: the full-size network with some consumers' weights replaced.

The weights and biases of all consumers are graph inputs of one session, so that no trial needs a
new graph or session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.comparison import OutputDistance, distances, is_numeric
from onnxprune.errors import UnsupportedModelError
from onnxprune.executor import Executor
from onnxprune.full_size import NONE, FullSize
from onnxprune.runtime import Provider, Session


class TrialNetwork:
    """A network that runs with replaced consumer weights.

    Args:
        canonical: the model.
        batches: the samples trials run on; their reference outputs are kept.
        executor: where the batches run.
        provider: onnxruntime provider.
    """

    def __init__(
        self,
        canonical: onnx.ModelProto,
        batches: Iterable[Feed],
        executor: Executor,
        provider: Provider = "cpu",
    ) -> None:
        self._network = FullSize.of(canonical)
        self._session = Session(self._network.with_inputs(), provider=provider, arena=False)
        self._names = [value.name for value in canonical.graph.output]
        self._executor = executor
        self._batches: list[tuple[Feed, list[Array]]] = executor.map_reduce(
            lambda _, feed: (feed, self.predict(feed, {})),
            batches,
            lambda done, pair: [*done, pair],
            [],
            label="reference outputs",
        )
        if not any(is_numeric(output) for _, outputs in self._batches for output in outputs):
            raise UnsupportedModelError(
                "no output of the model is an array of numbers, by which prunings could be judged"
            )

    def distances(
        self,
        replaced: Mapping[str, tuple[Array, Array]],
        masks: Mapping[str, Array] = NONE,
    ) -> list[OutputDistance]:
        """Distances from the original's of all outputs that are arrays of numbers.

        Args:
            replaced: consumer name -> (full-size weight, bias) to use instead of its own.
            masks: name of a product of two activations -> what to multiply its first factor's
                last axis with.
        """
        feed, reference = self._batches[0]
        total = self._executor.map_reduce(
            lambda _, batch: (batch[1], self.predict(batch[0], replaced, masks)),
            self._batches,
            _add,
            distances(self._names, reference, feed),
        )
        return [distance for distance in total if distance.samples]

    def predict(
        self,
        feed: Feed,
        replaced: Mapping[str, tuple[Array, Array]],
        masks: Mapping[str, Array] = NONE,
    ) -> list[Array]:
        """The outputs for one batch; weights and masks as for ``distances``."""
        weights = {**self._network.values, **self._network.replaced(replaced, masks)}
        return self._session.run({**feed, **weights}, self._names)


def _add(
    total: list[OutputDistance], pair: tuple[Sequence[Array], Sequence[Array]]
) -> list[OutputDistance]:
    for distance, reference, changed in zip(total, *pair, strict=True):
        distance.add(reference, changed)
    return total
