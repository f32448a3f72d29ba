"""Refinement by distillation: a pruned network is trained to say what the original says.

No labels are needed (Hinton et al., arXiv 1503.02531). A budget is divided here among what a
refinement does: layers that become decorrelated if that is asked for, trials of learning rates, and
the training itself.
"""

from __future__ import annotations

import onnx
import torch

from onnxprune.arrays import Array
from onnxprune.errors import OnnxPruneError
from onnxprune.refinement import Refine, Refinement
from onnxprune.runtime import Provider
from onnxprune.train.allowance import Allowance
from onnxprune.train.augmentation import augmentations
from onnxprune.train.course import Course, Lessons
from onnxprune.train.network import TrainableNetwork
from onnxprune.train.rate_trials import best_rate, try_rates

START_SHARE = 0.1
"""Share of the budget in which layers become decorrelated before weights move."""
FEWEST_LOOKS, MOST_LOOKS = 4, 20
"""How often the samples to choose by are looked at, at least under a number of steps, at most under
a limit of time."""
LOOKS_PER_EPOCH = 2
LOOK_SHARE = 0.2
"""Share of a limited time that this may take."""


def refine(
    pruned: onnx.ModelProto, lessons: Lessons, settings: Refine
) -> tuple[dict[str, Array], Refinement]:
    """Train the weights of a pruned model.

    Args:
        pruned: the model.
        lessons: the original and the samples.
        settings: how long, and how.

    Returns:
        Name of an initializer of ``pruned`` -> its new values, nothing if none were better than
        the old; and what was done.

    Raises:
        UnsupportedModelError: an operator of the model has no gradient here.
        TrainingError: no layer can be decorrelated.
        OnnxPruneError: no output can be refined, or there is no CUDA device.
    """
    course = Course(pruned, lessons, settings, device_of(lessons.provider))
    whole = Allowance.of(settings.budget, course.per_epoch)
    course.begin()
    if settings.method == "decorrelated":
        start = whole.part(START_SHARE)
        course.decorrelate(start)
        whole.taken += start.taken
    trials = {} if settings.rate else try_rates(course, settings.optimizer, whole)
    rate = settings.rate or best_rate(trials, settings.optimizer, course.first)
    main = whole.rest(course.look_seconds)
    course.train(rate, main, looks_of(main, course), "refining")
    whole.taken += main.taken
    record = Refinement(course.first, course.best, whole.elapsed, whole.taken, rate, trials)
    return course.changed(), record


def check_refinable(model: onnx.ModelProto, settings: Refine, provider: Provider) -> None:
    """Refuse a model, a device or a change of samples before any work.

    Raises:
        UnsupportedModelError: an operator of the model has no gradient here; it is named.
        TrainingError: an augmentation is not known, or its file cannot be used.
        OnnxPruneError: there is no CUDA device.
    """
    device_of(provider)
    augmentations(settings.augment)
    TrainableNetwork(model)


def device_of(provider: Provider) -> torch.device:
    """Where to train: the CPU, or for the other providers CUDA.

    Raises:
        OnnxPruneError: there is no CUDA device.
    """
    if provider == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise OnnxPruneError(
            f"provider {provider} was asked for but torch sees no CUDA device to refine on; "
            "install a build of torch for CUDA and its driver, or use provider cpu"
        )
    return torch.device("cuda")


def looks_of(allowance: Allowance, course: Course) -> int:
    """How often to look at the samples to choose by within an allowance."""
    if allowance.seconds is None:
        return max(FEWEST_LOOKS, LOOKS_PER_EPOCH * (allowance.steps or 0) // course.per_epoch)
    affordable = LOOK_SHARE * allowance.seconds / max(course.look_seconds, 1e-3)
    return max(1, min(MOST_LOOKS, int(affordable)))
