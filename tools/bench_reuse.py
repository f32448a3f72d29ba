"""What is saved by learning of a model and its samples once: by a cache, by plans, by sweeps.

    python tools/bench_reuse.py [stages] [--network NAME ...] [--table]

CPU time of the command, as the kernel accounts for it: other work on the machine has little effect
on it. Start-up (about a second, imports) is in every time. ResNet-20 has 200 images, the digits
have 500. Rows that are in docs/results/reuse.jsonl already are not measured again. With
``stages``, where the CPU time of one run goes, within one process, and what a cache of it takes.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from bench_command import DIGITS, inputs
from measurements import Measurement, record, recorded

from onnxprune import Options, Target, prune

ROWS = Path(__file__).resolve().parents[1] / "docs" / "results" / "reuse.jsonl"
NETWORKS = ("resnet_digits", "resnet20_cifar10")
IMAGES = 200
BUDGETS = ("0.8", "0.65", "0.5", "0.35")

STAGES = {
    "moments": ("onnxprune.study", "observe"),
    "orders": ("onnxprune.study", "rank"),
    "trials": ("onnxprune.choice", "measure_sensitivity"),
    "refit in order": ("onnxprune.finishing", "refit_in_order"),
}
"""Stage -> the module that calls it, and its name there."""
STAGE_CASES = (*STAGES, "whole run", "MB kept")

NAMES = {
    "run 0.5": "run, `macs=0.5`",
    "run 0.35": "run, `macs=0.35`",
    "first": "run, `macs=0.5`, into an empty cache",
    "second": "run, `macs=0.35`, from that cache",
    "plan": "`plan`, `macs=0.5`",
    "plan cached": "`plan`, `macs=0.65`, from that cache",
    "four": "four runs, " + ", ".join(f"`macs={budget}`" for budget in BUDGETS),
    "sweep": "`sweep` over these four",
}


def main() -> None:
    """Measure what is missing, or print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["stages"])
    parser.add_argument("--network", action="append", choices=[*DIGITS, "resnet20_cifar10"])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = recorded(ROWS)
    if given.table:
        print(stage_table(rows) if given.part else table(rows))
        return
    measure, some = (stages, "whole run") if given.part else (measured, "sweep")
    done = {row["network"] for row in rows if row["case"] == some}
    for network in given.network or NETWORKS:
        if network not in done:
            for case, amount in measure(network).items():
                record(ROWS, {"network": network, "case": case, "cpu_s": round(amount, 2)})


def stages(network: str) -> dict[str, float]:
    """Stage -> CPU seconds of one run; and the megabytes that a cache keeps of it."""
    spent = dict.fromkeys(STAGE_CASES, 0.0)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            start = time.process_time()
            try:
                return function(*words, **named)
            finally:
                spent[stage] += time.process_time() - start

        return call

    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as patches:
        model, samples, _ = inputs(network, IMAGES, Path(name))
        for stage, (module, function) in STAGES.items():
            found = importlib.import_module(module)
            replaced = timed(stage, getattr(found, function))
            patches.enter_context(mock.patch.object(found, function, replaced))
        options = Options(latency=False, cache=Path(name) / "cache")
        timed("whole run", prune)(model, samples, Target("macs", 0.5), options=options)
        kept = (Path(name) / "cache").rglob("*.npz")
        spent["MB kept"] = sum(path.stat().st_size for path in kept) / 1e6
    return spent


def stage_table(rows: list[Measurement]) -> str:
    """CPU seconds by network and stage."""
    names = [n for n in NETWORKS if any(r["network"] == n for r in rows)]
    amounts = {(row["network"], row["case"]): row["cpu_s"] for row in rows}
    lines = [f"| CPU time, s | {' | '.join(STAGE_CASES)} |", "|---|" + "---:|" * len(STAGE_CASES)]
    for name in names:
        cells = " | ".join(f"{amounts[name, case]:.1f}" for case in STAGE_CASES)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


def measured(network: str) -> dict[str, float]:
    """Case -> CPU seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, samples, _ = inputs(network, IMAGES, folder)
        common = ["--calib", samples, "-q"]
        cached = [*common, "--cache", folder / "cache"]

        def run(budget: str, flags: list[str | Path]) -> float:
            out = folder / f"{budget}{'-cached' * (flags is cached)}.onnx"
            return seconds(model, out, "--target", f"macs={budget}", *flags)

        runs = {budget: run(budget, common) for budget in BUDGETS}
        found = {"run 0.5": runs["0.5"], "run 0.35": runs["0.35"]}
        found |= {"first": run("0.5", cached), "second": run("0.35", cached)}
        for budget in ("0.5", "0.35"):
            one, other = (folder / f"{budget}{end}.onnx" for end in ("", "-cached"))
            assert one.read_bytes() == other.read_bytes()
        found["plan"] = seconds("plan", model, "--target", "macs=0.5", *common)
        found["plan cached"] = seconds("plan", model, "--target", "macs=0.65", *cached)
        found["four"] = sum(runs.values())
        target = f"macs={','.join(BUDGETS)}"
        into = folder / "sweep"
        found["sweep"] = seconds(
            "sweep", model, into, "--target", target, "--figure", "none", *common
        )
        for budget in BUDGETS:
            model_of_run = folder / f"{budget}.onnx"
            assert (into / f"macs-{budget}.onnx").read_bytes() == model_of_run.read_bytes()
        return found


def seconds(*words: str | Path) -> float:
    """CPU time of the command, in a process of its own."""
    command = [sys.executable, "-m", "onnxprune", *map(str, words)]
    process = subprocess.Popen(command, env=os.environ | {"ONNXPRUNE_CACHE": ""})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the command failed: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime


def table(rows: list[Measurement]) -> str:
    """CPU seconds by command and network."""
    names = [n for n in NETWORKS if (n, "sweep") in {(r["network"], r["case"]) for r in rows}]
    times = {(row["network"], row["case"]): row["cpu_s"] for row in rows}
    lines = [f"| CPU time, s | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for case, title in NAMES.items():
        cells = " | ".join(f"{times[name, case]:.1f}" for name in names)
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
