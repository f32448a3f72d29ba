"""Samples that are image files, decoded when they are read."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import Image

from onnxprune.arrays import Feed, IndexArray
from onnxprune.calibration.feeds import Shapes
from onnxprune.calibration.image_transform import ImageTransform
from onnxprune.errors import CalibrationError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class ImageStore:
    """One sample per image file.

    Args:
        folder: what the files belong to, for people.
        paths: the files, in sample order.
        transform: from an image to a sample.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], transform: ImageTransform) -> None:
        self._folder = folder
        self._paths = paths
        self._transform = transform

        self._shapes: dict[int, Shapes] = {}

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def images(self) -> bool:
        """They are."""
        return True

    def read(self, index: int) -> Feed:
        """Sample ``index``: the input's name -> array of shape (c, h, w) or (h, w, c)."""
        with self._image(index) as image:
            return {self._transform.spec.name: self._transform(image)}

    def shapes(self, index: int) -> Shapes:
        """The shape of sample ``index``; at most the header is read."""
        if index not in self._shapes:
            with self._image(index) as image:
                self._shapes[index] = (self._transform.shape(image),)
        return self._shapes[index]

    def check(self, indices: IndexArray) -> None:
        """Read the headers; nothing is decoded."""
        for index in indices:
            self.shapes(int(index))

    def describe(self) -> str:
        """What the samples are, for people."""
        return f"images of {self._folder} as {self._transform.describe()}"

    @contextmanager
    def _image(self, index: int) -> Iterator[Image.Image]:
        path = self._paths[index]
        with opened(path, str(path), self._transform.spec.name) as image:
            yield image


@contextmanager
def opened(source: Path | IO[bytes], where: str, name: str) -> Iterator[Image.Image]:
    """An image, and what goes wrong with it as an error that says where.

    Args:
        source: the file.
        where: what to call it in messages.
        name: the input it is for.

    Raises:
        CalibrationError: it is no image, or a damaged one.
    """
    try:
        with Image.open(source) as image:
            yield image
    except (
        OSError,  # includes formats Pillow does not know and files that end early
        SyntaxError,  # how Pillow reports some damaged PNG files
        ValueError,
        struct.error,
        MemoryError,  # a forged length, which is asked for at once
        Image.DecompressionBombError,
    ) as error:
        raise CalibrationError(
            f"{where}, input {name!r}: cannot be read as an 8-bit image ({error}); repair it or "
            "leave it out."
        ) from error
