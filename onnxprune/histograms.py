"""The figure of a benchmark: how the times of its runs are spread."""

from __future__ import annotations

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from onnxprune.benchmark_record import Benchmark, BenchRow
from onnxprune.figures import STYLE

BINS = 60
SHOWN = 99
"""Percentile of the slowest model up to which times are shown; a few are many times as long."""


def draw_benchmark(record: Benchmark) -> Figure:
    """A panel for each batch size, with a histogram and the median of every model.

    Args:
        record: the benchmark.

    Returns:
        The figure; its axes are labelled with the batch sizes.
    """
    batches = list(dict.fromkeys(row.batch for row in record.rows))
    with style.context(list(STYLE)):
        figure = Figure(figsize=(9, 3.0 * len(batches) + 0.4), layout="constrained")
        for place, batch in enumerate(batches):
            axes = figure.add_subplot(len(batches), 1, place + 1, label=str(batch))
            _histograms(axes, [row for row in record.rows if row.batch == batch])
            axes.set_title(f"batch {batch}", loc="left")
            axes.set_ylabel("share of runs")
        axes.set_xlabel("time of a run (ms)")
    return figure


def _histograms(axes: Axes, rows: list[BenchRow]) -> None:
    providers = {row.provider for row in rows}
    times = [row.timing.milliseconds for row in rows]
    low = min(float(own.min()) for own in times)
    high = max(float(np.percentile(own, SHOWN)) for own in times)
    bins = np.linspace(low, high if high > low else low * 1.01 + 1e-6, BINS + 1).tolist()
    for place, (row, own) in enumerate(zip(rows, times, strict=True)):
        colour = f"C{place % 10}"
        where = f" on {row.provider}" if len(providers) > 1 else ""
        label = f"{row.model}{where}: median {np.median(own):.3f} ms".replace("$", r"\$")
        weights = np.full(own.size, 1 / own.size)
        axes.hist(own, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.35)
        axes.axvline(float(np.median(own)), color=colour, linewidth=1.2, label=label)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, handlelength=1.0)
