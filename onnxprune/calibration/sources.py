"""Which reader a calibration source needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxprune.arrays import Array, IndexArray
from onnxprune.calibration.array_files import open_stack
from onnxprune.calibration.feeds import Calibration, SampleStore
from onnxprune.calibration.image_folder import IMAGE_SUFFIXES, ImageStore
from onnxprune.calibration.image_transform import image_transform
from onnxprune.calibration.input_spec import InputSpec, batch_extent, check_names
from onnxprune.calibration.joined import JoinedStore
from onnxprune.calibration.patterns import is_pattern, matched
from onnxprune.calibration.preprocessing import FLAGS, Preprocessing
from onnxprune.calibration.random_samples import COUNT as RANDOM_COUNT
from onnxprune.calibration.random_samples import RANDOM, WARNING, RandomStore
from onnxprune.calibration.script import stacks_from_script
from onnxprune.calibration.shard_files import SHARD_SUFFIXES, open_shards
from onnxprune.calibration.stacks import StackStore, stacks_from_python
from onnxprune.calibration.table_files import TABLE_SUFFIXES, open_tables
from onnxprune.calibration.table_splits import table_files
from onnxprune.errors import CalibrationError


class Reader(Protocol):
    """As onnxruntime's CalibrationDataReader."""

    def get_next(self) -> Any:
        """The next sample or batch; None at the end."""


CalibrationSource = (
    str
    | Path
    | Array
    | Mapping[str, Any]
    | Iterable[Any]
    | Reader
    | tuple[Iterable[Any] | Reader, Callable[[Any], Any]]
)
"""A path, samples in memory, a stream of samples, or for every input one of these."""

ARRAY_SUFFIXES = (".npy", ".npz")
SUFFIXES = (*IMAGE_SUFFIXES, *ARRAY_SUFFIXES, *TABLE_SUFFIXES, *SHARD_SUFFIXES)
ACCEPTED = (
    "a .npz, .npy, .parquet, .arrow or .tar file, a folder or pattern of one of these or of images "
    f"({', '.join(IMAGE_SUFFIXES)}), file.py:function, or random"
)


def load_calibration(
    source: CalibrationSource,
    inputs: Sequence[InputSpec],
    *,
    preprocessing: Preprocessing | None = None,
    num_samples: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Open calibration samples and check that they fit the model.

    Arrays are read once to find values that are not finite; of images only the headers are read.
    Files are not kept in memory, except for one .npz file; iterables and what a script yields are.

    Args:
        source: one of

            * an .npz file with the input names as keys, or an .npy file for a model with one input;
            * a Parquet or Arrow file, whose columns are the inputs, or a folder that Hugging Face
              ``datasets`` saved;
            * a .tar file as WebDataset has them, with members ``key.input.npy`` or ``key.jpg``;
            * a folder of one of these kinds or of images, searched with its subfolders and sorted
              by name, or a pattern as ``shard-{000..012}.tar`` or ``part-*.parquet``; images need
              ``preprocessing``;
            * ``file.py:function``, a function that yields dictionaries of arrays;
            * ``random``: numbers of the inputs' types and shapes;
            * one array, or a dictionary of arrays;
            * a stream that yields dictionaries, arrays, or tuples of arrays in the order of the
              model's inputs (what follows them, such as labels, is left out): any iterable, such
              as a DataLoader of PyTorch or a Dataset of TensorFlow, an onnxruntime
              CalibrationDataReader, an ``nncf.Dataset``, or a pair (iterable, transform). Streams
              are read to their end, or until they have given ``num_samples``;
            * a dictionary with the path of one of the above for every input.

            Arrays hold samples along axis 0, or one sample without that axis; tensors of other
            libraries are arrays.
        inputs: the model's inputs.
        preprocessing: how pixels become values; for image folders only.
        num_samples: use a random subset of this size; all if there are fewer. Of a stream the
            first ones.
        seed: of the random subset.
    """
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, not {num_samples}")
    batch_extent(inputs)  # before anything is read: inputs without a common sample axis
    store = _open(source, inputs, preprocessing, num_samples, seed)
    selected = _subset(len(store), num_samples, seed)
    store.check(selected)
    return Calibration(store, inputs, selected, WARNING if _is_noise(store) else None)


def _is_noise(store: SampleStore) -> bool:
    """Whether an input is fed with random numbers."""
    if isinstance(store, JoinedStore):
        return any(map(_is_noise, store.stores))
    return isinstance(store, RandomStore)


def _subset(length: int, num_samples: int | None, seed: int) -> IndexArray:
    if num_samples is None or num_samples >= length:
        return np.arange(length, dtype=np.int64)
    order = np.random.default_rng(seed).choice(length, num_samples, replace=False)
    return np.sort(order).astype(np.int64)


def _open(
    source: CalibrationSource,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    most: int | None,
    seed: int,
) -> SampleStore:
    if isinstance(source, Mapping) and any(isinstance(s, str | Path) for s in source.values()):
        store: SampleStore = _open_each(source, inputs, preprocessing, most, seed)
    else:
        store = _open_one(source, inputs, preprocessing, most, seed)
    if preprocessing is not None and not store.images:
        raise CalibrationError(
            f"{FLAGS} describe images, but the samples are {store.describe()}, which are taken as "
            "they are; leave the flags away."
        )
    return store


def _open_each(
    sources: Mapping[str, Any],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    most: int | None,
    seed: int,
) -> JoinedStore:
    """Every input from a source of its own."""
    where = "the sources given"
    check_names(sources, inputs, where)
    stores = {
        spec.name: _open_one(sources[spec.name], [spec], preprocessing, most, seed)
        for spec in inputs
    }
    return JoinedStore(stores, where)


def _open_one(
    source: CalibrationSource,
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    most: int | None,
    seed: int,
) -> SampleStore:
    if not isinstance(source, str | Path):
        name = f"the {type(source).__name__} given"
        return StackStore(stacks_from_python(source, inputs, name, most), inputs, name)
    text, path = str(source), Path(source)
    if text == RANDOM and not path.exists():
        return RandomStore(inputs, most or RANDOM_COUNT, seed)
    if path.is_dir():
        return _open_files(sample_files(path), inputs, preprocessing, text)
    script, _, function = text.rpartition(":")
    if script.endswith(".py"):
        if not Path(script).is_file():
            raise CalibrationError(f"{script}: no such file; expected {ACCEPTED}.")
        return StackStore(stacks_from_script(Path(script), function, inputs, most), inputs, text)
    if not path.exists() and is_pattern(text):
        return _open_files(_of_one_kind(matched(text), text), inputs, preprocessing, text)
    _require_samples(path)
    return _open_files([path], inputs, preprocessing, text)


def _open_files(
    files: Sequence[Path],
    inputs: Sequence[InputSpec],
    preprocessing: Preprocessing | None,
    where: str,
) -> SampleStore:
    """The samples of files of one kind."""
    suffix = files[0].suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ImageStore(Path(where), files, image_transform(preprocessing, inputs, where))
    if suffix in TABLE_SUFFIXES:
        return open_tables(files, inputs, preprocessing, where)
    if suffix in SHARD_SUFFIXES:
        return open_shards(files, inputs, preprocessing, where)
    return StackStore([open_stack(file, inputs) for file in files], inputs, where)


def _require_samples(path: Path) -> None:
    """Refuse a file that holds no samples, or a single image."""
    if not path.exists():
        raise CalibrationError(f"{path}: no such file or folder; expected {ACCEPTED}.")
    if path.suffix.lower() in (*ARRAY_SUFFIXES, *TABLE_SUFFIXES, *SHARD_SUFFIXES):
        return
    advice = f"expected {ACCEPTED}"
    if path.suffix == ".py":
        advice = f"name the function that yields the samples: {path}:function"
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        advice = f"give the folder the image is in: {path.parent}"
    elif path.suffixes[-2:-1] == [".tar"] or path.suffix.lower() == ".tgz":
        advice = "unpack it to a .tar without compression, which can be read in any order"
    raise CalibrationError(f"{path}: found a file of another kind; {advice}.")


def sample_files(folder: Path) -> list[Path]:
    """The sample files below the folder, all of one kind, sorted by name.

    Raises:
        CalibrationError: there are none, those of several kinds, or of several splits.
    """
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.parent for path in folder.glob("*/state.json"))
        if len(splits) != 1:
            names = ", ".join(path.name for path in splits) or "none"
            raise CalibrationError(
                f"{folder}: holds several splits ({names}); name the folder of one of them."
            )
        return sample_files(splits[0])
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        # copies that file managers leave behind, '.cache' folders
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not files:
        raise CalibrationError(f"{folder}: holds no samples; expected {ACCEPTED}.")
    found = _of_one_kind([path for _, path in files], str(folder))
    return table_files(folder, found) if found[0].suffix.lower() in TABLE_SUFFIXES else found


def _of_one_kind(files: list[Path], where: str) -> list[Path]:
    """The same files, if they are of a kind that holds samples, and all of the same one."""
    suffixes = [path.suffix.lower() for path in files]
    for path, suffix in zip(files, suffixes, strict=True):
        if suffix not in SUFFIXES:
            raise CalibrationError(f"{path}: found a file of another kind; expected {ACCEPTED}.")
    kinds = Counter("images" if suffix in IMAGE_SUFFIXES else suffix for suffix in suffixes)
    if len(kinds) > 1:
        found = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
        raise CalibrationError(
            f"{where}: holds samples of several kinds ({found}); keep one kind in it."
        )
    return files
