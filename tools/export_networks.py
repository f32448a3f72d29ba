"""Export small networks of many architectures to ONNX, with both of torch's exporters.

Every network has random weights, always the same, and a batch that is left open. A file is named
after its network and its exporter: `resnet_basic.torchscript.onnx`, `resnet_basic.dynamo.onnx`.
One line per file goes to stdout; where an exporter cannot do a network, the line says why.

Both exporters merge BatchNorms into the convolutions before them. `--exporter unfolded` is the
TorchScript one told not to, nor to fold constants.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from networks import TOPOLOGIES, Topology

EXPORTERS = ("torchscript", "dynamo")
UNFOLDED = "unfolded"
BATCH = 2


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters print, log and warn."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def export(topology: Topology, exporter: str) -> onnx.ModelProto:
    """One network, as one of torch's exporters writes it with its default settings."""
    module, samples = topology.module(), topology.samples(BATCH)
    with quiet(), torch.no_grad():
        if exporter == "dynamo":
            return _dynamo(topology, module, samples)
        return _torchscript(topology, module, samples, fold=exporter != UNFOLDED)


def _torchscript(
    topology: Topology, module: torch.nn.Module, samples: tuple[torch.Tensor, ...], fold: bool
) -> onnx.ModelProto:
    result = module(*samples)
    count = len(result) if isinstance(result, tuple) else 1
    inputs = [value.name for value in topology.inputs]
    outputs = [f"output_{i}" for i in range(count)]
    file = io.BytesIO()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operators have no ONNX form
    torch.onnx.export(
        module,
        samples,
        file,
        input_names=inputs,
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        do_constant_folding=fold,
        training=(torch.onnx.TrainingMode.EVAL if fold else torch.onnx.TrainingMode.PRESERVE),
        dynamo=False,
    )
    torch.backends.mha.set_fastpath_enabled(fast)
    return onnx.load_from_string(file.getvalue())


def _dynamo(
    topology: Topology, module: torch.nn.Module, samples: tuple[torch.Tensor, ...]
) -> onnx.ModelProto:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        module,
        samples,
        input_names=[value.name for value in topology.inputs],
        dynamic_shapes=tuple({0: batch} for _ in topology.inputs),
        dynamo=True,
        verbose=False,
    )
    model = onnx.ModelProto.FromString(program.model_proto.SerializeToString())
    for node in model.graph.node:  # traces of the source, with its paths
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return model


def _first_line(error: BaseException) -> str:
    """What went wrong in the first place, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:200]


def _summary(model: onnx.ModelProto) -> str:
    params = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return f"opset {opset}, {len(model.graph.node)} nodes, {params / 1e3:.0f} kB of constants"


def main(argv: list[str] | None = None) -> int:
    """Export the chosen networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--only", default="", metavar="REGEX", help="networks to export")
    parser.add_argument(
        "--exporter", choices=(*EXPORTERS, UNFOLDED), help="the first two if not given"
    )
    args = parser.parse_args(argv)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, topology in TOPOLOGIES.items():
        if not re.search(args.only, name):
            continue
        for exporter in (args.exporter,) if args.exporter else EXPORTERS:
            path = args.out_dir / f"{name}.{exporter}.onnx"
            try:
                model = export(topology, exporter)
            except Exception as error:  # one network must not stop the others
                print(f"{path.name}: not exported: {_first_line(error)}", flush=True)
                continue
            onnx.save(model, path)
            print(f"{path.name}: {_summary(model)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
