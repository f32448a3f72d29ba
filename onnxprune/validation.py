"""Checks a new model must pass before it is published, and its distance from the original."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from onnxprune.arrays import Array, Feed
from onnxprune.blame import complaint
from onnxprune.comparison import OutputDistance, distances, is_numeric
from onnxprune.errors import OnnxPruneError, ValidationError
from onnxprune.executor import Executor, InProcess
from onnxprune.metadata import own_entries
from onnxprune.model_source import ModelSource
from onnxprune.row_mask import RowMask, add_counted
from onnxprune.runtime import Provider, Session
from onnxprune.stand_ins import with_stand_ins

NODE_NAME = re.compile(r",? ?node name: [^)]*")


def check_file(
    path: Path,
    original: onnx.ModelProto,
    feed: Feed | None = None,
    provider: Provider = "cpu",
) -> None:
    """Check a written model: structure, shapes, interface, and that it loads and runs.

    Args:
        path: the file.
        original: the model it was made from.
        feed: one batch of samples to run it on; None only loads it.
        provider: onnxruntime provider.

    Raises:
        ValidationError: it fails a check.
    """
    found = complaint(path)
    written = onnx.load(path, load_external_data=False)
    if found and not _is_old(found, written, original):
        raise ValidationError(f"the new model is not valid ONNX: {found}")
    check_interface(written, original)
    for name, array in _outputs(path, feed, provider).items():
        if is_numeric(array) and not np.isfinite(array).all():
            raise ValidationError(
                f"output '{name}' of the new model is infinite or not a number on a sample"
            )


def _is_old(found: str, written: onnx.ModelProto, original: onnx.ModelProto) -> bool:
    """Whether the original has the same fault, as a GroupNormalization of opset 18 is one.

    The checker stops at the first: what it says with that operator replaced must be old as well.
    """
    if _fault(found) != _fault(complaint(original)):
        return False
    behind = complaint(with_stand_ins(written))
    return not behind or _fault(behind) == _fault(complaint(with_stand_ins(original)))


def _fault(found: str) -> str:
    """The first line without the name of a node, which the original may not have."""
    return NODE_NAME.sub("", found.partition("\n")[0])


def _outputs(path: Path, feed: Feed | None, provider: Provider) -> dict[str, Array]:
    """What a written model computes for a feed; nothing, but loaded, without one."""
    try:
        session = Session(path, provider=provider)
        return {} if feed is None else dict(zip(session.outputs, session.run(feed), strict=True))
    except OnnxPruneError as error:
        raise ValidationError(f"the new model does not load and run: {error}") from error


def check_interface(pruned: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Raise ValidationError unless inputs, outputs and header are the original's."""
    initializers = {tensor.name for tensor in original.graph.initializer}
    initializers |= {tensor.name for tensor in pruned.graph.initializer}
    for kind in ("input", "output"):
        before = [v for v in getattr(original.graph, kind) if v.name not in initializers]
        after = [v for v in getattr(pruned.graph, kind) if v.name not in initializers]
        if [v.SerializeToString() for v in before] != [v.SerializeToString() for v in after]:
            names = [", ".join(f"'{v.name}'" for v in values) for values in (after, before)]
            raise ValidationError(
                f"the new model's graph {kind}s {names[0]} differ from the original's "
                f"{names[1]} in name, type or shape"
            )
    for field in ("ir_version", "opset_import", "domain", "model_version"):
        if getattr(pruned, field) != getattr(original, field):
            raise ValidationError(f"the new model's {field} differs from the original's")
    if own_entries(pruned) != own_entries(original):
        raise ValidationError("the new model's metadata_props differs from the original's")


def compare(
    original: ModelSource,
    changed: ModelSource,
    batches: Iterable[Feed],
    executor: Executor | None = None,
    provider: Provider = "cpu",
    mask: RowMask | None = None,
) -> list[OutputDistance]:
    """How far the outputs of two models are apart on some samples, for each output.

    Args:
        original: the reference.
        changed: a model with the same inputs and outputs.
        batches: samples.
        executor: where the batches run; by default here, one after the other.
        provider: onnxruntime provider.
        mask: says which positions of outputs count; None for all.

    Returns:
        One distance for every output that is an array of numbers.
    """
    sessions = [Session(model, provider=provider, arena=False) for model in (original, changed)]
    names = list(sessions[0].outputs)
    first, second = (partial(session.run, outputs=names) for session in sessions)
    return compare_runs(names, first, second, batches, executor, mask)


def compare_runs(
    names: Sequence[str],
    first: Callable[[Feed], list[Array]],
    second: Callable[[Feed], list[Array]],
    batches: Iterable[Feed],
    executor: Executor | None = None,
    mask: RowMask | None = None,
) -> list[OutputDistance]:
    """As ``compare``, for two functions that run a model each.

    Args:
        names: the outputs that they return.
        first: the reference.
        second: the changed model.
        batches: samples.
        executor: where the batches run; by default here, one after the other.
        mask: says which positions of outputs count; None for all.
    """

    def task(_: int, feed: Feed) -> tuple[Feed, list[list[Array]]]:
        return feed, [first(feed), second(feed)]

    def merge(
        total: list[OutputDistance],
        partial: tuple[Feed, list[list[Array]]],
    ) -> list[OutputDistance]:
        feed, (reference, outputs) = partial
        total = total or distances(names, reference, feed)
        for distance, before, after in zip(total, reference, outputs, strict=True):
            add_counted(distance, before, after, mask, None if mask is None else feed[mask.name])
        return total

    empty: list[OutputDistance] = []
    total = (executor or InProcess()).map_reduce(task, batches, merge, empty, label="comparing")
    return [distance for distance in total if distance.samples]
