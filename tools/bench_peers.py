"""Half of the channels removed by this package, by onnxsim and by Torch-Pruning, side by side.

    python tools/bench_peers.py [--only REGEX] [--tool NAME ...] [--json FILE] [--table]

Every tool gets the same model, takes half of the channels from each group it can cut, and does not
fine-tune. Networks: those of ``export_networks.py``, with random weights and random inputs (needs
torch), and the trained ones of ``../shared/models`` on the images they were trained for.

    onnxprune            ``prune`` with samples, target ratio=0.5, uniform, weights recovered
    onnxsim              ``simplify``, then channels and attention heads by the weights' size
    onnxsim, batch 1     the same with the batch fixed to one sample, where it recognises more
    onnxsim, samples     as onnxsim, by the size of weights and of activations on the samples
    Torch-Pruning        MetaPruner with MagnitudeImportance, then exported; torch networks only

Columns: share of the parameters and of the MACs removed, both counted in the canonical form, so
that folding BatchNormalization is nobody's merit; share of the channels removed that
LayerNormalization reads; whether the file passes the ONNX checker, loads, runs and keeps its
outputs' shapes; the error of the outputs on samples the tool has not seen, relative to their size;
seconds. Rows are appended to the file as they come and are not measured again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import itertools
import json
import math
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools")]

import measurements  # noqa: E402
from macs import layer_macs  # noqa: E402
from trained import NETWORKS, SHARED  # noqa: E402

from onnxprune import Options, Target, prune  # noqa: E402
from onnxprune.arrays import Array, Feed  # noqa: E402
from onnxprune.canonical import canonicalise  # noqa: E402
from onnxprune.cost import parameter_count  # noqa: E402
from onnxprune.errors import OnnxPruneError  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402

RATIO = 0.5
SAMPLES, UNSEEN = 256, 64
PHOTOGRAPHS = 64
BATCH = 32
NORMS = ("LayerNormalization", "RMSNormalization", "SkipLayerNormalization")
HEADER = ("network", "tool", "params", "MACs", "norm channels", "valid", "error", "s")


@dataclass(frozen=True)
class Case:
    """A network with its samples.

    Attributes:
        name: of the network.
        model: as it was trained or exported.
        samples: what a tool may look at.
        unseen: what the error is measured on.
        topology: where its torch module comes from; None for a file.
        exporter: the one of torch that wrote the model.
    """

    name: str
    model: onnx.ModelProto = field(repr=False)
    samples: Feed = field(repr=False)
    unseen: Feed = field(repr=False)
    topology: Any = None
    exporter: str = ""


@dataclass
class Row:
    """What one tool made of one network.

    Attributes:
        network: its name.
        tool: its name.
        params: share of the parameters removed.
        macs: share of the MACs removed.
        norm_channels: share removed of the channels that LayerNormalization reads.
        valid: "yes", or what is wrong.
        error: mean over the outputs of |y' - y| / |y|.
        seconds: from the model in memory to the pruned one.
    """

    network: str
    tool: str
    params: float = math.nan
    macs: float = math.nan
    norm_channels: float = math.nan
    valid: str = "yes"
    error: float = math.nan
    seconds: float = math.nan


# --- the tools ----------------------------------------------------------------------------------


def by_onnxprune(case: Case) -> onnx.ModelProto:
    """As the command does it."""
    options = Options(allocation="uniform", align=1, latency=False)
    return prune(case.model, case.samples, Target("ratio", RATIO), options=options).model


def by_onnxsim(case: Case, *, fixed: bool = False, look: bool = False) -> onnx.ModelProto:
    """Channels first, then attention heads, of the simplified model, as its documentation asks."""
    import onnxsim

    shapes = {name: [1, *array.shape[1:]] for name, array in case.samples.items()}
    model, _ = onnxsim.simplify(case.model, overwrite_input_shapes=shapes if fixed else None)
    if not look:
        model = onnxsim.apply_structured_pruning(model, sparsity=RATIO)
        return onnxsim.apply_attention_head_pruning(model, sparsity=RATIO)
    batches = list(batches_of(case.model, case.samples))
    model = onnxsim.apply_structured_wanda_pruning(model, batches, sparsity=RATIO)
    return onnxsim.apply_attention_head_wanda_pruning(model, batches, sparsity=RATIO)


def by_torch_pruning(case: Case) -> onnx.ModelProto:
    """The module pruned, then exported as the original was."""
    import torch_peer
    from export_networks import BATCH as EXPORTED
    from export_networks import export

    samples = case.topology.samples(EXPORTED)
    module = torch_peer.prune(case.topology.module(), samples, RATIO)
    pruned = SimpleNamespace(
        module=lambda: module, samples=case.topology.samples, inputs=case.topology.inputs
    )
    return export(pruned, case.exporter)


TOOLS: dict[str, Callable[[Case], onnx.ModelProto]] = {
    "onnxprune": by_onnxprune,
    "onnxsim": by_onnxsim,
    "onnxsim, batch 1": partial(by_onnxsim, fixed=True),
    "onnxsim, samples": partial(by_onnxsim, look=True),
    "Torch-Pruning": by_torch_pruning,
}
NEEDS = {"onnxsim": "onnxsim", "Torch-Pruning": "torch_pruning"}
"""What the tools of these names, up to a comma, import."""


def available(tool: str) -> bool:
    """Whether what the tool needs is installed."""
    needed = NEEDS.get(tool.split(",")[0])
    return needed is None or importlib.util.find_spec(needed) is not None


# --- the networks -------------------------------------------------------------------------------


def torch_cases(wanted: re.Pattern[str]) -> Iterator[Case]:
    """The networks of ``export_networks.py``; a network nobody can export is left out."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no networks of export_networks.py", file=sys.stderr)
        return
    import torch
    from export_networks import EXPORTERS, export
    from networks import TOPOLOGIES

    torch.set_num_threads(1)
    for name, topology in TOPOLOGIES.items():
        for exporter in EXPORTERS if wanted.search(name) else ():
            try:
                model = export(topology, exporter)
            except Exception as error:  # one exporter's failure is the next one's turn
                print(f"{name}: {exporter}: {first_line(error)}", file=sys.stderr)
                continue
            samples, unseen = (
                {
                    value.name: tensor.numpy()
                    for value, tensor in zip(topology.inputs, topology.samples(n, n), strict=True)
                }
                for n in (SAMPLES, UNSEEN)
            )
            yield Case(name, model, samples, unseen, topology, exporter)
            break


def file_cases(wanted: re.Pattern[str]) -> Iterator[Case]:
    """The trained networks, where they are present."""
    for path in sorted((SHARED / "models").glob("*.onnx")):
        if wanted.search(path.stem):
            model = load(path)
            yield Case(path.stem, model, *images(path.stem, model))


def images(name: str, model: onnx.ModelProto) -> tuple[Feed, Feed]:
    """What a trained network was trained for, else noise: samples and unseen ones."""
    if name in NETWORKS:
        network = NETWORKS[name]
        count = PHOTOGRAPHS if network.data == "photographs" else SAMPLES
        parts = (("train", count), ("test", UNSEEN))
        return tuple({"input": network.inputs(network.images(*part)[0])} for part in parts)
    value = model.graph.input[0]
    extents = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    rng = np.random.default_rng(0)
    noise = (rng.standard_normal((n, *extents)).astype(np.float32) for n in (SAMPLES, UNSEEN))
    return tuple({value.name: part} for part in noise)


# --- measuring ----------------------------------------------------------------------------------


def measure(case: Case, tool: str) -> Row:
    """One row; whatever a tool does wrong is said in it."""
    row = Row(case.name, tool)
    start = time.perf_counter()
    try:
        with quiet():
            pruned = TOOLS[tool](case)
    except OnnxPruneError as error:
        row.valid = f"refused: {error}"
    except Exception as error:  # a peer's failure is a result
        row.valid = f"failed: {first_line(error)}"
    else:
        row.seconds = round(time.perf_counter() - start, 2)
        _weigh(row, case, pruned)
        row.valid = fault(case, pruned) or "yes"
        if row.valid == "yes":
            row.error = round(error_of(case, pruned), 5)
    return row


def _weigh(row: Row, case: Case, pruned: onnx.ModelProto) -> None:
    """The shares removed; what cannot be analysed stays not-a-number."""
    shapes = {name: (1, *array.shape[1:]) for name, array in case.samples.items()}
    try:
        before, after = canonicalise(case.model), canonicalise(pruned)
    except OnnxPruneError:
        before, after = case.model, pruned
    row.params = round(1 - parameter_count(after) / parameter_count(before), 4)
    macs = [sum(layer_macs(model, shapes).values()) for model in (before, after)]
    row.macs = round(1 - macs[1] / macs[0], 4)
    normed = [norm_channels(model) for model in (before, after)]
    row.norm_channels = round(1 - normed[1] / normed[0], 4) if normed[0] else math.nan


def norm_channels(model: onnx.ModelProto) -> int:
    """Channels that LayerNormalization and its relatives read, over all of them."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    return sum(
        max((sizes.get(name, 0) for name in node.input), default=0)
        for node in model.graph.node
        if node.op_type in NORMS
    )


def fault(case: Case, pruned: onnx.ModelProto) -> str | None:
    """What is wrong with a model, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pruned.onnx"
        try:
            onnx.save(pruned, path)
            onnx.checker.check_model(path, full_check=True)
            session = Session(path, threads=1)
            after = session.run(next(batches_of(pruned, case.unseen)))
        except Exception as error:  # what it is, is the result
            return first_line(error)
    before = Session(case.model, threads=1).run(next(batches_of(pruned, case.unseen)))
    shapes = [[list(array.shape) for array in arrays] for arrays in (before, after)]
    if shapes[0] != shapes[1]:
        return f"outputs {shapes[1]} instead of {shapes[0]}"
    finite = all(np.isfinite(array).all() for array in after if array.dtype.kind == "f")
    return None if finite else "outputs that are infinite or not a number"


def error_of(case: Case, pruned: onnx.ModelProto) -> float:
    """Mean over the outputs of |y' - y| / |y| on the unseen samples."""
    sessions = [Session(model, threads=1) for model in (case.model, pruned)]
    squares: dict[int, Array] = {}
    for batch in batches_of(pruned, case.unseen):
        for index, (y, z) in enumerate(zip(*(s.run(batch) for s in sessions), strict=True)):
            if y.dtype.kind == "f":
                y, z = y.astype(np.float64), z.astype(np.float64)
                sums = np.array([((z - y) ** 2).sum(), (y**2).sum()])
                squares[index] = squares.get(index, 0) + sums
    return float(np.mean([np.sqrt(gap / size) for gap, size in squares.values()]))


def batches_of(model: onnx.ModelProto, samples: Feed) -> Iterator[Feed]:
    """The samples in batches of the size that the model takes."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or BATCH
    count = len(next(iter(samples.values())))
    for start in range(0, count - size + 1, size):
        yield {name: array[start : start + size] for name, array in samples.items()}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the tools print and warn."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def first_line(error: Exception) -> str:
    """The kind of an error and the first line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]


# --- the record ---------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Markdown, a row for each network and tool, those of a network together."""
    networks = list(dict.fromkeys(row.network for row in rows))
    order = sorted(rows, key=lambda row: (networks.index(row.network), list(TOOLS).index(row.tool)))
    lines = [HEADER, ("---", "---", "---:", "---:", "---:", "---", "---:", "---:")]
    lines += [
        (
            *(row.network, row.tool, share(row.params), share(row.macs)),
            *(share(row.norm_channels), row.valid, number(row.error, 3), number(row.seconds, 1)),
        )
        for row in order
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def share(value: float) -> str:
    """Per cent; nothing for what is not known."""
    return "" if math.isnan(value) else f"{value:.1%}"


def number(value: float, digits: int) -> str:
    """A number; nothing for what is not known."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def summary(rows: Sequence[Row]) -> str:
    """How many networks every tool cut, and a comparison with this package where both did."""
    lines = []
    good = {
        (row.network, row.tool): row for row in rows if row.valid == "yes" and row.params > 0.001
    }
    for tool in dict.fromkeys(row.tool for row in rows):
        own = [row for row in rows if row.tool == tool]
        valid = sum(row.valid == "yes" for row in own)
        cut = [row.network for row in own if (row.network, tool) in good]
        lines.append(f"{tool}: {len(own)} networks, {valid} valid, {len(cut)} cut")
        both = [name for name in cut if (name, "onnxprune") in good]
        if tool != "onnxprune" and both:
            peer, ours = (averages([good[n, t] for n in both]) for t in (tool, "onnxprune"))
            lines.append(f"  where both cut ({len(both)}): {peer}; onnxprune {ours}")
    return "\n".join(lines)


def averages(rows: Sequence[Row]) -> str:
    """What was removed on average, and the median error."""
    params, macs = (np.nanmean([getattr(row, k) for row in rows]) for k in ("params", "macs"))
    error = np.median([row.error for row in rows])
    return f"params -{params:.1%}, MACs -{macs:.1%}, median error {error:.3f}"


def recorded(path: Path | None) -> list[Row]:
    """Every row measured so far."""
    return [Row(**row) for row in measurements.recorded(path)] if path else []


def missing(
    cases: Iterator[Case], tools: Sequence[str], done: set[tuple[str, str]]
) -> Iterator[tuple[Case, str]]:
    """What is still to be measured."""
    for case in cases:
        for tool in tools:
            fits = case.topology is not None or tool != "Torch-Pruning"
            if fits and available(tool) and (case.name, tool) not in done:
                yield case, tool


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=re.compile, default=re.compile(""), metavar="REGEX")
    parser.add_argument("--tool", action="append", choices=TOOLS)
    parser.add_argument("--json", type=Path, help="keep the rows in this file, one per line")
    parser.add_argument("--table", action="store_true", help="only print what was measured")
    given = parser.parse_args(words)
    rows = recorded(given.json)
    if not given.table:
        cases = itertools.chain(torch_cases(given.only), file_cases(given.only))
        done = {(row.network, row.tool) for row in rows}
        for case, tool in missing(cases, given.tool or list(TOOLS), done):
            row = measure(case, tool)
            rows.append(row)
            if given.json:
                measurements.record(given.json, asdict(row))
            else:
                print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
    print(table(rows))
    print()
    print(summary(rows))


if __name__ == "__main__":
    main()
