"""Moments learnt beside a training: pruning by them is pruning by samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from micro_models import build  # noqa: E402
from small_networks import MODELS, accuracy, digits  # noqa: E402

from onnxprune import Options, Result, Target, prune  # noqa: E402
from onnxprune.canonical import canonicalise  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.plain_channels import plain_specs  # noqa: E402
from onnxprune.saved_moments import SavedMoments  # noqa: E402
from onnxprune.statistics import collect  # noqa: E402
from onnxprune.train.method import Backpropagation, Changes, Step  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.online_moments import OnlineMoments  # noqa: E402
from onnxprune.train.options import TrainOptions  # noqa: E402
from onnxprune.train.sampled_rows import RowSampler  # noqa: E402
from onnxprune.train.training import train  # noqa: E402

FRACTION = 0.5


def step(x: torch.Tensor, number: int = 0) -> Step:
    return Step(number, 1, {}, torch.zeros(len(x)), lambda _: torch.zeros(()), 0.0)


def watched(
    model: onnx.ModelProto, x: np.ndarray, steps: int, **settings: object
) -> tuple[OnlineMoments, SavedMoments]:
    """What is learnt while nothing moves, from random batches."""
    network = TrainableNetwork(model)
    method = OnlineMoments(Backpropagation(), network, model, **settings)
    run(network, method, torch.tensor(x), range(steps))
    return method, method.moments(model, {network.input_names[0]: x[:100]})


def run(
    network: TrainableNetwork,
    method: OnlineMoments,
    x: torch.Tensor,
    numbers: range,
    size: int = 64,
) -> None:
    for number in numbers:
        torch.manual_seed(number)  # as the loop does
        draws = torch.Generator().manual_seed(number)
        batch = x[torch.randperm(len(x), generator=draws)[:size]]
        changes = method.before_forward(step(batch, number))
        with torch.no_grad():
            network({network.input_names[0]: batch}, taps=changes.taps)
        method.after_step(step(batch, number))


def pruned(model: onnx.ModelProto, source: SavedMoments | np.ndarray) -> Result:
    learnt = source if isinstance(source, SavedMoments) else None
    options = Options(method="snp", statistics=learnt, latency=False)
    samples = None if learnt else {"input": source}
    return prune(model, samples, Target("macs", FRACTION), options=options)


def overlap(one: Result, other: Result) -> float:
    """Mean over groups of the share of channels kept by both among those kept by either."""
    keeps: list[Mapping[str, set[int]]] = [
        {edit.group: set(edit.keep) for edit in result.plan.keeps} for result in (one, other)
    ]
    assert keeps[0].keys() == keeps[1].keys()
    shares = [len(keeps[0][g] & keeps[1][g]) / len(keeps[0][g] | keeps[1][g]) for g in keeps[0]]
    return float(np.mean(shares))


def test_pruning_by_learnt_moments_agrees_with_pruning_by_those_of_the_samples() -> None:
    """The digits' perceptron, on the images that it was pruned by before."""
    model, x = load(MODELS / "mlp_digits.onnx"), digits()
    _, learnt = watched(model, x, 200, sampler=RowSampler(1.0), rate=0.05)
    by_moments, by_samples = pruned(model, learnt), pruned(model, x)
    assert overlap(by_moments, by_samples) > 0.9
    assert abs(accuracy(by_moments.model) - accuracy(by_samples.model)) < 0.01
    assert by_moments.report.outputs[0].relative_error < 0.05
    assert by_moments.report.samples["held_out"] == 10  # of the hundred beside the moments


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_digits", "vgg_digits"])
def test_so_it_does_on_convolutions(name: str) -> None:
    model, x = load(MODELS / f"{name}.onnx"), digits()
    _, learnt = watched(model, x, 250)
    by_moments, by_samples = pruned(model, learnt), pruned(model, x)
    assert overlap(by_moments, by_samples) > 0.75
    assert accuracy(by_moments.model) > accuracy(by_samples.model) - 0.02


DROPPED = build(
    "c = Conv <pads=[1,1,1,1]> (x, w1, b1) h = Relu(c) r = Dropout (h, half, yes) "
    "d = Conv <group=2> (r, w2) g = Relu(d) f = Flatten(g) y = Gemm (f, w3, b3)",
    {
        "w1": (8, 3, 3, 3), "b1": (8,), "half": np.float32(0.5).reshape(()), "yes": np.array(False),
        "w2": (8, 4, 3, 3), "w3": (8 * 36, 5), "b3": (5,),
    },
    inputs="float[N,3,8,8] x", outputs="float[N,5] y",
)  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_they_are_the_moments_of_every_kind_of_reader(training: bool) -> None:
    """Groups and a flattened map; in training, of what Dropout has not yet dropped from."""
    x = np.random.default_rng(0).standard_normal((200, 3, 8, 8)).astype(np.float32)
    network = TrainableNetwork(DROPPED).train(training)
    every = RowSampler(1.0, 64)
    method = OnlineMoments(Backpropagation(), network, DROPPED, sampler=every, rate=0.1)
    run(network, method, torch.tensor(x), range(80), size=200)
    learnt = method.moments(DROPPED, {"x": x})
    specs = plain_specs(DROPPED)
    assert list(learnt.grams) == specs
    assert {spec.tensor: (spec.parts, spec.fold) for spec in specs} == {"r": (2, 1), "f": (1, 36)}
    exact = collect(canonicalise(DROPPED), specs, [{"x": x}], samples=200, rows_per_feature=10**6)
    for spec in specs[:1] if training else specs:
        for part in range(spec.parts):
            found, expected = learnt.grams[spec].part(part), exact[spec].part(part)
            scale = np.sqrt(np.diag(expected))
            np.testing.assert_allclose(found / scale / scale[:, None],
                                       expected / scale / scale[:, None], atol=0.005)  # fmt: skip


def test_it_goes_on_exactly_where_it_was_stopped(tmp_path: Path) -> None:
    x = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def start() -> tuple[TrainableNetwork, OnlineMoments]:
        network = TrainableNetwork(DROPPED).eval()
        return network, OnlineMoments(Backpropagation(), network, DROPPED)

    through, before, after = start(), start(), start()
    run(*through, x, range(6))
    run(*before, x, range(4))
    torch.save(before[0].state_dict(), tmp_path / "state.pt")
    after[0].load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    run(*after, x, range(4, 6))
    samples = {"x": x[:3].numpy()}
    one, other = (method.moments(DROPPED, samples) for _, method in (through, after))
    for spec, gram in one.grams.items():
        np.testing.assert_array_equal(gram.sums, other.grams[spec].sums)


def test_the_other_method_does_what_it_does() -> None:
    """Its taps come first, and every call reaches it."""
    calls = []

    class Doubling(Backpropagation):
        def before_forward(self, step: Step) -> Changes:
            return Changes({"h": lambda value: 2 * value})

        def __getattribute__(self, name: str) -> object:
            calls.append(name)
            return super().__getattribute__(name)

    network = TrainableNetwork(DROPPED).eval()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    method = OnlineMoments(Doubling(), network, DROPPED, sampler=RowSampler(1.0, 64), rate=1.0)
    changes = method.before_forward(step(x))
    found = network({"x": x}, taps=changes.taps, wanted=["h"])["h"]
    plain = network({"x": x}, wanted=["h"])["h"]
    torch.testing.assert_close(found, 2 * plain)
    network({"x": x}, taps=changes.taps)
    method.after_step(step(x))
    gram = next(iter(method.moments(DROPPED, {"x": x.numpy()}).grams.values()))
    second = float((2 * plain[:, 0]).square().mean().detach())
    assert gram.part(0)[0, 0] == pytest.approx(second, rel=1e-4)
    method.after_backward(step(x))
    method.penalty(step(x))
    method.evaluation()
    method.columns()
    method.finish(DROPPED)
    expected = {"before_forward", "after_step", "after_backward", "penalty", "evaluation"}
    assert expected | {"columns", "finish"} <= set(calls)


def test_what_a_finished_model_no_longer_reads_is_left_out() -> None:
    x = np.random.default_rng(0).standard_normal((20, 3, 8, 8)).astype(np.float32)
    method, learnt = watched(DROPPED, x, 3)
    narrower = onnx.ModelProto()
    narrower.CopyFrom(DROPPED)
    for name, axis, count in (("w1", 0, 4), ("b1", 0, 4), ("w2", 1, 2)):
        tensor = next(t for t in narrower.graph.initializer if t.name == name)
        values = onnx.numpy_helper.to_array(tensor)
        kept = np.ascontiguousarray(np.take(values, range(count), axis=axis))
        tensor.CopyFrom(onnx.numpy_helper.from_array(kept, name))
    found = method.moments(narrower, {"x": x})
    assert found.digest != learnt.digest
    assert [spec.tensor for spec in found.grams] == ["f"]


def test_the_best_weights_have_the_moments_of_their_step() -> None:
    """Not those of the last one: the transforms are restored with the weights."""
    model = load(MODELS / "mlp_digits.onnx")
    data = {"input": digits("digits_test.npz")[:200], "labels": digits("digits_test.npz", "labels")}
    data["labels"] = data["labels"][:200]
    options = TrainOptions(
        epochs=3, batch=50, rate=1e-3, schedule="constant", statistics=True, progress=False
    )
    evaluations = iter(range(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnlineMoments, "may_keep", lambda _: next(evaluations) == 1)
        best = train(model, data, options)
    first = train(model, data, replace(options, epochs=1, keep="last"))
    last = train(model, data, replace(options, keep="last"))
    assert best.fitted.step == first.fitted.step < last.fitted.step
    assert best.statistics is not None
    assert first.statistics is not None
    assert last.statistics is not None
    spec = next(iter(best.statistics.grams))
    moments = [r.statistics.grams[spec].sums for r in (best, first, last)]
    np.testing.assert_array_equal(moments[0], moments[1])
    assert not np.array_equal(moments[0], moments[2])
    assert best.statistics.samples["input"].shape == (20, 1, 8, 8)
