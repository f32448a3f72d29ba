"""Every model of some folders, cut in half: what is removed, what is not, why, and is it right.

Each group of channels that can be cut keeps half of them, drawn at random; the consumers are only
sliced. The result is written and validated as the command does it, and its outputs are compared
with the uncut model's whose weights that read a removed channel are zero.

    python tools/run_corpus.py [FOLDER ...] [--markdown] [--json FILE]

Columns, all for one sample and the shapes of ``feeds.py``:

    MACs      of Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN outside of If, Loop and Scan
    removed   share of them that is gone, counted from the written file
    at most   what ``macs.halved`` removes: every channel axis inside the network halved
    cut       share of the MACs in layers that became smaller
    lost      what keeps ``removed`` below ``at most``, largest first

Outcomes: ``ok``; ``refused`` and ``left alone``, with the reason; ``not run`` where no random input
suits the model, so that outputs could not be compared. Exit code 1 if a model ends otherwise:
``CRASH``, ``MISMATCH`` or ``INVALID``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import textwrap
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from feeds import Feed, input_shapes, last_digit, runnable_feeds  # noqa: E402
from macs import Flow, halved, layer_macs  # noqa: E402
from oracles import Subject, distance, masked, random_keeps, tolerance  # noqa: E402

from onnxprune.errors import OnnxPruneError, ValidationError  # noqa: E402
from onnxprune.inspection import OF_ONE_NODE  # noqa: E402
from onnxprune.model import load, pending  # noqa: E402
from onnxprune.options import Options  # noqa: E402
from onnxprune.rewrite import apply  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.scope import prunable_groups  # noqa: E402
from onnxprune.stand_ins import opset_of  # noqa: E402
from onnxprune.tables import columns  # noqa: E402
from onnxprune.validation import check_file  # noqa: E402

FOLDER = ROOT.parent / "shared" / "corpus"
RATIO = 0.5
REASONS_SHOWN = 2
WIDEST = 160
"""Characters of a reason in the table; the JSON has all."""
UNSOUND = "the original fails the validation too"
CANONICAL_SLACK = 8
"""Folding rounds weights as well, so the canonical form may differ more from the original."""
FAILURES = ("CRASH", "MISMATCH", "INVALID")
HEADER = (
    *("nodes", "MACs", "removed", "at most", "cut"),
    *("model", "producer", "opset", "outcome", "lost"),
)
NUMBERS = 5


@dataclass(frozen=True)
class Row:
    """What became of one model.

    Attributes:
        model: its file's name.
        producer: what wrote it.
        opset: version of the standard operators.
        nodes: of the main graph.
        macs: multiply-accumulates for one sample; not-a-number where a shape is not known.
        removed: share of them that is gone.
        at_most: share of them that could go.
        cut: share of them in layers that became smaller.
        lost: reason -> share of the MACs that it keeps.
        outcome: ok, refused, left alone, not run, CRASH, MISMATCH or INVALID.
        why: the reason, if not ok.
        gap: largest difference of the outputs, relative to the largest of them.
        seconds: for all of it.
    """

    model: str
    producer: str = ""
    opset: int = 0
    nodes: int = 0
    macs: float = math.nan
    removed: float = 0.0
    at_most: float = 0.0
    cut: float = 0.0
    lost: Mapping[str, float] | None = None
    outcome: str = "ok"
    why: str = ""
    gap: float = math.nan
    seconds: float = 0.0


def main(words: Sequence[str] | None = None) -> int:
    """Run over the folders and print the table; 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="*", type=Path, default=[FOLDER])
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, help="keep the rows in this file")
    given = parser.parse_args(words)
    rows = run(given.folder)
    if not rows:
        parser.error(f"no .onnx files in {', '.join(map(str, given.folder))}")
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(markdown(rows) if given.markdown else plain(rows))
    print()
    print(summary(rows))
    return int(any(row.outcome in FAILURES for row in rows))


def run(folders: Iterable[Path]) -> list[Row]:
    """One row for every model of the folders."""
    rows = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.onnx"))):
        print(f"{path.name} ...", end=" ", file=sys.stderr, flush=True)
        row = examine(path)
        rows.append(row)
        print(f"{row.outcome}, {row.seconds:.1f} s", file=sys.stderr, flush=True)
    return rows


def examine(path: Path) -> Row:
    """What becomes of one model, whatever happens."""
    start = time.perf_counter()
    row = Row(path.stem)
    try:
        model = load(path)
        row = _described(row, model)
        row = _cut(row, Subject(model))
    except OnnxPruneError as error:
        row = replace(row, outcome="refused", why=str(error))
    except Exception as error:  # the point of the table is to show these
        row = replace(row, outcome="CRASH", why=f"{type(error).__name__}: {error}")
    return replace(row, seconds=time.perf_counter() - start)


def _described(row: Row, model: onnx.ModelProto) -> Row:
    producer = f"{model.producer_name} {model.producer_version}".strip()
    nodes = len(model.graph.node)
    return replace(row, producer=producer, opset=opset_of(model), nodes=nodes)


def _cut(row: Row, subject: Subject) -> Row:
    """Cut a model, validate the file and compare the outputs."""
    feeds, feed, unfit = _feeds(row, subject.model)
    shapes = _shapes(subject.model, feed)
    before = layer_macs(subject.canonical, shapes, feed)
    try:
        prunable_groups(subject.network, Options())
    except OnnxPruneError as error:
        row = _weighed(row, subject, before, before)
        return replace(row, outcome="left alone", why=str(error))
    keeps = random_keeps(subject.network, np.random.default_rng(0), 1 - RATIO)
    pruned = apply(subject.model, subject.plan(keeps))
    row = _weighed(row, subject, before, layer_macs(pruned, shapes, feed))
    row = _validated(row, pruned, subject.model, feed)
    if row.outcome != "ok":
        return row
    if feed is None:
        return replace(row, outcome="not run", why=unfit)
    return _compared(row, subject, pruned, masked(subject, subject.alive(keeps)), feeds)


def _feeds(row: Row, model: onnx.ModelProto) -> tuple[Iterator[Feed], Feed | None, str]:
    """Inputs the model runs on, the first of them, and why there is none."""
    feeds = runnable_feeds(model, zlib.crc32(row.model.encode()))
    try:
        first = next(feeds)
    except OnnxPruneError as error:
        return feeds, None, str(error)
    return itertools.chain([first], feeds), first, ""


def _shapes(model: onnx.ModelProto, feed: Feed | None) -> dict[str, tuple[int, ...]]:
    if feed is None:
        return input_shapes(model)
    return {name: tuple(array.shape) for name, array in feed.items()}


def _validated(
    row: Row, pruned: onnx.ModelProto, original: onnx.ModelProto, feed: Feed | None
) -> Row:
    """Write and check the pruned model; refused if the original fails as well."""
    fault = _fault(pruned, original, feed)
    if fault is None:
        return row
    if _fault(original, original, feed) is None:
        return replace(row, outcome="INVALID", why=fault)
    refused = replace(row, outcome="refused", removed=0.0, cut=0.0)
    return replace(refused, lost={UNSOUND: row.at_most}, why=f"{UNSOUND}; {fault}")


def _fault(model: onnx.ModelProto, original: onnx.ModelProto, feed: Feed | None) -> str | None:
    """What the command's validation says against a model, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with pending(model, Path(folder) / "model.onnx") as temporary:
                check_file(temporary, original, feed)
        except ValidationError as error:
            return str(error)
    return None


def _compared(
    row: Row,
    subject: Subject,
    pruned: onnx.ModelProto,
    reference: onnx.ModelProto,
    feeds: Iterable[Feed],
) -> Row:
    """Whether cutting computes what masking computes.

    Some models, recurrent ones above all, amplify the last digit of their inputs until it is the
    first of their outputs. Inputs on which the reference does that tell nothing: the next are
    taken.
    """
    limit = tolerance(subject.network)
    cut, mask, canonical, whole = (
        Session(model, threads=1) for model in (pruned, reference, subject.canonical, subject.model)
    )
    for feed in feeds:
        expected = mask.run(feed)
        gap = max(
            largest_gap(cut.run(feed), expected),
            largest_gap(canonical.run(feed), whole.run(feed)) / CANONICAL_SLACK,
        )
        if gap <= limit:
            return replace(row, gap=gap)
        own = largest_gap(mask.run(last_digit(feed)), expected)
        if own <= limit:
            why = f"outputs differ by {gap:.2g} of their size, allowed {limit:.2g}"
            return replace(row, outcome="MISMATCH", why=why, gap=gap)
    why = f"its outputs change by {own:.2g} of their size when the last digit of its inputs does"
    return replace(row, outcome="not run", why=why, gap=gap)


def largest_gap(left: Sequence[object], right: Sequence[object]) -> float:
    """Largest difference of the floating-point outputs, all on one scale."""
    pairs = [
        (a, b)
        for a, b in zip(left, right, strict=True)
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype.kind == "f"
    ]
    if not pairs:
        return 0.0
    if any(a.shape != b.shape for a, b in pairs):
        return math.inf
    wide = [
        np.concatenate([x.astype(np.float64).ravel() for x in side])
        for side in zip(*pairs, strict=True)
    ]
    return distance([wide[0]], [wide[1]])


def _weighed(
    row: Row, subject: Subject, before: Mapping[str, float], after: Mapping[str, float]
) -> Row:
    """The row with its MACs: how many went, how many could, what keeps the rest."""
    total = sum(before.values())
    if not total or math.isnan(total):
        return replace(row, macs=total)
    flow = Flow(subject.canonical)
    removed = at_most = cut = 0.0
    lost: dict[str, float] = defaultdict(float)
    for node in (node for node in subject.canonical.graph.node if node.name in before):
        macs, left = before[node.name] / total, after.get(node.name, 0.0) / total
        goal = halved(flow, node) * macs
        removed += macs - left
        at_most += macs - goal
        cut += macs * (left < macs)
        if left > goal:
            lost[_reason(flow, node, subject)] += left - goal
    heaviest = dict(sorted(lost.items(), key=lambda item: -item[1]))
    return replace(row, macs=total, removed=removed, at_most=at_most, cut=cut, lost=heaviest)


def _reason(flow: Flow, node: onnx.NodeProto, subject: Subject) -> str:
    """Why a layer is larger than half of its channels would make it, without names."""
    frozen = {f.producer: f for f in subject.network.frozen}
    makers = [] if flow.reaches_output(node) else [node]
    rows = [frozen.get(maker.name) for maker in (*makers, *flow.sources(node))]
    found = [row for row in rows if row is not None]
    if found:
        heaviest = max(found, key=lambda row: row.frozen > 0)  # the first that freezes channels
        return OF_ONE_NODE.sub("", heaviest.reason)
    narrow = {
        name
        for group in subject.network.groups
        if group.size == group.part_count
        for name in (*group.producers, *group.consumers)
    }
    if narrow & {node.name, *(source.name for source in flow.sources(node))}:
        return "a group of one channel per part stays whole"
    return "product of two activations" if flow.is_product(node) else "odd number of channels"


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    known = row.macs > 0
    shares = [f"{share:.1%}" if known else "" for share in (row.removed, row.at_most, row.cut)]
    macs = f"{row.macs:,.0f}" if not math.isnan(row.macs) else "?"
    shown = list((row.lost or {}).items())[:REASONS_SHOWN]
    lost = "; ".join(f"{share:.1%} {reason}" for reason, share in shown if share >= 0.001)
    why = textwrap.shorten(row.why, WIDEST, placeholder=" ...")
    outcome = f"{row.outcome}: {why}" if why else row.outcome
    return (str(row.nodes), macs, *shares, row.model, row.producer, str(row.opset), outcome, lost)


def plain(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    return "\n".join(columns([HEADER, *map(cells, rows)], numbers=NUMBERS))


def markdown(rows: Sequence[Row]) -> str:
    """The table for a page, the model first."""
    ruler = ("---:",) * NUMBERS + ("---",) * (len(HEADER) - NUMBERS)
    lines = (HEADER, ruler, *map(cells, rows))
    ordered = [(*line[NUMBERS:-2], *line[:NUMBERS], *line[-2:]) for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in ordered)


def average_cut(rows: Iterable[Row]) -> float:
    """Mean share of the MACs in layers that became smaller, over models with MACs of floats."""
    shares = [row.cut for row in rows if row.macs > 0]
    return float(np.mean(shares)) if shares else math.nan


def summary(rows: Sequence[Row]) -> str:
    """Counts of the outcomes, averages, and what holds most over all models."""
    weighed = [row for row in rows if row.macs > 0]
    counts: dict[str, int] = defaultdict(int)
    lost: dict[str, float] = defaultdict(float)
    for row in rows:
        counts[row.outcome] += 1
        for reason, share in (row.lost or {}).items():
            lost[reason] += share / len(weighed)
    lines = [", ".join(f"{count} {outcome}" for outcome, count in counts.items())]
    if weighed:
        removed, at_most = (
            np.mean([getattr(r, k) for r in weighed]) for k in ("removed", "at_most")
        )
        lines.append(
            f"average over {len(weighed)} models with MACs outside of subgraphs: "
            f"{average_cut(rows):.1%} in layers that became smaller, "
            f"{removed:.1%} removed of at most {at_most:.1%}"
        )
    lines += [f"  {s:6.2%} {reason}" for reason, s in sorted(lost.items(), key=lambda i: -i[1])]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
