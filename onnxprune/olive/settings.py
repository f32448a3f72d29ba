"""The settings of the pass: the names, types and defaults that ``Options`` has, for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxprune.calibration import IMAGENET
from onnxprune.options import Options
from onnxprune.refinement import Budget, Refine
from onnxprune.runtime import Provider
from onnxprune.target import Target

DEFAULTS = Options()
PROVIDERS: dict[str, Provider] = {
    "CUDAExecutionProvider": "cuda",
    "TensorrtExecutionProvider": "tensorrt",
}
"""Execution provider of a workflow -> where samples are run; on the CPU for any other."""


@dataclass(frozen=True)
class Setting:
    """One setting of the pass.

    Attributes:
        kind: type of its value.
        default: its value unless another is given.
        meaning: for people.
    """

    kind: Any
    default: Any
    meaning: str


PLAIN = {
    "method": Setting(str, DEFAULTS.method, "criterion, allocation and recovery together"),
    "criterion": Setting(str, None, "name of a criterion; the method's if none is given"),
    "allocation": Setting(str, None, "name of an allocation; the method's if none is given"),
    "recovery": Setting(bool, DEFAULTS.recovery, "refit the weights of what reads the channels"),
    "sequential": Setting(bool, None, "refit layers in order; what the method does if not given"),
    "align": Setting(int | str, None, '"auto", or keep multiples of so many channels'),
    "include": Setting(str, None, "regular expression: cut only groups of matching names"),
    "exclude": Setting(str, None, "regular expression: leave groups of matching names whole"),
    "sections": Setting(bool, DEFAULTS.sections, "drop residual sections where that does less"),
    "num_samples": Setting(int, None, "use a random subset of so many samples"),
    "mirror": Setting(bool, DEFAULTS.mirror, "fit on the mirror images of samples as well"),
    "batch": Setting(int, DEFAULTS.batch, "samples per batch, where the model leaves that open"),
    "seed": Setting(int, DEFAULTS.seed, "of every random choice"),
    "max_memory": Setting(int, None, "bytes of statistics and activations to hold"),
    "latency": Setting(bool, DEFAULTS.latency, "measure the latency for the report"),
    "labels": Setting(str, None, ".npy of the samples' classes, for a target on the drop"),
    "evaluate": Setting(str, None, "file.py:function that judges models, for the same"),
}
"""Settings that go to ``Options`` as they are."""

OTHERS = {
    "calib": Setting(str, None, "path of the samples, in any form that --calib takes"),
    "target": Setting(
        str,
        None,
        'what the model may cost, as "macs=0.5" or "macs=0.6, error=0.1"; a list of '
        "such texts is searched through",
    ),
    "provider": Setting(str, None, "cpu, cuda or tensorrt; the workflow's if none is given"),
    "preset": Setting(str, None, '"imagenet": mean, std and scale of images in a folder'),
    "refine": Setting(str, None, "train afterwards for so long, as 300s, steps=N or epochs=N"),
    "save_report": Setting(bool, True, "write the full record beside the model"),
}
"""Settings that mean something here."""

SETTINGS = PLAIN | OTHERS


def options_of(given: dict[str, Any], execution_provider: str | None) -> Options:
    """The options that the settings of a pass state.

    Args:
        given: the settings, by name.
        execution_provider: the workflow's, as onnxruntime names it.

    Raises:
        ValueError: they contradict each other, or one is unknown.
    """
    plain = {name: given[name] for name in PLAIN}
    if given["preset"] not in (None, "imagenet"):
        raise ValueError(f"unknown preset '{given['preset']}'; known: imagenet")
    return Options(
        **plain,
        provider=given["provider"] or PROVIDERS.get(execution_provider or "", "cpu"),
        preprocessing=IMAGENET if given["preset"] else None,
        refine=None if given["refine"] is None else Refine(Budget.parse(given["refine"])),
    )


def targets_of(text: str | None) -> list[Target]:
    """The targets of a text with commas between them.

    Raises:
        ValueError: one cannot be read.
    """
    return [Target.parse(part.strip()) for part in (text or "").split(",") if part.strip()]
