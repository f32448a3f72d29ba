"""What is odd about calibration samples, although they fit the model.

Only what hardly ever is meant is told: samples that are all the same, values that do not vary,
samples to which the model always says the same, as a detector does where there is nothing to
detect, and values on another scale than the first layer was trained for. For the latter the layer
itself is asked: a BatchNormalization knows how large what it reads has been, and a bias is of the
size of what it is added to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.arrays import Array, Feed
from onnxprune.calibration import Calibration
from onnxprune.errors import OnnxPruneError
from onnxprune.extract import exposed
from onnxprune.runtime import Provider, Session

LOOKED_AT = 32
FEW = 8
"""Samples that are run."""
OFF_SCALE, FADED = 300.0, 1000.0
"""How many times the learnt mean square, or what part of the variance, other images do not have."""
LARGEST = 1e9
FAINT_BIAS = 0.01
"""A bias of this share of what it is added to does nothing; pixels of 0 to 255 make that of 0.3."""
BRIGHT, BRIGHTEST = 128, 255
FILTERS = 4
STEADY = 0.1
"""Relative error of the best constant in place of an output, below which it hardly varies: as much
as is accepted where nobody states a target."""
PASSED_ON = ("Cast", "Identity", "Transpose")


def doubts(
    model: onnx.ModelProto,
    samples: Calibration,
    mask: str | None = None,
    provider: Provider = "cpu",
) -> list[str]:
    """One sentence for everything that is odd.

    Args:
        model: the model.
        samples: its samples, of which some are looked at.
        mask: the input that is known as a mask.
        provider: where the first layer runs.
    """
    count = min(len(samples), LOOKED_AT)
    places = np.linspace(0, len(samples) - 1, count).astype(int)
    feeds = [samples.store.read(int(samples.selected[place])) for place in places]
    found = [samples.warning] if samples.warning else []
    found += _identical(feeds)
    for spec in samples.inputs:
        values = [feed[spec.name] for feed in feeds]
        if spec.dtype.kind == "f":
            found += _constant(spec.name, values)
        found += _unused_mask(spec.name, values, mask)
    batches = list(samples.batches(samples.by_shape(np.arange(len(samples)))[0][:FEW], FEW))
    found += [doubt for doubt in _scales(model, batches[0], provider) if doubt]
    return found or _steady(model, batches, provider)  # which other oddities would explain


def _identical(feeds: Sequence[Feed]) -> list[str]:
    first = feeds[0]
    same = all(
        np.array_equal(feed[name], array) for feed in feeds[1:] for name, array in first.items()
    )
    if len(feeds) < 2 or not same:
        return []
    return [f"all of {len(feeds)} samples looked at are identical; check how they are read"]


def _constant(name: str, values: Sequence[Array]) -> list[str]:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if low != high or sum(v.size for v in values) == len(values):
        return []
    return [f"input '{name}' is {low:g} throughout; check how the samples are made"]


def _unused_mask(name: str, values: Sequence[Array], mask: str | None) -> list[str]:
    """A mask with zeros that nobody has named."""
    if mask is not None or "mask" not in name.lower() or any(v.ndim != 1 for v in values):
        return []
    flat = np.concatenate(values)
    zeros = float((flat == 0).mean())
    if not zeros or not np.isin(flat, (0, 1)).all():
        return []
    said = f"input '{name}' is 0 at {zeros:.0%} of the positions, which count as any other in the"
    return [f"{said} statistics; if they are padding, --mask {name} leaves them out"]


def _steady(model: onnx.ModelProto, batches: Sequence[Feed], provider: Provider) -> list[str]:
    """Outputs that hardly vary, so that errors relative to them are small whatever is done."""
    try:
        session = Session(model, provider=provider, arena=False)
        runs = [session.run(batch) for batch in batches]
    except OnnxPruneError:
        return []  # it is told where it is run in earnest
    counts = [len(next(iter(batch.values()))) for batch in batches]
    made = zip(session.outputs, zip(*runs, strict=True), strict=True)
    rows = {name: values for name, values in made if _are_rows(values, counts)}
    spreads = {name: _spread(np.concatenate(values)) for name, values in rows.items()}
    steady = [name for name, spread in spreads.items() if spread < STEADY]
    if not steady or len(steady) < len(spreads):
        return []
    said = f"the samples make hardly a difference to {', '.join(steady)}: constants would be within"
    advice = "give samples that the model has something to say of, or bound a metric of your own"
    so = f"{max(spreads.values()):.1%}, so that relative errors say little"
    return [f"{said} {so}; {advice}, with --target drop and --eval"]


def _are_rows(values: Sequence[object], counts: Sequence[int]) -> bool:
    """Whether an output has floating-point values of one shape for each of several samples."""
    arrays = [v for v in values if isinstance(v, np.ndarray) and v.dtype.kind == "f" and v.ndim > 1]
    shapes = {array.shape[1:] for array in arrays}
    lengths = [len(array) for array in arrays]
    return lengths == list(counts) and len(shapes) == 1 and sum(counts) > 1


def _spread(values: Array) -> float:
    """Relative error of the mean over samples in place of an output."""
    wide = values.astype(np.float64)
    power = float((wide**2).sum())
    return float(np.sqrt(((wide - wide.mean(axis=0)) ** 2).sum() / power)) if power else 0.0


# --- scale ---


@dataclass(frozen=True)
class _First:
    """The first layer that reads an input.

    Attributes:
        input: the input.
        node: the layer.
        norm: the BatchNormalization behind it, if there is one.
    """

    input: str
    node: onnx.NodeProto
    norm: onnx.NodeProto | None


def _scales(model: onnx.ModelProto, batch: Feed, provider: Provider) -> list[str]:
    return [_scale(model, first, batch, provider) for first in _first_layers(model, batch)]


def _first_layers(model: onnx.ModelProto, batch: Feed) -> list[_First]:
    """Convolutions that alone read a floating-point image, as it is."""
    weights = {tensor.name for tensor in model.graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def only_reader(name: str) -> onnx.NodeProto | None:
        own = readers.get(name, [])
        if len(own) != 1:
            return None
        passed_on = own[0].op_type in PASSED_ON
        return only_reader(own[0].output[0]) if passed_on else own[0]

    found: list[_First] = []
    for name, array in batch.items():
        if array.dtype.kind != "f" or array.ndim != FILTERS:
            continue
        first = only_reader(name)
        if first is None or first.op_type != "Conv" or first.input[1] not in weights:
            continue
        behind = only_reader(first.output[0])
        norm = behind if behind is not None and behind.op_type == "BatchNormalization" else None
        if norm is not None and not weights.issuperset(norm.input[1:5]):
            norm = None
        found.append(_First(name, first, norm))
    return found


def _scale(model: onnx.ModelProto, first: _First, batch: Feed, provider: Provider) -> str:
    """What is odd about the values of an image, or nothing."""
    try:
        session = Session(exposed(model, [first.node.output[0]]), provider=provider, arena=False)
        needed = {name: array for name, array in batch.items() if name in session.inputs}
        made = session.run(needed)[0].astype(np.float64)
    except OnnxPruneError:
        return ""  # what cannot run by itself is not judged
    others = tuple(axis for axis in range(made.ndim) if axis != 1)
    known = {t.name: t for t in model.graph.initializer}
    if first.norm is not None:
        mean, variance = (numpy_helper.to_array(known[n]) for n in first.norm.input[3:5])
        learnt = np.maximum(variance, np.finfo(np.float32).tiny)
        square = ((made - mean.reshape(1, -1, 1, 1)) ** 2).mean(axis=others)
        over = float(np.median(square / learnt))
        under = float(np.median(learnt / np.maximum(made.var(axis=others), learnt / LARGEST)))
        if over < OFF_SCALE and under < FADED:
            return ""
        times = f"{over:.0f} times" if over >= OFF_SCALE else f"1/{under:.0f} of"
        why = f"varies by {times} what the BatchNormalization behind it has learnt"
    else:
        bias = known.get(first.node.input[2]) if len(first.node.input) > 2 else None
        if bias is None or not _are_pixels(batch[first.input]):
            return ""
        size = float(np.sqrt((numpy_helper.to_array(bias).astype(np.float64) ** 2).mean()))
        spread = float(np.sqrt(made.var(axis=others).mean()))
        if not 0 < size < FAINT_BIAS * spread:
            return ""
        why = f"varies by {spread / size:.0f} times its bias"
    values = batch[first.input]
    return (
        f"input '{first.input}' has values from {values.min():.3g} to {values.max():.3g}, of which "
        f"layer '{first.node.name or first.node.output[0]}' makes what {why}: it was probably "
        "trained on values of another scale; check mean, std and scale"
    )


def _are_pixels(values: Array) -> bool:
    """Whether an image still holds whole numbers from 0 to 255."""
    whole = np.array_equal(values, np.round(values))
    return bool(whole and values.min() >= 0 and BRIGHT < values.max() <= BRIGHTEST)
