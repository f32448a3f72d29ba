"""Mirror images of samples, which are fitted on and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import MODELS, digits

from onnxprune import Options, Pruner, Target
from onnxprune.calibration import InputSpec, load_calibration, mirrored, split
from onnxprune.errors import CalibrationError
from onnxprune.runtime import Session

FLOAT = np.dtype(np.float32)


@pytest.mark.parametrize(("shape", "columns"), [((3, 4, 5), 2), ((8, 5, 3), 1)])
def test_every_sample_comes_again_with_its_columns_reversed(shape, columns):
    pixels = np.random.default_rng(0).random((6, *shape), np.float32)
    samples = load_calibration({"x": pixels}, [InputSpec("x", ("N", *shape), FLOAT)])
    doubled = mirrored(samples)
    assert len(doubled) == 12
    (feed,) = doubled.batches(np.arange(12), 12)
    np.testing.assert_array_equal(feed["x"][:6], pixels)
    np.testing.assert_array_equal(feed["x"][6:], np.flip(pixels, columns + 1))


def test_a_subset_is_mirrored_and_what_is_no_image_stays():
    rng = np.random.default_rng(0)
    arrays = {"x": rng.random((9, 3, 4, 4), np.float32), "n": rng.random((9, 2), np.float32)}
    specs = [InputSpec("x", ("N", 3, 4, 4), FLOAT), InputSpec("n", ("N", 2), FLOAT)]
    samples = load_calibration(arrays, specs, num_samples=4)
    (feed,) = mirrored(samples).batches(np.arange(8), 8)
    np.testing.assert_array_equal(feed["x"][:4], arrays["x"][samples.selected])
    np.testing.assert_array_equal(feed["x"][4:], feed["x"][:4, :, :, ::-1])
    np.testing.assert_array_equal(feed["n"][4:], feed["n"][:4])


def test_without_images_there_is_nothing_to_mirror():
    samples = load_calibration({"x": np.ones((3, 7), np.float32)}, [InputSpec("x", (3, 7), FLOAT)])
    with pytest.raises(CalibrationError, match=r"--mirror is for images.*'x'"):
        mirrored(samples)


def test_learnt_statistics_are_of_nothing_to_mirror():
    with pytest.raises(ValueError, match="mirrored"):
        Options(method="snp", statistics="moments.npz", mirror=True)


@pytest.mark.parametrize("extent", [1, 4])
def test_only_what_is_fitted_on_has_copies(extent):
    parts = split(80, 0, batch_extent=extent).with_choice(0, batch_extent=extent)
    both = parts.with_copies(80)
    np.testing.assert_array_equal(both.fit[: parts.fit.size], parts.fit)
    np.testing.assert_array_equal(both.fit[parts.fit.size :], parts.fit + 80)
    unseen = np.concatenate([both.tune, both.held_out, both.choose])
    assert not set(both.fit % 80) & set(unseen)
    assert unseen.max() < 80


def test_pruning_fits_on_mirror_images_and_reports_on_none():
    """What is fitted is fitted to them as well: the pruned model errs less on them."""
    model = onnx.load(MODELS / "resnet_digits.onnx")
    given = {model.graph.input[0].name: digits()[:120].reshape(120, *_extents(model))}
    plain, both = (
        Pruner(model, given, Options(latency=False, allocation="uniform", mirror=mirror)).prune(
            [Target("macs", 0.5)]
        )
        for mirror in (False, True)
    )
    assert both.report.samples == {**plain.report.samples, "fit": 2 * plain.report.samples["fit"]}
    assert _mirror_error(model, both.model, given) < _mirror_error(model, plain.model, given)


def test_labels_are_of_the_samples_as_they_were_given():
    model = onnx.load(MODELS / "resnet_digits.onnx")
    images = digits()[:60].reshape(60, *_extents(model))
    given = {model.graph.input[0].name: images}
    labels = Session(model).run(given)[0].argmax(axis=1)
    options = Options(latency=False, allocation="uniform", mirror=True, labels=labels)
    report = Pruner(model, given, options).prune([Target("macs", 0.9)]).report
    assert report.metric is not None
    assert report.metric.before == 1.0


def _extents(model: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]


def _mirror_error(original: onnx.ModelProto, pruned: onnx.ModelProto, given: dict) -> float:
    """Mean squared difference of the outputs on the mirror images."""
    feed = {name: np.ascontiguousarray(array[..., ::-1]) for name, array in given.items()}
    before, after = (Session(m).run(feed)[0] for m in (original, pruned))
    return float(((before - after) ** 2).mean())
