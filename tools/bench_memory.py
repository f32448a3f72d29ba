"""Peak memory and time of the command under several limits, as the kernel accounts for them.

    python tools/bench_memory.py [--network NAME] [--samples N] [--limit SIZE ...] [--json FILE]

The limit bounds the statistics and the activations that are held; onnxruntime, the libraries, the
model and the work on one layer come on top. The pruned models must be the same, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path

from bench_command import CIFAR, DIGITS, inputs, run

NONE = "none"
HEADER = "| network | samples | allocation | limit | peak, MB | wall, s | of the first's time |"


def main() -> None:
    """Run the command under every limit and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="vgg16_cifar10", choices=[*DIGITS, *CIFAR])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--limit", nargs="+", default=[NONE, "2GB", "500MB"])
    parser.add_argument("--allocation", default="sensitivity", help="as the command's")
    parser.add_argument("--json", type=Path, help="append the rows to this file, one a line")
    given = parser.parse_args()
    print(f"{HEADER}\n|---|---:|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        model, samples, count = inputs(given.network, given.samples, Path(folder))
        output = Path(folder) / "out.onnx"
        digests, first = set(), None
        for limit in given.limit:
            words = ["--allocation", given.allocation]
            words += [] if limit == NONE else ["--max-memory", limit]
            usage = run(model, samples, output, *words)
            digests.add(hashlib.sha256(output.read_bytes()).hexdigest())
            first = first or usage.wall
            row = {
                "network": given.network,
                "samples": count,
                "allocation": given.allocation,
                "limit": limit,
                "peak_megabytes": round(usage.peak_megabytes),
                "wall_seconds": round(usage.wall, 1),
                "time_ratio": round(usage.wall / first, 2),
            }
            print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
            if given.json:
                with given.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if len(digests) > 1:
        sys.exit("the limits changed the result")


if __name__ == "__main__":
    main()
