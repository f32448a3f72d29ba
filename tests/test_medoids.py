"""Medoids: the first ones stand for clusters, and every next one brings the rest closest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_criteria import simple

from onnxprune.criteria.medoids import Medoids, medoid_order, weight_distances


def distances(points: np.ndarray) -> np.ndarray:
    return ((points[:, None] - points[None]) ** 2).sum(axis=-1)


@pytest.fixture
def clusters(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points of three far clusters of unequal size, and which they belong to."""
    member = rng.permutation(np.repeat([0, 1, 2], [6, 4, 3]))
    centres = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 90.0]])
    return centres[member] + rng.standard_normal((13, 2)), member


def test_there_is_one_medoid_for_each_cluster(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    points, member = clusters
    order = medoid_order(distances(points), np.zeros(13, int), np.ones(13, bool))
    assert sorted(member[order[:3]]) == [0, 1, 2]


def test_every_medoid_is_the_best_next_one(rng: np.random.Generator) -> None:
    distance = distances(rng.standard_normal((9, 3)))
    order = medoid_order(distance, np.zeros(9, int), np.ones(9, bool))
    assert sorted(order) == list(range(9))

    def left(chosen: list[int]) -> float:
        return float(distance[chosen].min(axis=0).sum())

    for count in range(1, 9):
        best = min(left([*order[:count], unit]) for unit in set(range(9)) - set(order[:count]))
        assert left([*order[: count + 1]]) == pytest.approx(best)


def test_dead_units_come_last_and_draw_nobody(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    points, member = clusters
    order = medoid_order(distances(points), np.zeros(13, int), member != 0)
    assert sorted(member[order[:2]]) == [1, 2]
    assert set(member[order[-6:]]) == {0}


def test_a_dead_unit_stands_for_nobody_even_in_the_middle() -> None:
    points = np.array([[0.0], [-1.0], [1.0], [-1.1], [1.1]])
    alive = np.array([False, True, True, True, True])
    assert medoid_order(distances(points), np.zeros(5, int), alive)[-1] == 0
    assert medoid_order(distances(points), np.zeros(5, int), ~np.zeros(5, bool))[0] == 0


def test_no_producer_outvotes_another() -> None:
    problem = simple(3, units=8)
    (weight,) = problem.producer_weights
    other = np.random.default_rng(5).standard_normal(weight.shape)
    both = replace(problem, producer_weights=(weight, other))
    louder = replace(problem, producer_weights=(weight, 1000 * other))
    np.testing.assert_allclose(weight_distances(louder), weight_distances(both), atol=1e-12)
    assert not np.allclose(weight_distances(both), weight_distances(problem))


def test_without_producers_the_weights_that_read_the_units_count() -> None:
    problem = replace(simple(4, units=6, taps=2), producer_weights=())
    tensor = problem.consumers[0].weight[:, :-1].reshape(4, 6, 2).swapaxes(0, 1).reshape(6, -1)
    want = distances(tensor) / (tensor**2).mean()
    np.testing.assert_allclose(weight_distances(problem), want)
    assert sorted(Medoids().rank(problem).order) == list(range(6))
