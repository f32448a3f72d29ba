"""Samples with the classes they are of."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import Array, Feed, IndexArray
from onnxprune.calibration import (
    Calibration,
    CalibrationSource,
    InputSpec,
    Preprocessing,
    load_calibration,
)
from onnxprune.calibration.feeds import SampleStore, Shapes
from onnxprune.calibration.image_folder import IMAGE_SUFFIXES
from onnxprune.calibration.random_samples import RANDOM
from onnxprune.calibration.sources import sample_files
from onnxprune.errors import TrainingError
from onnxprune.labels import Labels, read_labels
from onnxprune.progress import shown

LABELS = "labels"
"""The name under which samples hold their class beside the inputs."""
IN_MEMORY = 4 << 30
"""Bytes of samples up to which all are held; more are read again in every epoch."""


@dataclass(frozen=True)
class Part:
    """Samples that are computed together.

    Attributes:
        feed: input name -> array of shape (samples, ...).
        labels: their classes, shape (samples,); None if they have none.
    """

    feed: Feed
    labels: IndexArray | None


class LabelledSamples:
    """Samples and their classes.

    Args:
        samples: the samples, which have their class as one more input.
        progress: whether a bar shows how they are read.
        names: what the classes are called, where folders name them.
    """

    def __init__(
        self, samples: Calibration, progress: bool = False, names: tuple[str, ...] = ()
    ) -> None:
        self._samples = samples
        self.names = names
        self.batch_extent = samples.batch_extent
        self._held = _held(samples, progress)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def labels(self) -> IndexArray:
        """The class of every sample, shape (samples,)."""
        if self._held is not None:
            return self._held[LABELS].astype(np.int64)
        store, selected = self._samples.store, self._samples.selected
        if isinstance(store, _Labelled):
            return store.labels[selected]
        return np.array([store.read(int(index))[LABELS] for index in selected], np.int64)

    def parts(self, indices: IndexArray, size: int) -> Iterator[Part]:
        """The given samples in their order, in as many parts as have to be computed apart.

        Args:
            indices: of samples.
            size: the most samples in a part. A model with a fixed batch gets parts of that size,
                and what does not fill one is left out.
        """
        if self._held is None:
            for feed in self._samples.batches(indices, size):
                yield _part(feed)
            return
        step = self.batch_extent or size
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            if self.batch_extent is None or len(chosen) == step:
                yield _part({name: array[chosen] for name, array in self._held.items()})


def _part(feed: Feed) -> Part:
    inputs = {name: array for name, array in feed.items() if name != LABELS}
    return Part(inputs, feed[LABELS].astype(np.int64, copy=False))


def _held(samples: Calibration, progress: bool) -> Feed | None:
    """All samples in memory, if they are alike and not too many."""
    store, selected = samples.store, samples.selected
    first = store.read(int(selected[0]))
    if sum(array.nbytes for array in first.values()) * len(selected) > IN_MEMORY:
        return None
    held = {
        name: np.empty((len(selected), *array.shape), array.dtype) for name, array in first.items()
    }
    for place, index in enumerate(shown(selected.tolist(), "reading samples", progress=progress)):
        for name, array in store.read(index).items():
            if array.shape != held[name].shape[1:]:
                return None
            held[name][place] = array
    return held


@dataclass(frozen=True)
class _Labelled:
    """Samples of a store, with classes that come from elsewhere."""

    inner: SampleStore
    labels: IndexArray

    def __len__(self) -> int:
        return len(self.inner)

    def read(self, index: int) -> Feed:
        """The sample and its class."""
        label: Array = self.labels[index]
        return self.inner.read(index) | {LABELS: np.asarray(label)}

    def shapes(self, index: int) -> Shapes:
        """Those of the sample, and of its class."""
        return (*self.inner.shapes(index), ())

    @property
    def images(self) -> bool:
        """As the store."""
        return self.inner.images

    def check(self, indices: IndexArray) -> None:
        """As the store does."""
        self.inner.check(indices)

    def describe(self) -> str:
        """What the samples are, for people."""
        return self.inner.describe()


def load_labelled(
    source: CalibrationSource,
    inputs: Sequence[InputSpec],
    labels: Labels | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    progress: bool = False,
) -> LabelledSamples:
    """Open labelled samples and check that they fit the model.

    Args:
        source: any source of calibration samples. Without ``labels`` the classes are in it: as one
            more array ``labels`` of whole numbers beside the inputs, or, for images, as the
            folders they lie in, numbered by their names in order.
        inputs: the model's inputs.
        labels: the class of every sample, or an .npy file of them.
        preprocessing: for image folders.
        progress: whether a bar shows how they are read.

    Raises:
        TrainingError: there are no labels, or they do not fit the samples.
        CalibrationError: the samples do not fit the model.
    """
    if any(spec.name == LABELS for spec in inputs):
        raise TrainingError(
            f"the model has an input named '{LABELS}', which is what the classes of samples are "
            "called: rename the input"
        )
    if source == RANDOM and not Path(RANDOM).exists():
        raise TrainingError("random samples are for pruning; training needs real ones")
    if labels is None:
        folders = _class_folders(source)
        if folders is None:
            label = InputSpec(LABELS, (None,), _label_type(source))
            samples = load_calibration(source, [*inputs, label], preprocessing=preprocessing)
            return LabelledSamples(samples, progress)
    samples = load_calibration(source, inputs, preprocessing=preprocessing)
    names: tuple[str, ...] = ()
    if labels is None:
        assert folders is not None
        names = tuple(sorted(set(folders)))
        labels = [names.index(folder) for folder in folders]
    classes = read_labels(labels, len(samples.store), "samples", TrainingError)
    label = InputSpec(LABELS, (None,), np.dtype(np.int64))
    store = _Labelled(samples.store, classes)
    return LabelledSamples(Calibration(store, [*inputs, label]), progress, names)


def _label_type(source: CalibrationSource) -> np.dtype[Any]:
    """The type of labels: the one they are stored in if that is unsigned, as of most pictures.

    Raises:
        TrainingError: an archive or a dictionary lacks them.
    """
    advice = f"add the class of every sample as '{LABELS}', or give them apart: --labels FILE.npy"
    arrays: Mapping[str, object] | None = None
    if isinstance(source, Mapping):
        arrays, where = source, "the samples"
    elif isinstance(source, str | Path):
        path = Path(source)
        where = str(path)
        if path.suffix.lower() == ".npy" or (path.is_dir() and any(path.rglob("*.npy"))):
            raise TrainingError(f"{path}: .npy files hold no classes: --labels FILE.npy gives them")
        files = sorted(path.rglob("*.npz"))[:1] if path.is_dir() else [path]
        arrays = _arrays(files[0]) if files and files[0].suffix.lower() == ".npz" else None
    if arrays is not None and LABELS not in arrays:
        raise TrainingError(f"{where}: no array '{LABELS}' beside {sorted(arrays)}; {advice}")
    dtype = np.asarray(None if arrays is None else arrays[LABELS]).dtype
    return dtype if dtype.kind == "u" else np.dtype(np.int64)


def _arrays(path: Path) -> Mapping[str, object] | None:
    """The labels in an archive, and the names of the other arrays; None where none can be read.

    Whoever reads the samples says what is wrong with it.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict.fromkeys(file) | ({LABELS: file[LABELS]} if LABELS in file else {})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def _class_folders(source: CalibrationSource) -> list[str] | None:
    """For a folder of images, the name of the folder that each lies in."""
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return None
    root = Path(source)
    files = sample_files(root)
    if files[0].suffix.lower() not in IMAGE_SUFFIXES:
        return None
    loose = [path for path in files if path.parent == root]
    if loose:
        raise TrainingError(
            f"{loose[0]}: lies in no folder of a class; put the images of each class into a folder "
            "of its own, named so that their order is that of the model's outputs, or give the "
            "classes as --labels FILE.npy"
        )
    return [path.relative_to(root).parts[0] for path in files]


def divided(count: int, share: float, seed: int, unit: int = 1) -> tuple[IndexArray, IndexArray]:
    """Samples to train on and to validate with, at random; each sorted.

    Args:
        count: how many there are.
        share: of validation; 0 for none.
        seed: of the draw.
        unit: the batch that a model is fixed to; validation is a multiple of it.

    Raises:
        TrainingError: there are too few to divide.
    """
    every = np.random.default_rng(seed).permutation(count).astype(np.int64)
    held_out = max(1, round(count * share / unit)) * unit if share else 0
    if held_out >= count:
        raise TrainingError(
            f"{count} samples are too few to keep {share:.0%} for validation: add samples, or "
            "train without, --validation 0"
        )
    return np.sort(every[held_out:]), np.sort(every[:held_out])
