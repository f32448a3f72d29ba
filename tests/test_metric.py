"""What users judge models by: functions of theirs, and labels of the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_networks import MODELS, digits, perceptron, random_samples

from onnxprune.calibration import Calibration, Split, split
from onnxprune.errors import MetricError
from onnxprune.inputs import open_samples
from onnxprune.metric import function_metric, label_metric, metric_of
from onnxprune.options import Options
from onnxprune.runtime import Session

SCRIPT = """
import numpy as np
from judge_sibling import SCALE

loaded = []
loaded.append(1)

def mean(predict):
    return SCALE * predict({"x": np.ones((3, 6), np.float32)})[0].mean()

def count(predict):
    return len(loaded)

def words(predict):
    return "very good"

def nothing(predict):
    return float("nan")

def failing(predict):
    return predict({})[5]

number = 3
"""


@pytest.fixture
def script(tmp_path) -> Path:
    (tmp_path / "judge.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "judge_sibling.py").write_text("SCALE = 2.0", encoding="utf-8")
    return tmp_path / "judge.py"


def ones(feed):
    return [np.ones((3, 5), np.float32)]


def test_a_function_of_a_file_gets_predict_and_its_folder(script):
    metric = function_metric(f"{script}:mean")
    assert metric.final(ones) == metric.tried(ones) == 2.0
    assert metric.name == f"{script}:mean"
    counter = function_metric(f"{script}:count")
    assert [counter.final(ones), counter.final(ones)] == [1.0, 1.0]  # the file is run once


def test_a_function_itself_will_do():
    def total(predict):
        return predict({})[0].sum()

    metric = metric_of(total, None, *samples())
    assert metric is not None
    assert (metric.name, metric.final(ones)) == ("total", 15.0)
    assert metric_of(None, None, *samples()) is None


@pytest.mark.parametrize(
    ("function", "part"),
    [
        ("words", "returned 'very good'; a metric is a finite number"),
        ("nothing", "returned nan; a metric is a finite number"),
        ("failing", "raised IndexError in line 21: list index out of range; correct the script"),
        ("number", "has no function named 'number'"),
        ("missing", "has no function named 'missing'"),
    ],
)
def test_what_is_no_metric_is_said(script, function, part):
    with pytest.raises(MetricError) as caught:
        function_metric(f"{script}:{function}").final(ones)
    assert part in str(caught.value)
    assert str(script) in str(caught.value)


@pytest.mark.parametrize("text", ["judge.py", "judge.txt:f", "judge.py:", "none.py:f", "f"])
def test_what_names_no_function_is_said(text):
    with pytest.raises(MetricError, match=r"write the metric as file\.py:function"):
        function_metric(text)


def samples(count: int = 40, subset: int | None = None) -> tuple[Calibration, Split, int]:
    model = perceptron()
    given = open_samples(model, random_samples(model, count), Options(num_samples=subset))
    return given, split(len(given), 0), 7


def test_accuracy_is_counted_on_the_samples_of_each_purpose():
    """Trials see the tune samples, the promise the held-out ones; by hand with NumPy."""
    model = onnx.load(MODELS / "mlp_digits.onnx")
    images, labels = digits(), np.random.default_rng(0).integers(0, 10, 500)
    given = open_samples(model, {"input": images}, Options(num_samples=200, seed=5))
    parts = split(len(given), 3)
    (scores,) = Session(model).run({"input": images})
    right = scores.argmax(axis=1) == labels
    right[::2] = True  # so that the two purposes differ
    labels = np.where(right, scores.argmax(axis=1), labels)
    metric = label_metric(labels, given, parts, 16)
    predict = Session(model).run
    chosen = np.random.default_rng(5).choice(500, 200, replace=False)
    used = np.sort(chosen)
    assert metric.tried(predict) == right[used][parts.tune].mean()
    assert metric.final(predict) == right[used][parts.held_out].mean()
    assert metric.tried(predict) != metric.final(predict)
    assert "20 held-out samples" in metric.name


def test_labels_of_a_fixed_batch_stay_with_their_samples():
    model = onnx.load(MODELS / "mlp_digits.onnx")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    given = open_samples(model, {"input": digits()[:100]}, Options())
    parts = split(100, 0, batch_extent=5)
    batches = given.batches(np.arange(100), 5)
    labels = np.concatenate([Session(model).run(feed)[0].argmax(axis=1) for feed in batches])
    assert label_metric(labels, given, parts, 32).final(Session(model).run) == 1.0


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.zeros(39, int), "39 labels for 40 calibration samples"),
        (np.zeros((40, 5), int), "found shape (40, 5); expected one class per sample"),
        (np.zeros(40), "classes are whole numbers from 0, found float64"),
        (np.full(40, -1), "classes are whole numbers from 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, part):
    for given in (labels, tmp_path / "labels.npy"):
        np.save(tmp_path / "labels.npy", labels)
        with pytest.raises(MetricError) as caught:
            label_metric(given, *samples())
        assert part in str(caught.value)


def test_labels_are_of_all_samples_also_when_some_are_used():
    metric = label_metric(np.arange(40).reshape(40, 1) % 5, *samples(subset=30))
    assert 0.0 <= metric.final(lambda feed: [np.eye(5)[np.zeros(len(feed["x"]), int)]]) <= 1.0


@pytest.mark.parametrize("name", ["none.npy", "text.npy", "archive.npy"])
def test_files_without_labels_are_refused(tmp_path, name):
    (tmp_path / "text.npy").write_text("0 1 2", encoding="utf-8")
    with (tmp_path / "archive.npy").open("wb") as file:
        np.savez(file, labels=np.zeros(40, int))
    with pytest.raises(MetricError, match=r"\.npy"):
        label_metric(tmp_path / name, *samples())


def test_labels_need_scores_and_classes_that_exist():
    metric = label_metric(np.full(40, 5), *samples())
    with pytest.raises(MetricError, match="a label is 5, but the model scores 5 classes"):
        metric.final(lambda feed: [np.ones((len(feed["x"]), 5))])
    with pytest.raises(MetricError, match="no output of the model is a row of class scores"):
        metric.final(lambda feed: [np.ones((len(feed["x"]), 5, 5, 5))])
