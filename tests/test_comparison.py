"""Distances between outputs, against direct NumPy; which outputs look like class scores."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.comparison import (
    OutputDistance,
    distances,
    is_distribution,
    kl_divergence,
    looks_like_scores,
)

IMAGES = {"x": np.zeros((6, 3, 8, 8), np.float32)}


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def measured(old: np.ndarray, new: np.ndarray, *sizes: int) -> OutputDistance:
    """The distance, added up in batches of these sizes."""
    (found,) = distances(["y"], [old], IMAGES)
    edges = np.cumsum(sizes)[:-1] if sizes else []
    for a, b in zip(np.split(old, edges), np.split(new, edges), strict=True):
        found.add(a, b)
    return found


@pytest.fixture
def logits(rng):
    old = rng.standard_normal((30, 5)).astype(np.float32) * 3
    return old, old + rng.standard_normal((30, 5)).astype(np.float32)


def test_relative_error_and_cosine(logits):
    old, new = logits
    found = measured(old, new)
    flat = old.ravel().astype(np.float64), new.ravel().astype(np.float64)
    assert found.samples == 30
    assert found.relative_error == pytest.approx(
        np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0])
    )
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert found.cosine == pytest.approx(cosine)


def test_divergence_and_agreement_of_logits(logits):
    old, new = logits
    found = measured(old, new)
    p, q = softmax(old.astype(np.float64)), softmax(new.astype(np.float64))
    assert found.divergence == pytest.approx(float((p * np.log(p / q)).sum(axis=1).mean()))
    assert found.agreement == np.mean(old.argmax(axis=1) == new.argmax(axis=1))
    assert 0 < found.agreement < 1


@pytest.mark.parametrize("scores", [True, False])
def test_merging_is_adding_all_that_both_have_seen(logits, scores):
    old, new = logits
    whole, *parts = (OutputDistance("y", scores) for _ in range(4))
    whole.add(old, new)
    for part, a, b in zip(parts, np.split(old, [7, 20]), np.split(new, [7, 20]), strict=True):
        part.add(a, b)
    first, *others = parts
    for other in others:
        first.merge(other)
    for name in ("relative_error", "cosine", "divergence"):
        assert getattr(first, name) == pytest.approx(getattr(whole, name), rel=1e-12)
    assert (first.samples, first.agreement) == (whole.samples, whole.agreement)
    assert others[-1].samples == 10  # what was added stays as it is


def test_probabilities_are_taken_as_such(logits):
    old, new = (softmax(scores) for scores in logits)
    found = measured(old, new)
    assert found.scores
    expected = float((old * np.log(old / new)).sum(axis=1).mean())
    assert found.divergence == pytest.approx(expected, rel=1e-5)
    assert found.divergence == pytest.approx(measured(*logits).divergence, rel=1e-4)


def test_the_reference_decides_what_rows_are():
    """Logits that happen to sum to one do not become probabilities next to other logits."""
    old, new = np.array([[2.0, -1.0, 1.0]]), np.array([[0.2, 0.3, 0.5]])
    p, q = softmax(old), softmax(new)
    assert is_distribution(new)
    assert kl_divergence(old, new) == pytest.approx((p * np.log(p / q)).sum(axis=1))


@pytest.mark.parametrize("known", [False, True])
def test_softened_divergence_is_of_tempered_scores_and_of_the_same_size_where_small(logits, known):
    old, new = (softmax(a) if known else a for a in logits)
    p, q = (softmax(a / 3) for a in logits)
    expected = 9 * (p * np.log(p / q)).sum(axis=1)
    assert kl_divergence(old, new, 3.0) == pytest.approx(expected, rel=1e-3)
    assert measured(old, new).softened == pytest.approx(expected.mean(), rel=1e-3)
    small = 0.01 * (logits[1] - logits[0]).astype(np.float64)
    plain, soft = (kl_divergence(0 * small, small, t).mean() for t in (1.0, 3.0))
    assert soft == pytest.approx(plain, rel=0.01)


def test_certain_probabilities_stay_finite():
    old, new = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert 20 < kl_divergence(old, new)[0] < 40
    assert kl_divergence(old, old)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("sizes", [(30,), (1,) * 30, (7, 16, 7), (29, 1)])
@pytest.mark.parametrize("kind", ["logits", "probabilities", "values"])
def test_how_samples_are_batched_does_not_matter(logits, sizes, kind):
    old, new = (softmax(a) if kind == "probabilities" else a for a in logits)
    if kind == "values":
        old, new = old[:, None], new[:, None]
    whole, split = measured(old, new), measured(old, new, *sizes)
    for figure in ("samples", "relative_error", "cosine", "divergence", "softened", "agreement"):
        assert getattr(split, figure) == pytest.approx(getattr(whole, figure)), figure


def test_other_outputs_diverge_by_their_squared_error(rng):
    old = rng.standard_normal((4, 3, 8, 8)).astype(np.float32)
    found = measured(old, old * 1.1)
    assert not found.scores
    assert found.agreement is None
    assert found.divergence == pytest.approx(0.01, rel=1e-3)
    assert found.cosine == pytest.approx(1.0)


def test_equal_outputs_are_at_no_distance(logits):
    found = measured(logits[0], logits[0])
    assert (found.relative_error, found.divergence, found.agreement) == (0.0, 0.0, 1.0)
    assert found.cosine == pytest.approx(1.0)


def test_a_reference_of_zeros():
    zeros = np.zeros((3, 4, 2, 2), np.float32)
    assert measured(zeros, zeros).relative_error == 0
    assert measured(zeros, zeros).cosine == 1
    assert measured(zeros, zeros + 1).relative_error == pytest.approx(np.sqrt(48))
    assert measured(zeros, zeros + 1).cosine == 0


def test_half_precision_does_not_overflow():
    old = np.full((2, 1, 4, 4), 6e4, np.float16)
    assert measured(old, -old).relative_error == pytest.approx(2.0)


def test_a_shape_that_depends_on_the_values_counts_as_wrong():
    boxes = np.ones((7, 4, 1), np.float32)
    assert measured(boxes, boxes[:5]).relative_error == pytest.approx(1.0)


def test_what_is_no_numbers_is_passed_over():
    words = np.array(["cat", "dog"], object)
    for output in (words, [{"cat": 0.5}]):
        (found,) = distances(["y"], [output], IMAGES)
        found.add(output, output)
        assert (found.scores, found.samples) == (False, 0)


@pytest.mark.parametrize(
    ("shape", "scores"),
    [
        ((6, 10), True),
        ((6, 10, 1, 1), True),
        ((6, 2), True),
        ((1, 10), True),
        ((6, 1), False),  # a regression
        ((6,), False),
        ((6, 10, 2), False),  # positions
        ((6, 10, 1), False),  # one value for each anchor
        ((6, 10, 8, 8), False),  # maps
        ((6, 1, 10), False),
        ((), False),
    ],
)
def test_class_scores_are_one_row_per_sample(shape, scores):
    assert looks_like_scores(np.zeros(shape, np.float32), IMAGES) is scores


def test_a_reconstruction_is_no_row_of_scores():
    output = np.zeros((6, 640), np.float32)
    assert not looks_like_scores(output, {"x": np.zeros((6, 640), np.float32)})
    assert looks_like_scores(output, {"x": np.zeros((6, 320), np.float32)})


def test_labels_are_no_scores():
    assert not looks_like_scores(np.zeros((6, 10), np.int64), IMAGES)
