"""One pass over the samples: feature specs in, their Gram matrices out.

No activation outlives its batch, and with the graph back end none leaves the runtime. The shard's
positions come from (seed, shard number), partial Grams are reduced in shard order: the result's
bytes depend on the batches, the seed and the specs, not on timing or on what else is collected.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence, Sized
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.arrays import Feed
from onnxprune.errors import CalibrationError, UnsupportedModelError
from onnxprune.executor import Executor, InProcess
from onnxprune.extract import exposed, known_shapes
from onnxprune.gram import Gram
from onnxprune.host_gram import host_gram
from onnxprune.linear_map import FeatureSpec
from onnxprune.probe import probe
from onnxprune.row_mask import RowMask
from onnxprune.row_sum import RowSum
from onnxprune.runtime import Provider, Session
from onnxprune.sampling import GramRequest, draw_uniforms, request_for

BackEnd = Literal["graph", "host"]
_BatchGrams = list[NDArray[np.floating[Any]]]
_Task = Callable[[int, Feed], _BatchGrams]

ROWS_PER_FEATURE = 20
logger = logging.getLogger(__name__)


def collect(
    model: onnx.ModelProto,
    specs: Sequence[FeatureSpec],
    batches: Iterable[Feed],
    *,
    samples: int,
    seed: int = 0,
    executor: Executor | None = None,
    back_end: BackEnd = "graph",
    rows_per_feature: int = ROWS_PER_FEATURE,
    provider: Provider = "cpu",
    threads: int | None = None,
    mask: RowMask | None = None,
) -> dict[FeatureSpec, Gram]:
    """Collects the Gram of every spec's features, each distinct spec once.

    Of every sample as many positions are drawn as give ``rows_per_feature`` rows for each feature
    over all samples, at least 8 and at most all of them. They are cut further where a batch's rows
    would take more than 256 MiB (``sampling.MAX_ROW_BYTES``); smaller batches avoid that.

    Args:
        model: any model with recorded or inferable shapes; it is not changed.
        specs: the features wanted. The sums take 8 (features + 1)^2 bytes for each part: a caller
            short of memory collects a few specs at a time.
        batches: feeds, taken once, in order.
        samples: how many samples the batches hold in all.
        seed: of the drawn positions.
        executor: where the batches run; by default here, one after the other.
        back_end: where activations become Grams. "graph": in the runtime, and only Grams leave
            it; where onnxruntime refuses the graph, and with "host", in NumPy.
        rows_per_feature: rows wanted for each feature.
        provider: where the model runs.
        threads: threads within one operator; None leaves the choice to onnxruntime.
        mask: says which positions count; None for all.

    Returns:
        spec -> Gram, features ordered (channel, tap) and the constant last.

    Raises:
        UnsupportedModelError: the channels of a spec's activation are not known.
        CalibrationError: there is no sample, or an activation is infinite or not a number.
    """
    if not specs:
        return {}
    iterator = iter(batches)
    first = next(iterator, None)
    if first is None or samples < 1:
        raise CalibrationError("no calibration samples: the Gram matrices would be empty")
    distinct = list(dict.fromkeys(specs))
    requests = _requests(model, distinct, samples, _batch_size(first), rows_per_feature, mask)
    masked = None if mask is None else mask.name
    few = _few_rows(requests, _batch_size(first)) if provider == "cpu" else set()
    task, from_graph = _task(back_end, model, requests, few, seed, provider, threads, masked)
    sums = (executor or InProcess()).map_reduce(
        task,
        itertools.chain([first], iterator),
        _merge,
        [_empty_sum(r, few=from_graph and place in few) for place, r in enumerate(requests)],
        label="statistics",
        count=len(batches) if isinstance(batches, Sized) else None,
    )
    grams = [found.gram() if isinstance(found, RowSum) else found for found in sums]
    if from_graph:
        for place, request in enumerate(requests):  # one by one: a copy of all would be large
            grams[place] = grams[place].reordered(request.from_tap_major)
    return {r.spec: gram for r, gram in zip(requests, grams, strict=True)}


def sums_bytes(model: onnx.ModelProto, specs: Iterable[FeatureSpec]) -> dict[FeatureSpec, int]:
    """How many bytes the sums of these features take in ``collect``."""
    distinct = dict.fromkeys(specs)
    shapes = known_shapes(model, {spec.tensor for spec in distinct})
    sizes = {}
    for spec in distinct:
        extent = shapes.get(spec.tensor, (None,) * spec.rank)[spec.axis] or 0
        extent *= spec.parts if spec.apart is not None else 1
        sizes[spec] = 8 * spec.parts * (GramRequest(spec, extent, 1).features + 1) ** 2
    return sizes


def _requests(
    model: onnx.ModelProto,
    specs: Sequence[FeatureSpec],
    samples: int,
    batch: int,
    rows_per_feature: int,
    mask: RowMask | None,
) -> list[GramRequest]:
    shapes = known_shapes(model, {spec.tensor for spec in specs})
    return [
        request_for(
            spec,
            shapes.get(spec.tensor),
            samples=samples,
            batch=batch,
            rows_per_feature=rows_per_feature,
            layout=None if mask is None else mask.layout(spec),
        )
        for spec in specs
    ]


def _few_rows(requests: Sequence[GramRequest], batch: int) -> set[int]:
    """Places of the requests whose rows of a batch are fewer than their features.

    Rows then are smaller than Grams, and are multiplied once there are more (see ``RowSum``). A
    GPU is left to multiply on its own.
    """
    return {place for place, r in enumerate(requests) if r.points * batch <= r.features}


def _batch_size(feed: Feed) -> int:
    """Samples in a feed: the longest first axis, since an input may be shared by the batch."""
    return max([1, *(len(array) for array in feed.values() if array.ndim)])


def _task(
    back_end: BackEnd,
    model: onnx.ModelProto,
    requests: Sequence[GramRequest],
    few: Collection[int],
    seed: int,
    provider: Provider,
    threads: int | None,
    mask: str | None,
) -> tuple[_Task, bool]:
    """The task of a shard, and whether the graph carries it out.

    The graph's features are ordered (tap, channel), and of few rows it makes no Grams.
    """
    if back_end == "graph":
        try:
            return _graph_task(model, requests, few, seed, provider, threads, mask), True
        except UnsupportedModelError as error:
            logger.warning("statistics are reduced in NumPy, which is slower: %s", error)
    return _host_task(model, requests, seed, provider, threads, mask), False


def _graph_task(
    model: onnx.ModelProto,
    requests: Sequence[GramRequest],
    few: Collection[int],
    seed: int,
    provider: Provider,
    threads: int | None,
    mask: str | None,
) -> _Task:
    probed = probe(model, requests, few)
    session = Session(probed.model, provider=provider, threads=threads, arena=False)

    def task(shard: int, feed: Feed) -> _BatchGrams:
        uniforms = draw_uniforms(seed, shard, probed.uniform_count)
        given = {**feed, probed.uniforms: uniforms}
        for name, request in zip(probed.picks, requests, strict=True):
            if name is not None and name not in given and mask is not None:
                picked = request.of_batch(feed[mask], uniforms).picked
                assert picked is not None
                given[name] = picked
        found: _BatchGrams = session.run(given, probed.outputs)
        _check_finite(requests, found, shard, few)
        return found

    return task


def _host_task(
    model: onnx.ModelProto,
    requests: Sequence[GramRequest],
    seed: int,
    provider: Provider,
    threads: int | None,
    mask: str | None,
) -> _Task:
    inputs = {value.name for value in model.graph.input}
    tensors = list(dict.fromkeys(r.spec.tensor for r in requests if r.spec.tensor not in inputs))
    session = None
    if tensors:
        model = exposed(model, tensors)
        session = Session(model, provider=provider, threads=threads, arena=False)
    count = max(request.points for request in requests)

    def task(shard: int, feed: Feed) -> _BatchGrams:
        values = dict(feed)
        if session is not None:
            values |= zip(tensors, session.run(feed, tensors), strict=True)
        uniforms = draw_uniforms(seed, shard, count)
        said = None if mask is None else feed[mask]
        grams: _BatchGrams = [
            host_gram(r.of_batch(said, uniforms), values[r.spec.tensor], uniforms) for r in requests
        ]
        _check_finite(requests, grams, shard)
        return grams

    return task


def _check_finite(
    requests: Sequence[GramRequest],
    found: _BatchGrams,
    shard: int,
    few: Collection[int] = (),
) -> None:
    """Refuses infinities and NaN: in any feature they show in the sum of its squares."""
    for place, (request, array) in enumerate(zip(requests, found, strict=True)):
        squares = np.diagonal(array, axis1=1, axis2=2)
        if place in few:
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.einsum("prf,prf->pf", array, array)
        if not np.isfinite(squares).all():
            raise CalibrationError(
                f"activation {request.spec.tensor} is infinite or not a number in batch {shard} "
                "of the calibration samples; check how the samples are scaled"
            )


def _empty_sum(request: GramRequest, *, few: bool) -> Gram | RowSum:
    return (RowSum if few else Gram)(request.spec.parts, request.features)


def _merge(total: list[Gram | RowSum], partial: _BatchGrams) -> list[Gram | RowSum]:
    for added, batch in zip(total, partial, strict=True):
        added.add(batch)
    return total
