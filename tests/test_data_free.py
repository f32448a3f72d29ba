"""Moments without data: noise, and BatchNorms that state what real data did."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from micro_models import build
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

from curve_methods import macs_of  # noqa: E402
from data_free import counts_of, finished, re_estimated, smooth, study_of, white  # noqa: E402

from onnxprune import Options  # noqa: E402
from onnxprune.arrays import Array  # noqa: E402
from onnxprune.extract import exposed  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402

SHAPE = (64, 3, 8, 8)
NORMS = {"n1": ("g1", "e1"), "n2": ("g2", "e2")}


@pytest.fixture
def model(rng: np.random.Generator) -> onnx.ModelProto:
    """Two convolutions, each with a BatchNorm whose statistics are far from those of noise."""
    parameters = {
        f"{kind}{layer}": (low + width * rng.random(size)).astype(np.float32)
        for layer, size in ((1, 8), (2, 6))
        for kind, low, width in (
            ("g", 0.5, 1.0),
            ("e", -0.5, 1.0),
            ("m", 3.0, 1.0),
            ("v", 4.0, 2.0),
        )
    }
    convolutions = {"w1": (8, 3, 3, 3), "w2": (6, 8, 3, 3), "w3": (4, 6, 1, 1)}
    return build(
        "c1 = Conv <pads=[1,1,1,1]> (x, w1) n1 = BatchNormalization (c1, g1, e1, m1, v1)"
        "h1 = Relu(n1) c2 = Conv <pads=[1,1,1,1]> (h1, w2)"
        "n2 = BatchNormalization (c2, g2, e2, m2, v2) h2 = Relu(n2) y = Conv (h2, w3)",
        convolutions | parameters,
    )


def outputs_of(model: onnx.ModelProto, names: list[str], inputs: Array) -> list[Array]:
    return Session(exposed(model, names)).run({"x": inputs}, names)


def test_every_norm_puts_out_what_it_states(model: onnx.ModelProto) -> None:
    inputs = white(SHAPE, 0)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    found = outputs_of(re_estimated(model, inputs), [*NORMS], inputs)
    before = outputs_of(model, [*NORMS], inputs)
    for (scale, shift), after, plain in zip(NORMS.values(), found, before, strict=True):
        np.testing.assert_allclose(after.mean(axis=(0, 2, 3)), stored[shift], atol=1e-4)
        np.testing.assert_allclose(after.std(axis=(0, 2, 3)), stored[scale], rtol=1e-3)
        assert np.abs(plain.mean(axis=(0, 2, 3)) - stored[shift]).min() > 0.1


def test_only_the_statistics_change(model: onnx.ModelProto) -> None:
    before = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    made = re_estimated(model, white(SHAPE, 0))
    changed = {
        t.name
        for t in made.graph.initializer
        if not np.array_equal(numpy_helper.to_array(t), before[t.name])
    }
    assert changed == {"m1", "v1", "m2", "v2"}
    assert list(made.graph.node) == list(model.graph.node)


def test_a_model_without_norms_is_refused() -> None:
    plain = build("y = Conv (x, w)", {"w": (4, 3, 1, 1)})
    with pytest.raises(ValueError, match="no BatchNormalization"):
        re_estimated(plain, white(SHAPE, 0))


def test_smooth_noise_is_normalised_and_its_neighbours_are_alike() -> None:
    shape = (50, 3, 32, 32)
    likeness = []
    for noise in (white(shape, 0), smooth(shape, 0)):
        np.testing.assert_allclose(noise.mean(axis=(0, 2, 3)), 0.0, atol=0.02)
        np.testing.assert_allclose(noise.std(axis=(0, 2, 3)), 1.0, atol=0.02)
        likeness.append(float(np.mean(noise[..., 1:] * noise[..., :-1])))
    assert abs(likeness[0]) < 0.02
    assert likeness[1] > 0.6


def test_weights_are_the_models_own_and_moments_are_the_stand_ins(model: onnx.ModelProto) -> None:
    inputs = white(SHAPE, 0)
    stand_in = re_estimated(model, inputs)
    options = Options(method="squeeze", align=1, latency=False)
    _, plain = study_of(model, options, inputs, None)
    pruner, known = study_of(model, options, inputs, stand_in)
    _, theirs = study_of(stand_in, options, inputs, None)
    for name in known.layers:
        (own,), (given,), (other,) = (s.layers[name] for s in (plain, known, theirs))
        np.testing.assert_array_equal(given.weight, own.weight)
        np.testing.assert_array_equal(given.gram, other.gram)
        assert not np.allclose(given.gram, own.gram)
    counts = counts_of(pruner, known, options, 0.5)
    made = finished(model, known, counts, known.recovery)
    assert macs_of(made) <= 0.5 * macs_of(model)
    assert Session(made).run({"x": inputs})[0].shape == (64, 4, 8, 8)
