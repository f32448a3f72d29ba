"""Latency of a network with channel shuffles as Gathers, and as the Reshapes they stand for.

python tools/bench_shuffle.py ../shared/models/shufflenet_v2_imagenet.onnx
"""

from __future__ import annotations

import argparse
from unittest import mock

import numpy as np

from onnxprune import canonical
from onnxprune.latency import interleaved_latency
from onnxprune.model import load


def main() -> None:
    """Time both and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--runs", type=int, default=400)
    given = parser.parse_args()
    model = load(given.model)
    gathered = canonical.canonicalise(model)
    with mock.patch.object(canonical, "gather_shuffles"):
        reshaped = canonical.canonicalise(model)
    kind = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value or 1 for dim in kind.shape.dim]
    feed = {model.graph.input[0].name: np.random.default_rng(0).random(shape, np.float32)}
    timed = interleaved_latency([gathered, reshaped], feed, runs=given.runs, budget_seconds=60)
    for name, latency in zip(("Gather", "Reshape"), timed, strict=True):
        print(f"{name}: median {latency.median:.2f} ms, p90 {latency.p90:.2f} ms")


if __name__ == "__main__":
    main()
