"""A pruned model goes on: quantised, simplified, converted and optimised by the usual tools."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from after_pruning import QUANTISERS, TOOLS, relative_error
from micro_models import ints, whole
from micro_recurrent import layer
from small_networks import MODELS, digits

from onnxprune import Options, Target, prune
from onnxprune.arrays import Feed
from onnxprune.cli import main
from onnxprune.errors import UnsupportedModelError
from onnxprune.metadata import records
from onnxprune.model import load
from onnxprune.runtime import Session

SHARED = Path(__file__).parents[2] / "shared"
OPTIONS = Options(latency=False, allocation="uniform", criterion="l2")
SEEN = 200
"""Samples that pruning sees: with few, recovered weights have outliers, which eight bits lack."""

CALIBRATION, BATCH = 8, 8
"""Batches that a quantiser sees, and samples in each."""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@dataclass(frozen=True)
class Network:
    """A network to prune and what to feed it with.

    Attributes:
        source: makes the model.
        samples: so many samples -> a feed of them.
        seen: the same of the samples that pruning sees.
        trained: whether the samples are what the network was trained on: only then is eight bits
            enough for a small error.
    """

    source: Callable[[], onnx.ModelProto]
    samples: Callable[[int], Feed]
    seen: Callable[[int], Feed]
    trained: bool = False


def images(file: str) -> Callable[[int], Feed]:
    return lambda count: {"input": digits(file)[:count]}


def of_digits(name: str) -> Network:
    samples = images("digits_test.npz"), images("digits_calib.npz")
    return Network(lambda: load(MODELS / f"{name}.onnx"), *samples, trained=True)


def noise(name: str, *extents: int) -> Callable[[int], Feed]:
    def samples(count: int) -> Feed:
        rng = np.random.default_rng(0)
        return {name: rng.standard_normal((count, *extents)).astype(np.float32)}

    return samples


def lstm() -> onnx.ModelProto:
    units = 32
    weights = layer("LSTM", 1, units=units) | {"wo": (units, 5), "bo": (5,), "zero": ints(0)}
    nodes = (
        "t = Transpose <perm=[1,0,2]> (x) "
        f"all, last = LSTM <hidden_size={units}> (t, w1, r1, b1) "
        "s = Squeeze (last, zero) y = Gemm (s, wo, bo)"
    )
    return whole(nodes, weights, inputs="float[N,9,6] x", outputs="float[N,5] y")()


def wild(name: str, samples: Callable[[int], Feed]) -> Network:
    return Network(lambda: load(SHARED / "corpus" / f"{name}.onnx"), samples, samples)


NETWORKS = {
    "mlp_digits": of_digits("mlp_digits"),
    "resnet_digits": of_digits("resnet_digits"),
    "vgg_digits": of_digits("vgg_digits"),
    "vit_digits": of_digits("vit_digits"),
    "lstm": Network(lstm, noise("x", 9, 6), noise("x", 9, 6)),
    "yunet_n_dynamic": wild("libfacedetection_train-yunet_n_dynamic", noise("input", 3, 64, 64)),
    "alexa": wild("openwakeword-alexa_v0_1", noise("onnx::Flatten_0", 16, 96)),
}
QUICK = {("mlp_digits", "quantize_static, QDQ"), ("mlp_digits", "onnxslim")}
IN_THE_WILD = ("yunet_n_dynamic", "alexa")


@functools.cache
def pair(name: str) -> tuple[bytes, bytes]:
    """A network and what is left of it at about half its MACs."""
    if name in IN_THE_WILD and not (SHARED / "corpus").is_dir():
        pytest.skip(f"{SHARED / 'corpus'} is not there")
    network = NETWORKS[name]
    model = network.source()
    result = prune(model, network.seen(SEEN), Target("macs", 0.5), options=OPTIONS)
    assert result.plan.edits
    return model.SerializeToString(), result.model.SerializeToString()


def batches(name: str) -> list[Feed]:
    (value,) = onnx.load_from_string(pair(name)[0]).graph.input
    fixed = value.type.tensor_type.shape.dim[0].dim_value
    size = fixed or BATCH
    feed = NETWORKS[name].samples(CALIBRATION * size)
    return [
        {k: v[i : i + size] for k, v in feed.items()} for i in range(0, CALIBRATION * size, size)
    ]


@pytest.mark.parametrize(
    ("name", "tool"),
    [
        pytest.param(n, t, marks=() if (n, t) in QUICK else pytest.mark.slow)
        for n in NETWORKS
        for t in TOOLS
    ],
)
def test_the_usual_tools_take_a_pruned_model(name, tool, tmp_path):
    chosen, feeds = TOOLS[tool], batches(name)
    errors, sizes = [], []
    for label, content in zip(("original", "pruned"), pair(name), strict=True):
        source, target = tmp_path / f"{label}.onnx", tmp_path / f"{label}.made.onnx"
        source.write_bytes(content)
        chosen.run(source, target, feeds)
        before, after = Session(source), Session(target)
        (name_of_input,) = before.inputs
        given = feeds[0][name_of_input]
        parts = [{name_of_input: given[:size]} for size in (1, 3) if size <= len(given)]
        errors.append(max(relative_error(before.run(part), after.run(part)) for part in parts))
        sizes.append(target.stat().st_size / source.stat().st_size)
    if NETWORKS[name].trained:
        assert errors[1] <= chosen.tolerance
    assert errors[1] <= 2 * errors[0] + chosen.tolerance
    if name == "mlp_digits":
        assert sizes[1] <= chosen.smaller
    assert records(onnx.load(tmp_path / "pruned.made.onnx")) == records(
        onnx.load(tmp_path / "pruned.onnx")
    )


@pytest.mark.parametrize("tool", [pytest.param(t, marks=pytest.mark.slow) for t in QUANTISERS])
@pytest.mark.parametrize("name", ["mlp_digits", "resnet_digits", "lstm"])
def test_the_wrong_order_is_refused_with_the_right_one(name, tool, tmp_path, capsys):
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    source.write_bytes(pair(name)[0])
    TOOLS[tool].run(source, target, batches(name))
    np.savez(tmp_path / "calib.npz", **NETWORKS[name].samples(8))
    capsys.readouterr()
    words = [str(target), str(tmp_path / "out.onnx"), "--calib", str(tmp_path / "calib.npz")]
    assert main(words) == 1
    assert "prune the float model first, then quantise it" in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp_digits", "lstm"])
def test_what_was_quantised_and_then_optimised_is_refused(name, tmp_path):
    """Fused operators of onnxruntime stand in the place of those that say it."""
    paths = [tmp_path / f"{step}.onnx" for step in ("float", "dynamic", "fused")]
    paths[0].write_bytes(pair(name)[0])
    for tool, source, target in zip(
        ("quantize_dynamic", "onnxruntime, offline"), paths, paths[1:], strict=False
    ):
        TOOLS[tool].run(source, target, [])
    with pytest.raises(UnsupportedModelError, match="prune the float model first, then quantise"):
        prune(paths[-1], NETWORKS[name].seen(8))


@pytest.mark.slow
def test_pruning_on_few_samples_costs_more_in_eight_bits(tmp_path):
    """Weights fitted to nearly silent channels are large, and set the scale of the others."""
    model, few = NETWORKS["resnet_digits"].source(), digits("digits_test.npz")[:64]
    errors = []
    for samples in (few, digits("digits_calib.npz")):
        result = prune(model, {"input": samples}, Target("macs", 0.5), options=OPTIONS)
        source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
        onnx.save(result.model, source)
        TOOLS["quantize_static, QDQ"].run(source, target, batches("resnet_digits"))
        feed = {"input": few}
        errors.append(relative_error(Session(source).run(feed), Session(target).run(feed)))
    assert errors[0] > 3 * errors[1]
