"""Random changes of training batches: flips, crops, or a function of the user's.

Everything is drawn from a generator that is seeded for each step, so that a training that goes on
after a stop sees the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from onnxprune.arrays import Array, Feed
from onnxprune.calibration.image_axes import IMAGE_AXES, row_axis
from onnxprune.errors import TrainingError
from onnxprune.user_code import UserFunction, find_function

Augmentation = Callable[[Feed, np.random.Generator], Feed]

FORMS = "flip, crop=PIXELS or file.py:function"


def augmentations(specs: Sequence[str]) -> list[Augmentation]:
    """The changes that the user names, in this order.

    Args:
        specs: each ``flip`` (left and right, of half the images), ``crop=4`` (moved by up to four
            pixels, zeros behind the border), or ``file.py:function``, a function of a batch (input
            name -> array), and of a NumPy generator if it takes a second argument, that returns a
            batch.

    Raises:
        TrainingError: one is not known, or its file cannot be used.
    """
    return [_augmentation(spec) for spec in specs]


def _augmentation(spec: str) -> Augmentation:
    name, _, value = spec.partition("=")
    if spec == "flip":
        return lambda feed, rng: _on_images(feed, rng, _flipped)
    if name == "crop" and value.isdigit() and int(value) > 0:
        pixels = int(value)
        return lambda feed, rng: _on_images(
            feed, rng, lambda images, axis, own: _shifted(images, axis, own, pixels)
        )
    if ".py:" in spec:
        return _of_user(find_function(spec, "the augmentation", TrainingError))
    raise TrainingError(f"unknown augmentation '{spec}': write {FORMS}")


def _on_images(
    feed: Feed,
    rng: np.random.Generator,
    change: Callable[[Array, int, np.random.Generator], Array],
) -> Feed:
    """Change every input of four axes; all of them in the same way."""
    images = {name: array for name, array in feed.items() if array.ndim == IMAGE_AXES + 1}
    if not images:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in feed.items())
        raise TrainingError(
            f"flips and crops are for images, but no input has four axes ({shapes}); "
            "write a function of your own: --augment file.py:function"
        )
    seed = int(rng.integers(2**63))
    changed = {
        name: change(array, row_axis(array.shape[1:]) + 1, np.random.default_rng(seed))
        for name, array in images.items()
    }
    return feed | changed


def _flipped(images: Array, rows: int, rng: np.random.Generator) -> Array:
    chosen = rng.random(len(images)) < 0.5
    result = images.copy()
    result[chosen] = np.flip(images[chosen], rows + 1)
    return result


def _shifted(images: Array, rows: int, rng: np.random.Generator, pixels: int) -> Array:
    """Every image moved by up to so many pixels along both axes."""
    sides = [(0, 0)] * images.ndim
    sides[rows] = sides[rows + 1] = (pixels, pixels)
    wide = np.pad(images, sides)
    tops, lefts = rng.integers(0, 2 * pixels + 1, (2, len(images)))
    result = np.empty_like(images)
    height, width = images.shape[rows], images.shape[rows + 1]
    for place, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        image = np.moveaxis(wide[place], (rows - 1, rows), (0, 1))
        image = image[top : top + height, left : left + width]
        result[place] = np.moveaxis(image, (0, 1), (rows - 1, rows))
    return result


def _of_user(function: UserFunction) -> Augmentation:
    takes_generator = function.argument_count != 1

    def augment(feed: Feed, rng: np.random.Generator) -> Feed:
        given = {name: array.copy() for name, array in feed.items()}
        changed = function(given, rng) if takes_generator else function(given)
        return _checked(changed, feed, function.where)

    return augment


def _checked(changed: object, feed: Feed, where: str) -> Feed:
    """What a function returned, if it is a batch for the same inputs."""
    if not isinstance(changed, Mapping) or set(changed) != set(feed):
        found = sorted(changed) if isinstance(changed, Mapping) else type(changed).__name__
        raise TrainingError(
            f"{where}: returned {found}, expected a dictionary with the inputs {sorted(feed)}"
        )
    result = {}
    for name, before in feed.items():
        after = np.asarray(changed[name])
        if len(after.shape) != before.ndim or len(after) != len(before):
            raise TrainingError(
                f"{where}: returned shape {after.shape} for '{name}', expected as many axes and "
                f"samples as in {before.shape}"
            )
        if after.dtype.kind == "f" and not np.isfinite(after).all():
            raise TrainingError(f"{where}: returned values for '{name}' that are NaN or infinite")
        result[name] = after.astype(before.dtype, copy=False)
    return result
