"""The benchmark of refinement: what its images are for, resuming, the table, the figure."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import bench_refine  # noqa: E402
from bench_refine import IMAGES, PRUNED_ON, Job, cell, job_of, jobs, missing, parts_of  # noqa: E402
from curve_rows import paired  # noqa: E402

JOB = Job("resnet20_cifar10", 0.5, 1.0, 1000, "none", 0)


def row(job: Job, before: np.ndarray, after: np.ndarray) -> dict[str, object]:
    compared = {
        "with_original": paired(np.ones_like(before), after),
        "with_pruned": paired(before, after),
    }
    return {**asdict(job), **compared, "before": 1.0, "after": 0.5}


@pytest.fixture
def rows(rng: np.random.Generator) -> list[dict[str, object]]:
    before = rng.random(400) < 0.8
    found = []
    for minutes in (1.0, 5.0):
        for images in IMAGES:
            after = before | (rng.random(400) < 0.02 * minutes)
            found.append(row(replace(JOB, minutes=minutes, images=images), before, after))
    return found


@pytest.mark.parametrize("images", IMAGES)
def test_images_that_choose_are_seen_by_nothing_else(images: int) -> None:
    parts = parts_of(images, draw=3)
    used = [parts.fit, parts.tune, parts.choose, parts.held_out]
    together = np.concatenate(used)
    assert np.unique(together).size == together.size == images
    pruned = parts_of(PRUNED_ON, draw=3)
    recovered = np.concatenate([pruned.fit, pruned.tune])
    assert not np.isin(parts.choose, recovered).any()


def test_what_has_a_row_is_not_measured_again(rows: list[dict[str, object]]) -> None:
    given = argparse.Namespace(
        draw=[0],
        network=["resnet20_cifar10"],
        fraction=[0.5],
        images=IMAGES,
        changes=["none"],
        minutes=[1.0, 5.0, 15.0],
        provider="cpu",
    )
    left = missing(jobs(given), rows)
    assert [(job.minutes, job.images) for job in left] == [(15.0, 1000), (15.0, 4000)]
    assert job_of(rows[0]) == JOB


def test_gains_are_those_of_the_same_images(rows: list[dict[str, object]]) -> None:
    before, after = np.array([1, 0, 0, 1] * 25, bool), np.array([1, 1, 0, 0] * 25, bool)
    gap = after.astype(float) - before
    said = cell([row(JOB, before, after)])
    assert said == f"+0.0 ± {100 * gap.std(ddof=1) / 10:.1f}"
    assert cell([]) == ""
    table = bench_refine.table(rows).splitlines()
    assert table[0].endswith("| original | pruned | 1 min | 5 min |")
    assert len(table) == 2 + len(IMAGES)


def test_the_figure_is_drawn(rows: list[dict[str, object]], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import plot_refine

    plot_refine.draw(rows, tmp_path / "refine.svg")
    text = (tmp_path / "refine.svg").read_text(encoding="utf-8")
    assert "minutes of refinement" in text or "<svg" in text
