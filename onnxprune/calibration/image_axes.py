"""Which axes of an array are those of an image."""

from __future__ import annotations

IMAGE_AXES = 3
"""Axes of an image: channels, rows and columns, in this order or with the channels last."""


def row_axis(shape: tuple[int, ...]) -> int:
    """The axis of an image's rows; that of its columns is the next.

    Channels are first unless only the last axis can be colours.

    Args:
        shape: of the image, three extents.
    """
    few = (1, 3, 4)
    return 0 if shape[0] not in few and shape[-1] in few else 1
