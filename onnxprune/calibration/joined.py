"""Several stores side by side, each with one input of the same samples."""

from __future__ import annotations

from collections.abc import Mapping

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration.feeds import SampleStore, Shapes
from onnxprune.calibration.input_spec import same_count


class JoinedStore:
    """Samples whose inputs come from different sources.

    Args:
        stores: input name -> where it is read from, as many samples in each.
        name: what to call the whole in messages.

    Raises:
        CalibrationError: the sources have different numbers of samples.
    """

    def __init__(self, stores: Mapping[str, SampleStore], name: str) -> None:
        self._stores = stores
        self._length = same_count({input: len(store) for input, store in stores.items()}, name)

    def __len__(self) -> int:
        return self._length

    @property
    def stores(self) -> list[SampleStore]:
        """Where the inputs are read from."""
        return list(self._stores.values())

    @property
    def images(self) -> bool:
        """Whether pixels become values somewhere."""
        return any(store.images for store in self._stores.values())

    def read(self, index: int) -> Feed:
        """Sample ``index`` of every source."""
        feed: Feed = {}
        for store in self._stores.values():
            feed |= store.read(index)
        return feed

    def shapes(self, index: int) -> Shapes:
        """The shapes of sample ``index``."""
        return tuple(shape for store in self._stores.values() for shape in store.shapes(index))

    def check(self, indices: IndexArray) -> None:
        """Check every source."""
        for store in self._stores.values():
            store.check(indices)

    def describe(self) -> str:
        """What the samples are, for people."""
        return "; ".join(f"{name} from {store.describe()}" for name, store in self._stores.items())
