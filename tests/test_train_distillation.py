"""The training behind a refinement: what is compared, with what, and on which samples."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from micro_models import build
from onnx import helper
from small_networks import MODELS, digits, halved, random_samples
from test_refinement import BARE, content

from onnxprune import Options, Target, prune
from onnxprune.block_outputs import BlockOutput, block_outputs
from onnxprune.calibration import Calibration, split
from onnxprune.canonical import canonicalise
from onnxprune.comparison import kl_divergence
from onnxprune.errors import OnnxPruneError
from onnxprune.groups import find_groups
from onnxprune.inputs import open_samples
from onnxprune.refinement import Budget, Refine, Refinement
from onnxprune.runtime import Session
from onnxprune.validation import compare

torch = pytest.importorskip("torch")

from onnxprune.train.allowance import Allowance  # noqa: E402
from onnxprune.train.course import Course, Lessons  # noqa: E402
from onnxprune.train.distillation import refine  # noqa: E402
from onnxprune.train.divergence import Measure, measures_of  # noqa: E402
from onnxprune.train.network import TrainableNetwork  # noqa: E402
from onnxprune.train.rate_trials import best_rate  # noqa: E402
from onnxprune.train.teacher import Teacher  # noqa: E402

HALF = Target("macs", 0.5)
SCORED = "a = Gemm (x, w1, b1) h = Relu (a) y = Gemm (h, w2, b2)"
SHAPES = {"w1": (6, 12), "b1": (12,), "w2": (12, 5), "b2": (5,)}
STEPS = Refine(Budget(steps=40), rate=3e-3)


def samples_of(model: onnx.ModelProto, count: int = 160) -> Calibration:
    return open_samples(model, random_samples(model, count), Options())


def disturbed(model: onnx.ModelProto, scale: float = 0.2) -> onnx.ModelProto:
    """A network of the same shape that has to be trained back."""
    result, rng = onnx.ModelProto(), np.random.default_rng(1)
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            changed = values + scale * values.std() * rng.standard_normal(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
    return result


def taught(
    model: onnx.ModelProto, settings: Refine = STEPS, student: onnx.ModelProto | None = None
) -> tuple[dict[str, np.ndarray], Refinement]:
    samples = samples_of(model)
    parts = split(len(samples), 0)
    lessons = Lessons(model, samples, parts.fit, parts.tune, 32)
    return refine(disturbed(model) if student is None else student, lessons, settings)


def perceptron(nodes: str = SCORED, outputs: str = "float[N,5] y", **more: object):
    return build(nodes, SHAPES | more, inputs="float[N,6] x", outputs=outputs)  # type: ignore[arg-type]


OUTPUTS = {
    "logits": (SCORED, "float[N,5] y"),
    "probabilities": (SCORED.replace("y =", "s =") + " y = Softmax (s)", "float[N,5] y"),
    "values": (SCORED + " m = Unsqueeze (y, one) z = Tile (m, twice)", "float[N,2,5] z"),
    "several": (
        SCORED + " m = Unsqueeze (h, one) z = Tile (m, twice) k = ArgMax (y)",
        "float[N,5] y, float[N,2,12] z, int64[1,5] k",
    ),
}
NUMBERS = {"one": np.array([1]), "twice": np.array([1, 2, 1])}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_is_measured_is_what_the_package_compares_by(kind):
    """In torch on the weights and in onnxruntime on the file, by another implementation."""
    model = perceptron(*OUTPUTS[kind], **NUMBERS)
    student, samples = disturbed(model), samples_of(model)
    parts = split(len(samples), 0)
    course = Course(student, Lessons(model, samples, parts.fit, parts.tune, 32), STEPS)
    course.begin()
    found = compare(model, student, samples.batches(parts.tune, 32))
    expected = math.fsum(o.softened for o in found if o.name != "k")
    assert course.first == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_output_is_learnt(kind):
    model = perceptron(*OUTPUTS[kind], **NUMBERS)
    values, done = taught(model)
    assert done.after < 0.2 * done.before
    assert set(values) == set(SHAPES)


def test_all_outputs_count():
    """An output that the other says nothing of is learnt beside it."""
    nodes = SCORED + " v = Gemm (x, w3, b3) m = Unsqueeze (v, one) z = Tile (m, twice)"
    model = perceptron(nodes, "float[N,5] y, float[N,2,4] z", w3=(6, 4), b3=(4,), **NUMBERS)
    student = disturbed(model)
    values, _ = taught(model, student=student)
    better = onnx.ModelProto()
    better.CopyFrom(student)
    for tensor in better.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    feed = random_samples(model, 100, seed=5)
    before, after = (compare(model, m, [feed]) for m in (student, better))
    for old, new in zip(before, after, strict=True):
        assert new.softened < 0.5 * old.softened


def test_a_network_without_an_output_to_refine_is_refused():
    model = perceptron(SCORED + " k = ArgMax (y)", "int64[1,5] k")
    with pytest.raises(OnnxPruneError, match="nothing can be refined"):
        taught(model)


def test_divergences_are_those_of_the_comparison(rng):
    old, new = rng.standard_normal((2, 7, 5)) * 3
    measure = Measure("y", "logits")
    found = float(measure.rows(torch.from_numpy(old), torch.from_numpy(new)).sum())
    assert found == pytest.approx(kl_divergence(old, new, 3.0).sum(), rel=1e-5)


def test_blocks_are_compared_on_the_entries_that_survive(rng):
    old = rng.standard_normal((4, 6, 3, 3)).astype(np.float32)
    kept = np.array([0, 2, 5])
    measure = Measure("b", scale=2.0, weight=3.0, kept={1: kept})
    changed = torch.from_numpy(old[:, kept] + 0.5)
    found = float(measure.rows(torch.from_numpy(old), changed).sum())
    assert found == pytest.approx(3.0 / 2.0 * 0.25 * changed.numel(), rel=1e-5)
    with pytest.raises(OnnxPruneError, match=r"'b' has shape \[4, 3, 3, 3\] in the original"):
        measure.rows(torch.from_numpy(old), changed[:, :2])


def test_the_scale_of_values_is_that_of_a_sample(rng):
    array = rng.standard_normal((6, 3, 2))
    batches = [{"z": array[:4]}, {"z": array[4:]}]
    (measure,) = measures_of({"x": array[:4]}, batches, 6)
    assert measure.kind == "values"
    assert measure.scale == pytest.approx((array**2).sum() / 6)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many samples are run by onnxruntime."""
    runs: Counter[int] = Counter()
    plain = Session.run

    def run(self, feed, outputs=None):
        runs["samples"] += len(next(iter(feed.values())))
        return plain(self, feed, outputs)

    monkeypatch.setattr(Session, "run", run)
    return runs


@pytest.mark.parametrize(("max_bytes", "runs"), [(1 << 20, 60), (0, 180), (30 * 5 * 4, 120)])
def test_the_teacher_is_asked_once_as_far_as_memory_allows(monkeypatch, max_bytes, runs):
    model = perceptron()
    samples = samples_of(model, 60)
    seen = counted(monkeypatch)
    teacher = Teacher(model, ["y"], samples, 10, max_bytes=max_bytes)
    rng = np.random.default_rng(0)
    rows = np.arange(60)
    for _ in range(3):
        for start in range(0, 60, 30):
            for lesson in teacher.lessons(rows[start : start + 30]):
                (expected,) = Session(model).run(lesson.feed)
                seen["samples"] -= lesson.samples
                np.testing.assert_allclose(lesson.reference["y"], expected, rtol=1e-5, atol=1e-6)
        rows = np.concatenate([rng.permutation(30), 30 + rng.permutation(30)])
    assert seen["samples"] == runs


def test_changed_samples_are_shown_to_the_teacher_too():
    model = perceptron()
    teacher = Teacher(model, ["y"], samples_of(model, 20), 10)
    list(teacher.lessons(np.arange(20)))
    for lesson in teacher.lessons(np.arange(20), lambda feed: {"x": -feed["x"]}):
        (expected,) = Session(model).run(lesson.feed)
        np.testing.assert_allclose(lesson.reference["y"], expected, rtol=1e-5, atol=1e-6)


def test_a_small_fixed_batch_is_repeated_within_a_step():
    nodes = SCORED
    model = build(nodes, SHAPES, inputs="float[4,6] x", outputs="float[4,5] y")
    samples = samples_of(model)
    parts = split(len(samples), 0, batch_extent=4)
    lessons = Lessons(model, samples, parts.fit, parts.tune, 32)
    assert Course(disturbed(model), lessons, STEPS).per_epoch == -(-parts.fit.size // 32)
    values, done = refine(disturbed(model), lessons, STEPS)
    assert values
    assert done.after < 0.2 * done.before


def test_what_layers_share_in_the_file_stays_as_it_is():
    """A scale of ones that two normalisations share would need a constant more."""
    nodes = (
        "a = MatMul (x, w1) n = LayerNormalization (a, ones, zeros) h = Relu (n) "
        "b = MatMul (h, w3) m = LayerNormalization (b, ones, zeros) y = MatMul (m, w2)"
    )
    shapes = {"w1": (6, 12), "w3": (12, 12), "w2": (12, 5)}
    shared = {"ones": np.ones(12, np.float32), "zeros": np.zeros(12, np.float32)}
    model = build(nodes, shapes | shared, inputs="float[N,6] x", outputs="float[N,5] y")
    assert TrainableNetwork(model).graph.untied
    values, done = taught(model)
    assert done.improved
    assert set(values) == set(shapes)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_stay_and_plan_and_weights_make_them_again(dtype):
    model = halved(perceptron(), dtype)
    samples = {name: array.astype(dtype) for name, array in random_samples(model, 160).items()}
    options = Options(**{**vars(BARE), "refine": STEPS})
    result = prune(model, samples, HALF, options=options)
    assert result.report.refinement is not None
    assert result.report.refinement.improved
    kinds = {t.data_type for t in result.model.graph.initializer}
    assert kinds == {helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    from onnxprune import apply

    assert content(apply(model, result.plan, result.weights)) == content(result.model)


def test_block_outputs_are_the_joins_that_are_left():
    model = onnx.load(MODELS / "resnet_digits.onnx")
    result = prune(model, digits()[:100], HALF, options=BARE)
    made = {name for node in result.model.graph.node for name in node.output}
    canonical = canonicalise(model)
    found = list(block_outputs(find_groups(canonical), canonical, result.plan, made))
    joins = [n.output[0] for n in result.model.graph.node if n.op_type == "Add"]
    assert [block.name for block in found] == joins
    feed = {"input": digits()[:4]}
    for block in found:
        assert isinstance(block, BlockOutput)
        network = TrainableNetwork(result.model)
        wide = TrainableNetwork(canonical)
        given = {"input": torch.from_numpy(feed["input"])}
        made_of = network(given, wanted=[block.name])[block.name]
        full = wide(given, wanted=[block.name])[block.name].detach().numpy()
        for axis, entries in block.kept.items():
            full = full.take(entries, axis)
        assert made_of.shape == full.shape


@pytest.mark.slow
def test_block_outputs_are_learnt_too():
    """With a large weight they come closer than without, and the outputs still get no worse."""
    model = onnx.load(MODELS / "resnet_digits.onnx")
    canonical = canonicalise(model)
    network = find_groups(canonical)
    samples = digits()[:150]
    plain = prune(model, samples, HALF, options=BARE)
    made = {name for node in plain.model.graph.node for name in node.output}
    blocks = list(block_outputs(network, canonical, plain.plan, made))

    def distance(result: onnx.ModelProto) -> float:
        given = {"input": torch.from_numpy(digits()[150:200])}
        names = [block.name for block in blocks]
        old, new = (TrainableNetwork(m)(given, wanted=names) for m in (canonical, result))
        total = 0.0
        for block in blocks:
            full = old[block.name].detach().numpy()
            for axis, entries in block.kept.items():
                full = full.take(entries, axis)
            total += float(((new[block.name].detach().numpy() - full) ** 2).sum() / (full**2).sum())
        return total

    found = []
    for weight in (0.0, 10.0):
        settings = Refine(Budget(steps=30), rate=1e-3, blocks=weight)
        result = prune(model, samples, HALF, options=Options(**{**vars(BARE), "refine": settings}))
        assert result.report.refinement is not None
        assert result.report.refinement.improved
        found.append(distance(result.model))
    assert found[1] < 0.8 * found[0]
    assert found[1] < 0.8 * distance(plain.model)


def test_trials_that_only_did_harm_say_nothing():
    assert best_rate({3e-4: 0.9, 1e-4: 0.8}, "adamw", 1.0) == 1e-4
    assert best_rate({3e-4: 1.5, 1e-4: 1.2, 3e-5: 1.1}, "adamw", 1.0) == 3e-4
    assert best_rate({}, "adamw", 1.0) == 3e-4


def test_what_could_be_chance_is_not_kept():
    """Weights are kept if the mean falls by more than its standard error on the same samples."""
    model = perceptron()
    samples = samples_of(model, 60)
    parts = split(len(samples), 0)
    course = Course(disturbed(model), Lessons(model, samples, parts.fit, parts.tune, 32), STEPS)
    course.begin()
    first = course._first_rows
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(len(first)))
    noise = (noise - noise.mean()) / noise.std() * math.sqrt(len(first))  # standard error 1
    course._note(first - 0.9 + noise)
    assert not course.changed()
    course._note(first - 1.1 + noise)
    assert course.changed()
    assert course.best == pytest.approx(course.first - 1.1)
    course._note(first - 1.05)
    assert course.best == pytest.approx(course.first - 1.1)


def test_an_allowance_is_a_share_of_steps_or_time():
    steps = Allowance(10, None)
    steps.taken = 4
    assert steps.used == 0.4
    assert steps.rest().steps == 6
    assert steps.part(0.25).steps == 2
    time = Allowance(None, 100.0)
    assert 0 <= time.used < 0.01
    assert 99 < (time.rest().seconds or 0) <= 100
    assert time.part(0.5).seconds == 50
    assert Allowance(None, 1.0, reserve=1.0).used == 1.0


def decorrelated_course(model: onnx.ModelProto, student: onnx.ModelProto) -> Course:
    samples = samples_of(model)
    parts = split(len(samples), 0)
    lessons = Lessons(model, samples, parts.fit, parts.tune, 32)
    return Course(student, lessons, replace(STEPS, method="decorrelated"))


def test_a_network_computes_the_same_when_its_layers_are_decorrelated():
    model = perceptron()
    course = decorrelated_course(model, disturbed(model))
    course.begin()
    raw = {name: weight.detach().clone() for name, weight in course.network.weights.items()}
    course.decorrelate(Allowance(60, None))
    after = {name: weight.detach() for name, weight in course.network.weights.items()}
    assert all(float((after[name] - raw[name]).abs().max()) > 1e-3 for name in ("w1", "w2"))
    assert float(course.look().mean()) == pytest.approx(course.first, rel=1e-4)


def test_every_training_of_decorrelated_layers_starts_alike():
    model = perceptron()
    course = decorrelated_course(model, disturbed(model))
    course.begin()
    course.decorrelate(Allowance(20, None))
    start = {name: value.clone() for name, value in course.network.state_dict().items()}
    transforms = [name for name in start if name.endswith("transform")]
    assert len(transforms) == 2
    first = course.train(3e-3, Allowance(30, None), 1, "")
    moved = course.network.state_dict()
    assert all(torch.equal(moved[name], start[name]) for name in transforms)
    assert all(not torch.equal(moved[name], start[name]) for name in start if "weight" in name)
    course._rng = np.random.default_rng(0)
    again = course.train(1e-9, Allowance(1, None), 1, "")
    assert again == pytest.approx(course.first, rel=1e-2)
    assert first < 0.5 * course.first


def test_what_decorrelated_layers_compute_with_is_what_is_written():
    model = perceptron()
    student = disturbed(model)
    samples = samples_of(model)
    parts = split(len(samples), 0)
    lessons = Lessons(model, samples, parts.fit, parts.tune, 32)
    values, done = refine(student, lessons, replace(STEPS, method="decorrelated"))
    better = onnx.ModelProto()
    better.CopyFrom(student)
    for tensor in better.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    (found,) = compare(model, better, samples.batches(parts.tune, 32))
    assert found.softened == pytest.approx(done.after, rel=1e-3)
    assert done.after < 0.3 * done.before
