"""What is fuzzed: how an input is made, and what reads it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from small_reports import report

from fuzzing import seeds
from fuzzing.archives import npy, odd_json, odd_npy, odd_npz, odd_tar
from fuzzing.protobufs import mutated
from fuzzing.wire import INTEGERS, TEXTS, spoilt
from onnxprune import cli
from onnxprune.api import apply_plan
from onnxprune.calibration import InputSpec, Preprocessing, load_calibration
from onnxprune.canonical import canonicalise
from onnxprune.cli import arguments
from onnxprune.errors import MetricError, OnnxPruneError
from onnxprune.gram import Gram
from onnxprune.groups import find_groups
from onnxprune.labels import read_labels
from onnxprune.linear_map import FeatureSpec
from onnxprune.model import load
from onnxprune.plan import Keep, Plan, Weights
from onnxprune.refinement import Budget
from onnxprune.rewrite import digest
from onnxprune.saved_moments import SavedMoments
from onnxprune.saved_report import SavedReport
from onnxprune.survey import survey
from onnxprune.target import Target
from onnxprune.timing_cache import TimingCache
from onnxprune.validation import check_file

Files = dict[str, bytes]
"""Name in the worker's folder -> content."""
SECRET = b"what lies outside of the folder " * 64
"""Content of ``outside.bin`` beside the worker's folder, which no model may read."""


class BrokenPropertyError(Exception):
    """A property does not hold although nothing else was raised."""


@dataclass(frozen=True)
class Reader:
    """One reader of what users give.

    Attributes:
        make: draws an input.
        read: reads it from the folder; anything but an OnnxPruneError is a finding.
        share: its share of a run, beside those of the others.
    """

    make: Callable[[Random], Files]
    read: Callable[[Path], object]
    share: float


# --- models -------------------------------------------------------------------------------------


def _model(rng: Random) -> Files:
    models = seeds.models()
    model, other = rng.choice(models), rng.choice(models)
    return {"in.onnx": mutated(model, rng, other).SerializePartialToString()}


def _model_bytes(rng: Random) -> Files:
    models = seeds.models()
    model, other = (rng.choice(models).SerializeToString() for _ in range(2))
    return {"in.onnx": spoilt(model, rng, other)}


def _external(rng: Random) -> Files:
    model = seeds.external_model()
    changed = mutated(model, rng, model).SerializePartialToString()
    weights = bytes(rng.choice((2048 + 5 * 256, 0, 100, 10_000)))
    return {"in.onnx": changed, "weights.bin": weights}


def _read_model(folder: Path) -> None:
    model = load(folder / "in.onnx")
    if SECRET[:32] in model.SerializePartialToString():
        raise BrokenPropertyError("a file outside of the model's folder was read")
    for value in survey(model).inputs.values():
        str(value)


def _load_model(folder: Path) -> None:
    model = load(folder / "in.onnx")
    if SECRET[:32] in model.SerializePartialToString():
        raise BrokenPropertyError("a file outside of the model's folder was read")


# --- samples ------------------------------------------------------------------------------------

PAIR = (
    InputSpec("x", ("N", 2), np.dtype(np.float32)),
    InputSpec("y", ("N",), np.dtype(np.int64)),
)
IMAGE = (InputSpec("x", ("N", 3, 8, 8), np.dtype(np.float32)),)
ROWS = np.arange(8, dtype=np.float32).reshape(4, 2)


def _npy(rng: Random) -> Files:
    if rng.random() < 0.8:
        return {"data.npy": odd_npy(ROWS, rng)}
    return {"folder/a.npy": odd_npy(ROWS, rng), "folder/b.npy": npy(ROWS)}


def _npz(rng: Random) -> Files:
    arrays = {"x": ROWS, "y": np.arange(4)}
    if rng.random() < 0.8:
        return {"data.npz": odd_npz(arrays, rng)}
    return {"folder/a.npz": odd_npz(arrays, rng), "folder/b.npz": odd_npz(arrays, rng)}


def _images(rng: Random) -> Files:
    images = seeds.images()
    kind = rng.choice(list(images))
    suffix = kind if kind in ("jpeg", "bmp", "webp") else "png"
    other = images[rng.choice(list(images))]
    return {f"folder/a.{suffix}": spoilt(images[kind], rng, other)}


def _shard(rng: Random) -> Files:
    kind = rng.choice(list(seeds.members()))
    return {f"data-{kind}.tar": odd_tar(seeds.members()[kind], rng)}


def _read_shard(folder: Path) -> None:
    images = (folder / "data-images.tar").exists()
    _read_samples(folder, IMAGE, preprocessing=Preprocessing(mean=(0.5,)) if images else None)


def _table(rng: Random) -> Files:
    kind = rng.choice(list(seeds.tables()))
    other = seeds.tables()[rng.choice(list(seeds.tables()))]
    return {f"data.{kind.partition(' ')[0]}": spoilt(seeds.tables()[kind], rng, other)}


def _read_samples(folder: Path, inputs: tuple[InputSpec, ...], **options: Any) -> None:
    files = [path for path in folder.iterdir() if path.name.startswith(("data", "folder"))]
    found = load_calibration(files[0], inputs, **options)
    for feed in found.batches(np.arange(len(found)), 3):
        if not all(np.isfinite(array).all() for array in feed.values()):
            raise BrokenPropertyError("samples that are not finite")
    found.summary()


def _labels(rng: Random) -> Files:
    return {"labels.npy": odd_npy(np.arange(4), rng)}


# --- plans, weights, statistics, reports --------------------------------------------------------


@cache
def _plan() -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """A plan of the small model and weights that fit it, as they are saved."""
    model = seeds.feedable()
    groups = find_groups(canonicalise(model)).groups
    keeps = [Keep(group.name, tuple(range(group.size // 2)), group.size) for group in groups]
    edits = [keep.to_dict() for keep in keeps]
    arrays: dict[str, Any] = {
        "name.0": np.array("Gemm_8"),
        "weight.0": np.ones((4, 5), np.float32),
        "bias.0": np.zeros(5, np.float32),
    }
    return {"format": 2, "model": digest(model), "edits": edits}, arrays


def _plan_file(rng: Random) -> Files:
    return {"plan.json": odd_json(_plan()[0], rng)}


def _weights_file(rng: Random) -> Files:
    return {"weights.npz": odd_npz(_plan()[1], rng)}


def _both(rng: Random) -> Files:
    plan, weights = _plan()
    text = odd_json(plan, rng) if rng.random() < 0.6 else json.dumps(plan).encode()
    files = {"in.onnx": seeds.feedable().SerializeToString(), "plan.json": text}
    return files | {"weights.npz": odd_npz(weights, rng)} if rng.random() < 0.6 else files


def _apply(folder: Path) -> None:
    weights = folder / "weights.npz"
    output, model = folder / "out.onnx", folder / "in.onnx"
    try:
        found = Weights.load(weights) if weights.exists() else None
        apply_plan(model, Plan.load(folder / "plan.json"), output, found)
    except OnnxPruneError:
        if output.exists():
            raise BrokenPropertyError("an output although the plan was refused") from None
        raise
    check_file(output, onnx.load(model))


def _moments(rng: Random) -> Files:
    return {"learnt.npz": odd_npz(_moment_arrays(), rng)}


@cache
def _moment_arrays() -> Mapping[str, np.ndarray[Any, Any]]:
    spec = FeatureSpec("h", 1, None)
    gram = Gram(1, 3)
    gram.add(np.eye(4)[None])
    head = {"format": 1, "digest": "0", "features": [asdict(spec)]}
    return {"head": np.array(json.dumps(head)), "gram.0": gram.sums, "sample.x": ROWS}


def _report(rng: Random) -> Files:
    return {"report.json": odd_json(report((4, 3)), rng)}


def _timings(rng: Random) -> Files:
    return {"timings.json": odd_json({"Conv 1x1": 0.25, "Gemm": 1.5, "other": 2}, rng)}


def _read_timings(folder: Path) -> None:
    found = TimingCache(folder / "timings.json")
    found.get("Gemm")
    found.put("more", 1.0)
    found.save()


# --- words of the command -----------------------------------------------------------------------

WORDS = (
    *("macs=0.5", "params=500k", "size=10MB", "latency=5ms", "ratio=0.3", "error=0.05", "drop=1%"),
    *("300s", "epochs=2", "steps=100", "224x224", "x:1x3x8x8", "0.5,0.5", "512MB", "2GiB", "auto"),
)
FLAGS = ("--target", "--refine", "--resize", "--mean", "--max-memory", "--align", "--include")
MORE_FLAGS = ("--calib", "--batch", "--seed", "--num-samples", "--cutoff", "--labels", "--eval")


def _word(rng: Random) -> str:
    text = spoilt(rng.choice(WORDS).encode(), rng, rng.choice(WORDS).encode()).decode("latin-1")
    if rng.random() < 0.2:
        text = text.replace("0", str(rng.choice((*INTEGERS, "9" * 400, "1e999", "٣"))), 1)
    return text if rng.random() < 0.9 else rng.choice(TEXTS)


def _words(rng: Random) -> Files:
    return {"words": "\0".join(_word(rng) for _ in range(3)).encode()}


def _read_words(folder: Path) -> None:
    for word in (folder / "words").read_text(encoding="utf-8").split("\0"):
        for parse in (
            *(Target.parse, Budget.parse, arguments.align, arguments.numbers, arguments.size),
            *(arguments.memory, arguments.seconds, arguments.input_shape),
        ):
            with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
                parse(word)


def _command_line(rng: Random) -> Files:
    words = [rng.choice(("in.onnx", "missing.onnx", "")), rng.choice(("out.onnx", "no/out.onnx"))]
    for _ in range(rng.randrange(1, 4)):
        words += [rng.choice((*FLAGS, *MORE_FLAGS)), _word(rng).replace("\n", " ")]
    return {"words": "\n".join(words).encode()}


def _read_command_line(folder: Path) -> None:
    run_command((folder / "words").read_text().split("\n"), folder)


def run_command(words: list[str], folder: Path) -> int:
    """The command; its exit code, which is one of those it may have."""
    said = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(said),
    ):
        try:
            code = cli.main(words)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    if code not in (0, 1, 2):
        raise BrokenPropertyError(f"exit code {code}: {said.getvalue()[-500:]}")
    if code and not said.getvalue().strip():
        raise BrokenPropertyError(f"exit code {code} without a word")
    return code


# --- the whole command --------------------------------------------------------------------------


def _whole(rng: Random) -> Files:
    model = seeds.feedable()
    if rng.random() < 0.8:
        content = mutated(model, rng, rng.choice(seeds.models())).SerializePartialToString()
    else:
        content = spoilt(model.SerializeToString(), rng)
    buffer = io.BytesIO()
    np.savez(buffer, x=seeds.samples())
    return {"in.onnx": content, "samples.npz": buffer.getvalue()}


def _prune(folder: Path) -> None:
    words = ["in.onnx", "out.onnx", "--calib", "samples.npz", "--target", "macs=0.5", "--quiet"]
    code = run_command([*words, "--report", "report.json"], folder)
    output = folder / "out.onnx"
    if output.exists() != (code == 0):
        raise BrokenPropertyError(
            f"exit code {code} and {'an' if output.exists() else 'no'} output"
        )
    if code:
        raise OnnxPruneError("the command refused the model")
    check_file(output, load(folder / "in.onnx"), {"x": seeds.samples()[:2]})


READERS: dict[str, Reader] = {
    "model": Reader(_model, _read_model, 8),
    "model bytes": Reader(_model_bytes, _read_model, 2),
    "load": Reader(_model_bytes, _load_model, 10),
    "external data": Reader(_external, _load_model, 6),
    "npy": Reader(_npy, lambda f: _read_samples(f, PAIR[:1]), 12),
    "npz": Reader(_npz, lambda f: _read_samples(f, PAIR), 8),
    "images": Reader(
        _images, lambda f: _read_samples(f, IMAGE, preprocessing=Preprocessing(mean=(0.5,))), 6
    ),
    "shards": Reader(_shard, _read_shard, 6),
    "tables": Reader(_table, lambda f: _read_samples(f, PAIR), 4),
    "labels": Reader(
        _labels, lambda f: read_labels(f / "labels.npy", 4, "samples", MetricError), 6
    ),
    "plan": Reader(_plan_file, lambda f: Plan.load(f / "plan.json"), 10),
    "weights": Reader(_weights_file, lambda f: Weights.load(f / "weights.npz"), 6),
    "apply": Reader(_both, _apply, 1),
    "moments": Reader(_moments, lambda f: SavedMoments.load(f / "learnt.npz"), 6),
    "report": Reader(_report, lambda f: SavedReport.load(f / "report.json"), 8),
    "timings": Reader(_timings, _read_timings, 8),
    "words": Reader(_words, _read_words, 14),
    "command line": Reader(_command_line, _read_command_line, 2),
    "prune": Reader(_whole, _prune, 0.3),
}
"""Name -> reader."""
