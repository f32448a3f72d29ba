"""Wall time, CPU time and peak memory of the command, as the kernel accounts for them.

    python tools/bench_command.py [--network NAME ...] [--samples N]

Networks in ``models/`` run on their own samples; those beside the repository in ``../shared`` on
CIFAR-10 images of their train split, where they are present.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
DIGITS = ("mlp_digits", "resnet_digits", "vgg_digits")
CIFAR = {
    "resnet20_cifar10": "lossless_train",
    "resnet20_cifar10_jpeg": "jpeg_train",
    "vgg16_cifar10": "jpeg_train",
}


@dataclass(frozen=True)
class Usage:
    """What one run of the command took."""

    wall: float
    cpu: float
    peak_megabytes: float


def main() -> None:
    """Run the command on every network and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=[*DIGITS, *CIFAR])
    parser.add_argument("--samples", type=int, default=1000)
    given = parser.parse_args()
    names = given.network or [*DIGITS, *(CIFAR if SHARED.is_dir() else ())]
    print("| network | samples | target | wall, s | CPU, s | peak memory, MB |")
    print("|---|---:|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model, samples, count = inputs(name, given.samples, Path(folder))
            usage = run(model, samples, Path(folder) / "out.onnx")
            print(
                f"| {name} | {count} | macs=0.5 | {usage.wall:.1f} | {usage.cpu:.1f} "
                f"| {usage.peak_megabytes:.0f} |",
                flush=True,
            )


def inputs(name: str, count: int, folder: Path) -> tuple[Path, Path, int]:
    """The model, its samples and how many they are."""
    if name in DIGITS:
        return ROOT / "models" / f"{name}.onnx", ROOT / "models" / "digits_calib.npz", 500
    samples = folder / f"{name}.npz"
    loader = SHARED / "data" / "cifar10" / "load.py"
    subprocess.run([sys.executable, loader, CIFAR[name], str(count), samples], check=True)
    return SHARED / "models" / f"{name}.onnx", samples, count


def run(model: Path, samples: Path, output: Path, *flags: str) -> Usage:
    """Run the command once, in a process of its own, with these flags besides."""
    words = [sys.executable, "-m", "onnxprune", model, output]
    words += ["--calib", samples, "--target", "macs=0.5", "-q", *flags]
    start = time.perf_counter()
    process = subprocess.Popen([str(word) for word in words])
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"the command failed on {model}")
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
