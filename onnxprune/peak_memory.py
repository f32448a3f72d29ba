"""Peak memory of a model on the CPU: that of a process of its own.

What onnxruntime, NumPy and other models hold in this process would count otherwise, and memory
that an earlier run gave back would not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from onnxprune.arrays import Feed
from onnxprune.errors import OnnxPruneError
from onnxprune.runtime import Session
from onnxprune.scratch import scratch

RUNS = 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"


def peak_memory(model: Path, feed: Feed, threads: int | None) -> int | None:
    """Bytes that a process needs at most to load a model and run it, above what it had before.

    Args:
        model: the model's file.
        feed: the input of every run.
        threads: threads within one operator; None leaves the choice to onnxruntime.

    Returns:
        None where the operating system does not tell: only Linux does.

    Raises:
        OnnxPruneError: the process failed.
    """
    if not RESET.exists():
        return None
    with scratch() as folder:
        inputs = folder / "feed.npz"
        names = list(feed)
        np.savez(inputs, *feed.values())
        task = json.dumps([str(model.absolute()), str(inputs), names, threads])
        done = subprocess.run(
            [sys.executable, "-m", "onnxprune.peak_memory", task], capture_output=True, text=True
        )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        raise OnnxPruneError(
            f"{model}: the process that measures its memory failed ({''.join(last)}); leave "
            "--memory away"
        )
    found: int | None = json.loads(done.stdout)
    return found


def _measured(model: str, inputs: str, names: list[str], threads: int | None) -> int | None:
    """The same, in the process itself."""
    with np.load(inputs, allow_pickle=False) as file:
        feed = {name: file[f"arr_{place}"] for place, name in enumerate(names)}
    try:
        RESET.write_text(FORGET_PEAK)
        before = _kilobytes("VmRSS")
        session = Session(Path(model), threads=threads)
        for _ in range(RUNS):
            session.run(feed)
        return 1024 * max(_kilobytes("VmHWM") - before, 0)
    except OSError:  # the system keeps it to itself
        return None


def _kilobytes(field: str) -> int:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise OSError(f"{STATUS} has no {field}")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measured(*json.loads(sys.argv[1]))))
