"""Fuzzing of everything that reads what users give: models, samples, plans, reports, words.

    python tools/fuzz.py [--seed N] [--inputs N] [--target NAME ...] [--seconds S]
    python tools/fuzz.py --replay TARGET NUMBER [--seed N] [--into FOLDER]
    python tools/fuzz.py --table

An input follows from the seed, the target's name and its number alone. It is read in a forked
worker with 1 GiB of memory and 10 seconds of the processor's time; a typed error and success are
fine. Findings are any other exception, a signal, a hang, too much memory, a file written or a
pickle loaded. A run goes on behind the inputs of the same seed that ``fuzz.jsonl`` has recorded,
and appends what it did. Exit code 1 if there are findings.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from fuzzing import workers  # noqa: E402
from fuzzing.targets import READERS  # noqa: E402
from measurements import Measurement, record, recorded  # noqa: E402

RESULTS = ROOT / "docs" / "results" / "fuzz.jsonl"
CHUNK = 2000
"""Inputs after which a row is recorded."""


def main() -> int:
    """Run, replay, or print the table of what was run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all targets together")
    parser.add_argument("--target", action="append", choices=list(READERS))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "NUMBER"))
    parser.add_argument("--into", type=Path, help="where a replayed input is written")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print(table(recorded(given.results)))
        return 0
    if given.replay:
        return replay(given.seed, given.replay[0], int(given.replay[1]), given.into)
    return fuzz(given)


def fuzz(given: argparse.Namespace) -> int:
    """Run what is left of the inputs asked for; what was found, as an exit code."""
    begun, found = time.monotonic(), 0
    names = given.target or list(READERS)
    whole = sum(READERS[name].share for name in names)
    left = {}
    for name in names:
        wanted = max(1, round(given.inputs * READERS[name].share / whole))
        left[name] = (done(recorded(given.results), given.seed, name), wanted)
    while any(at < end for at, end in left.values()) and time.monotonic() - begun < given.seconds:
        for name, (at, end) in left.items():
            if at >= end or time.monotonic() - begun > given.seconds:
                continue
            stop = min(at + max(1, round(CHUNK * READERS[name].share / 8)), end)
            row = part(given.seed, name, range(at, stop))
            found += len(row["findings"])
            record(given.results, row)
            left[name] = (stop, end)
    print(table(recorded(given.results)))
    return 1 if found else 0


def done(rows: list[Measurement], seed: int, name: str) -> int:
    """The first input of a seed that was not run."""
    return max(
        (row["stop"] for row in rows if (row["seed"], row["target"]) == (seed, name)), default=0
    )


def part(seed: int, name: str, numbers: range) -> dict[str, Any]:
    """Run inputs and say what came of them; of findings at one place, the first."""
    begun = time.monotonic()
    outcome = workers.run(seed, name, numbers)
    first: dict[str, dict[str, Any]] = {}
    for finding in outcome.findings:
        key = finding["kind"] + finding["where"]
        first.setdefault(key, finding | {"times": 0})["times"] += 1
    return {
        "seed": seed,
        "target": name,
        "start": numbers.start,
        "stop": numbers.stop,
        "seconds": round(time.monotonic() - begun, 1),
        "code": code_digest(),
        "counts": dict(sorted(outcome.counts.items())),
        "findings": list(first.values()),
    }


@cache
def code_digest() -> str:
    """What tells one state of the package from another."""
    total = hashlib.sha256()
    for path in sorted((ROOT / "onnxprune").rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


def table(rows: list[Measurement]) -> str:
    """Inputs, outcomes and time by target, in Markdown."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: Counter[str] = Counter()
    places: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for name in (row["target"], "**all**"):
            counts[name].update(row["counts"])
            seconds[name] += row["seconds"]
            places[name] |= {row["target"] + f["kind"] + f["where"] for f in row["findings"]}
    lines = ["| target | inputs | read | refused | findings | at places | minutes |"]
    lines.append("|---|" + "--:|" * 6)
    for name in [name for name in (*READERS, "**all**") if name in counts]:
        had = counts[name]
        numbers = (had.total(), had["ok"], had["refused"])
        cells = (*numbers, had.total() - had["ok"] - had["refused"], len(places[name]))
        shown = " | ".join(f"{cell:,}" for cell in cells)
        lines.append(f"| {name} | {shown} | {seconds[name] / 60:,.1f} |")
    return "\n".join(lines)


def replay(seed: int, name: str, number: int, into: Path | None) -> int:
    """Run one input in this very process, so that its traceback is seen."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "outside.bin").write_bytes(workers.SECRET)
        folder = into or Path(place) / "folder"
        folder.mkdir(parents=True, exist_ok=True)
        workers.written(workers.made(seed, name, number), folder)
        READERS[name].read(folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
