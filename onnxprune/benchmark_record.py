"""One record of a benchmark; the table and the JSON are views of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxprune.inspection import few
from onnxprune.interleaving import Ratio, Timing
from onnxprune.placement import Placement
from onnxprune.runtime import Provider, execution_provider
from onnxprune.tables import columns

PERCENTILES = {"min": 0, "median": 50, "p90": 90, "p99": 99}
FEW_RUNS = 100
"""Of fewer runs the 99th percentile is about the slowest one."""
MANY_INTERRUPTED = 0.1


@dataclass(frozen=True)
class BenchRow:
    """The latency of one model on one provider at one batch size.

    Attributes:
        model: its path.
        provider: where it ran.
        batch: samples in one run.
        timing: the runs.
        ratio: its median time relative to that of the first row of the same batch size; None for
            that row itself.
        memory: peak memory in bytes; None where it was not measured.
    """

    model: str
    provider: Provider
    batch: int
    timing: Timing
    ratio: Ratio | None
    memory: int | None

    @property
    def latency(self) -> dict[str, float]:
        """Statistics of the runs that count, in milliseconds."""
        times = self.timing.milliseconds
        found = {name: float(np.percentile(times, p)) for name, p in PERCENTILES.items()}
        return found | {"mean": float(times.mean())}

    @property
    def throughput(self) -> float:
        """Samples per second."""
        return 1000 * self.batch / self.latency["mean"]

    def to_dict(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return {
            "model": self.model,
            "provider": self.provider,
            "batch": self.batch,
            "runs": self.timing.runs,
            "runs_counted": int(self.timing.counts.sum()),
            "latency_ms": self.latency,
            "throughput": self.throughput,
            "ratio": None if self.ratio is None else asdict(self.ratio),
            "peak_memory_bytes": self.memory,
        }


@dataclass(frozen=True)
class Placed:
    """Where the nodes of one model ran.

    Attributes:
        model: its path.
        provider: where it was asked to run.
        placement: where it did.
    """

    model: str
    provider: Provider
    placement: Placement

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        found = self.placement
        providers = dict.fromkeys((*found.nodes, *found.time))
        return {
            "model": self.model,
            "asked_for": execution_provider(self.provider),
            "ran_on": {
                name: {"nodes": found.nodes.get(name, 0), "time_share": found.time.get(name, 0.0)}
                for name in providers
            },
            "fell_back": list(found.fell_back),
        }

    def lines(self) -> list[str]:
        """The record for a terminal."""
        found = self.placement
        share = "of the time" if self.provider == "cpu" else "of the processor's time"
        parts = [
            f"{name}: {nodes} nodes, {found.time.get(name, 0.0):.1%} {share}"
            for name, nodes in found.nodes.items()
        ]
        lines = [f"{self.model} on {self.provider} ran on {'; '.join(parts) or 'no node'}"]
        if found.fell_back:
            wanted = execution_provider(self.provider)
            lines.append(f"  not on {wanted}: {len(found.fell_back)} ({few(found.fell_back)})")
        return lines


@dataclass(frozen=True)
class Benchmark:
    """What was timed.

    Attributes:
        settings: how.
        rows: models, providers and batch sizes.
        placed: where the nodes of each model ran.
    """

    settings: Mapping[str, Any]
    rows: Sequence[BenchRow]
    placed: Sequence[Placed]

    @property
    def notes(self) -> list[str]:
        """What to know when reading the numbers."""
        notes = []
        if any(row.timing.runs < FEW_RUNS for row in self.rows):
            notes.append(
                f"p99 of fewer than {FEW_RUNS} runs is about the slowest one; give more --seconds"
            )
        left_out = max(1 - float(row.timing.counts.mean()) for row in self.rows)
        if left_out > MANY_INTERRUPTED:
            notes.append(
                f"other work interrupted up to {left_out:.0%} of the runs, which do not count; a "
                "quiet machine tells more"
            )
        if len({row.batch for row in self.rows}) > len({row.batch for row in self._firsts}):
            notes.append("models that are fixed to different batches have no ratio")
        return notes

    @property
    def _firsts(self) -> list[BenchRow]:
        """The rows that others are compared with, and those that are compared."""
        first = [row for row in self.rows if row.model == self.rows[0].model]
        return [*first, *(row for row in self.rows if row.ratio)]

    def to_dict(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {
            "settings": dict(self.settings),
            "rows": [row.to_dict() for row in self.rows],
            "placement": [placed.to_dict() for placed in self.placed],
            "notes": self.notes,
        }

    def table(self) -> str:
        """The record for a terminal."""
        memory = any(row.memory is not None for row in self.rows)
        head = ["batch", "min ms", "median", "mean", "p90", "p99", "samples/s", "ratio (95 %)"]
        head += ["peak memory"] * memory
        cells = [[*head, "model", "provider"], *(_cells(row, memory) for row in self.rows)]
        lines = columns(cells, numbers=len(head))
        for placed in self.placed:
            lines += ["", *placed.lines()] if placed is self.placed[0] else placed.lines()
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def _cells(row: BenchRow, memory: bool) -> list[str]:
    latency, found = row.latency, row.ratio
    spread = f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})" if found else "1"
    held = "-" if row.memory is None else f"{row.memory / 1e6:,.1f} MB"
    times = [f"{latency[name]:.3f}" for name in ("min", "median", "mean", "p90", "p99")]
    numbers = [str(row.batch), *times, f"{row.throughput:,.1f}", spread]
    return [*numbers, *[held] * memory, row.model, row.provider]
