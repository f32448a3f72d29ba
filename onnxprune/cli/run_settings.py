"""From the flags of a run to its targets and settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from onnxprune.cli.images import preprocessing
from onnxprune.cli.samples import samples_read
from onnxprune.errors import CalibrationError
from onnxprune.options import Options
from onnxprune.refinement import FORMS, Budget, Refine
from onnxprune.target import Target


def asked(
    parser: argparse.ArgumentParser, given: argparse.Namespace
) -> tuple[list[Target], Options]:
    """The targets and settings that the flags state; what contradicts itself is wrong usage."""
    if not (given.calib or given.statistics):
        parser.error("the following arguments are required: --calib")
    try:
        targets = [Target.parse(text) for text in given.target]
        settings = options(given)
        settings.require_choice(targets)
        if any(target.kind == "drop" for target in targets) and not (given.eval or given.labels):
            raise ValueError("--target drop needs --eval or --labels, which measure it")
    except (ValueError, CalibrationError) as error:
        parser.error(str(error))
    return targets, settings


def reads(given: argparse.Namespace) -> dict[str, Path]:
    """What a file is -> the file, of all that the flags name to be read."""
    files = {"--labels": given.labels, "--statistics": given.statistics}
    named = {"IN": given.model} | {flag: Path(name) for flag, name in files.items() if name}
    return named | samples_read(given.calib)


def options(given: argparse.Namespace) -> Options:
    """The settings that the flags state."""
    return Options(
        method=given.method,
        criterion=given.criterion,
        allocation=given.allocation,
        recovery=not given.no_recovery,
        sequential=given.sequential,
        order=given.order,
        moments=given.moments,
        cutoff=given.cutoff,
        information=given.information,
        align=given.align,
        include=given.include,
        exclude=given.exclude,
        sections=given.sections,
        provider=given.provider,
        num_samples=given.num_samples,
        mask=given.mask,
        mirror=given.mirror,
        batch=given.batch,
        seed=given.seed,
        max_memory=given.max_memory,
        preprocessing=preprocessing(given),
        progress=not given.quiet,
        latency_batch=given.latency_batch,
        latency_shape=dict(given.latency_shape) if given.latency_shape else None,
        threads=given.threads,
        evaluate=given.eval,
        labels=given.labels,
        refine=_refine(given),
        statistics=given.statistics,
        cache="" if given.no_cache else given.cache,
        cache_size=given.cache_size,
    )


def _refine(given: argparse.Namespace) -> Refine | None:
    """The refinement that the flags state."""
    details: dict[str, Any] = {
        "rate": given.refine_rate,
        "optimizer": given.refine_optimizer,
        "method": given.refine_method,
        "blocks": given.refine_blocks,
        "augment": given.augment and tuple(given.augment),
    }
    stated = {name: value for name, value in details.items() if value is not None}
    if given.refine is not None:
        return Refine(Budget.parse(given.refine), **stated)
    for name in stated:
        flag = "--augment" if name == "augment" else f"--refine-{name}"
        raise ValueError(f"{flag} is for --refine, which is not given: {FORMS}")
    return None
