"""What onnxruntime's ways to compute on a GPU cost, and how far they are from the CPU's numbers.

    python tools/bench_cuda.py [--json FILE] [--table]

ResNet-20 on random images, in batches of 250: the seconds to open a session, of its first run and
of the next ones, and the largest difference of an output. Every way is opened twice, and the second
time counts. Rows are appended as they come and never measured again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from measurements import Measurement, record, recorded
from trained import NETWORKS, SHARED

from onnxprune.runtime import Session

FILE = Path(__file__).resolve().parents[1] / "docs" / "results" / "cuda.jsonl"
NETWORK, BATCH, RUNS = "resnet20_cifar10", 250, 10
ARITHMETIC = {"1": "TF32", "0": "float32"}
SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    if not given.table:
        if not SHARED.is_dir():
            sys.exit(f"{SHARED} is missing: it holds the networks")
        done = {(row["tf32"], row["search"]) for row in recorded(given.json)}
        for way in itertools.product(ARITHMETIC, SEARCHES):
            if way not in done:
                record(given.json, measured(*way))
    print(table(recorded(given.json)))


def measured(tf32: str, search: str) -> Measurement:
    """The row of one way."""
    model = NETWORKS[NETWORK].model
    reference = Session(model)
    (name,) = reference.inputs
    images = np.random.default_rng(0).standard_normal((BATCH, 3, 32, 32)).astype(np.float32)
    Session(model, provider="cuda")  # says what is wrong where there is no GPU
    settings = {"use_tf32": tf32, "cudnn_conv_algo_search": search}
    for _ in range(2):
        times = [time.perf_counter()]
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=[("CUDAExecutionProvider", settings)]
        )
        times.append(time.perf_counter())
        (found,) = session.run(None, {name: images})
        times.append(time.perf_counter())
        for _ in range(RUNS):
            session.run(None, {name: images})
        times.append(time.perf_counter())
    opened, first, others = np.diff(times)
    return {
        "tf32": tf32,
        "search": search,
        "open": round(opened, 3),
        "first": round(first, 3),
        "then": round(others / RUNS, 4),
        "difference": float(f"{abs(found - reference.run({name: images})[0]).max():.2e}"),
    }


def table(rows: Sequence[Measurement]) -> str:
    """Markdown: a line for each way."""
    lines = [
        "| arithmetic | search | open, s | first run, s | next runs, ms | largest difference |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {ARITHMETIC[row['tf32']]} | {row['search'].lower()} | {row['open']:.3f} | "
        f"{row['first']:.3f} | {1000 * row['then']:.1f} | {row['difference']:.0e} |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
