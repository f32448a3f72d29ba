"""What a refit in order costs as samples, and as depth, double: node runs and CPU time.

    python tools/bench_scaling.py [--samples N ...] [--network NAME ...] [--limit BYTES]

Half of every group goes, chosen by the size of its weights, and aligned to nothing. A node run is
one node executed on one sample in one network: at most two for each node and sample, whatever the
depth. The time is that of the process, all threads together, of the refit alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace

import numpy as np
import onnx
from trained import NETWORKS, SHARED

from onnxprune import sequential
from onnxprune.batches import Batches
from onnxprune.calibration import split
from onnxprune.canonical import canonicalise
from onnxprune.executor import InProcess
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.options import Options
from onnxprune.refit import refit
from onnxprune.scope import Scope, prunable_groups
from onnxprune.side_by_side import SideBySide
from onnxprune.study import study

SUBJECTS = ("resnet20_cifar10", "resnet56_cifar10")
HEADER = "| network | samples | nodes | stages | node runs per node and sample | CPU, s |"


class Counted(SideBySide):
    """Remembers itself, so that its runs can be read."""

    last: SideBySide | None = None
    cuts = 0

    def __init__(self, model: onnx.ModelProto, cuts: list[int], *rest: object) -> None:
        super().__init__(model, cuts, *rest)  # type: ignore[arg-type]
        Counted.last, Counted.cuts = self, len(cuts)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=SUBJECTS, choices=NETWORKS)
    parser.add_argument("--samples", nargs="+", type=int, default=[250, 500, 1000])
    parser.add_argument("--limit", type=int, help="bytes of activations to hold; default all")
    given = parser.parse_args()
    if not SHARED.is_dir():
        sys.exit(f"the networks and images are read from {SHARED}, which is not there")
    sequential.SideBySide = Counted  # type: ignore[misc]
    print(f"{HEADER}\n|---|---:|---:|---:|---:|---:|")
    for name in given.network:
        trained = NETWORKS[name]
        pixels, _ = trained.images("train", max(given.samples))
        model, images = trained.model, trained.inputs(pixels)
        for count in given.samples:
            print(f"| {name} | {count} | {measured(model, images[:count], given.limit)} |")


def measured(model: onnx.ModelProto, images: np.ndarray, limit: int | None) -> str:
    """Nodes, stages, runs per node and sample, and seconds of one refit."""
    options = replace(Options(), criterion="l1", align=1)
    canonical = canonicalise(model)
    network = find_groups(canonical)
    samples = open_samples(model, images, options)
    parts = split(len(samples), options.seed)
    scope = Scope.of(network, prunable_groups(network, options), options.align)
    executor = InProcess(progress=False)
    known = study(canonical, scope, samples, parts, options, executor)
    keeps = known.keeps({group.name: group.size // 2 for group in known.groups})
    alive = known.survivors(keeps)
    prior = refit(known.views, known.layers, alive, known.recovery, known.contractions)
    fit, tune = (Batches(samples, part, options.batch) for part in (parts.fit, parts.tune))
    start = time.process_time()
    sequential.refit_in_order(known, [prior], known.recovery, fit, tune, executor, max_memory=limit)
    spent = time.process_time() - start
    assert Counted.last is not None
    nodes = len(canonical.graph.node)
    ratio = Counted.last.node_runs / (nodes * (len(fit) + len(tune)))
    return f"{nodes} | {Counted.cuts} | {ratio:.2f} | {spent:.1f}"


if __name__ == "__main__":
    main()
