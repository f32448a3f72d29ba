"""Classes of samples, read from a file or given, and checked against the samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxprune.array_archive import read_header, require_held
from onnxprune.arrays import Array, IndexArray
from onnxprune.errors import OnnxPruneError

Labels = str | Path | Sequence[int] | IndexArray
"""Classes of samples, or an .npy file of them."""


def read_labels(
    labels: Labels, count: int, samples: str, error: type[OnnxPruneError]
) -> IndexArray:
    """The class of each sample, shape (samples,).

    Args:
        labels: class indices from 0, one for each sample in its order, or an .npy file of them.
        count: how many samples there are.
        samples: what they are, for messages.
        error: raised for what does not fit.

    Raises:
        OnnxPruneError: of the class ``error``: the labels cannot be read or do not fit.
    """
    where = str(labels) if isinstance(labels, str | Path) else "labels"
    array = _read(Path(labels), error) if isinstance(labels, str | Path) else np.asarray(labels)
    flat = array.reshape(-1)
    if array.ndim == 0 or flat.size != array.shape[0]:
        raise error(f"{where}: found shape {array.shape}; expected one class per sample")
    if flat.dtype.kind not in "iu" or (flat.size and int(flat.min()) < 0):
        raise error(f"{where}: classes are whole numbers from 0, found {flat.dtype}")
    if flat.size != count:
        raise error(
            f"{where}: {flat.size} labels for {count} {samples}; "
            "expected one for each, in their order"
        )
    return flat.astype(np.int64)


def _read(path: Path, error: type[OnnxPruneError]) -> Array:
    try:
        with path.open("rb") as stream:
            shape, dtype = read_header(stream)
            require_held(shape, dtype, path.stat().st_size - stream.tell())
        found: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as reason:
        raise error(
            f"{path}: not a readable .npy file of labels ({reason}); save one class per sample "
            "with numpy.save"
        ) from reason
    return found
