"""What starting costs: processor time of commands that only parse, and of importing parsers.

    python tools/bench_startup.py [--runs 15]

A library is measured if it is installed; typer and click are no dependencies of anything here.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
from importlib.util import find_spec

IMPORTS = ("argparse", "click", "typer", "numpy", "onnxruntime")
COMMANDS = ("--help", "bench", "bench --help", "compare --help", "inspect --help", "ops")


def milliseconds(words: list[str], runs: int) -> float:
    """Median processor time of a Python process, user and system."""
    times = []
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return 1000 * statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print("| process | ms |\n|---|---:|")
    print(f"| python | {milliseconds(['-c', 'pass'], runs):.0f} |")
    for name in IMPORTS:
        if find_spec(name):
            print(f"| import {name} | {milliseconds(['-c', f'import {name}'], runs):.0f} |")
    for words in COMMANDS:
        time = milliseconds(["-m", "onnxprune", *words.split()], runs)
        print(f"| onnxprune {words} | {time:.0f} |")


if __name__ == "__main__":
    main()
