"""A limit of memory changes where statistics lie and how often samples run, and nothing else."""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import pytest
from micro_models import build
from small_networks import MODELS, Studied, digits, studied

from onnxprune import Options, Target, prune
from onnxprune.cli import main
from onnxprune.cli.arguments import memory
from onnxprune.layer_problem import LayerProblem
from onnxprune.problem_store import ProblemStore
from onnxprune.statistics import collect, sums_bytes
from onnxprune.study import passes

ONE = "<pads=[1,1,1,1]>"
CHAIN = build(
    f"a = Conv {ONE} (x, w0) p = Relu(a) b = Conv {ONE} (p, w1) q = Relu(b)"
    f" c = Conv <pads=[1,1,1,1], group=2> (q, w2) r = Relu(c) d = Conv {ONE} (q, w3)"
    " s = Add(r, d) y = Conv (s, w4)",
    {"w0": (6, 3, 3, 3), "w1": (8, 6, 3, 3), "w2": (6, 4, 3, 3), "w3": (6, 8, 3, 3)}
    | {"w4": (4, 6, 1, 1)},
)


def problem(features: int, seed: int) -> LayerProblem:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((50, features + 1))
    entries = np.arange(features)
    weight = rng.standard_normal((3, features + 1))
    return LayerProblem(f"layer {seed}", weight, x.T @ x, x.T @ x / 2, entries, 1, 50)


@pytest.mark.parametrize("limit", [None, 0, 3000])
def test_problems_come_back_as_they_were(limit):
    given = {name: [problem(n, n), problem(n + 1, n + 1)] for name, n in (("a", 5), ("b", 9))}
    store = ProblemStore(limit)
    for name, problems in given.items():
        store.add(name, problems)
    assert (list(store), len(store)) == (["a", "b"], 2)
    total = sum(2 * p.gram.nbytes for problems in given.values() for p in problems)
    assert store.bytes_held + store.bytes_spilled == total
    assert limit is None or store.bytes_held <= limit
    for name, problems in given.items():
        for before, after in zip(problems, store[name], strict=True):
            assert (after.name, after.rows) == (before.name, before.rows)
            np.testing.assert_array_equal(after.gram, before.gram)
            np.testing.assert_array_equal(after.tune_gram, before.tune_gram)
            assert after.weight is before.weight
    with pytest.raises(KeyError):
        store["c"]


def run(limit: int | None) -> Studied:
    return studied(CHAIN, options=Options(max_memory=limit))


def test_layers_are_collected_together_as_far_as_they_fit():
    known = run(None).study
    views, canonical = known.views, known.canonical
    sizes = sums_bytes(canonical, [spec for view in views.values() for spec in view.specs])
    own = {name: sum(sizes[spec] for spec in set(view.specs)) for name, view in views.items()}
    assert passes(canonical, views, None) == [list(views)]
    assert passes(canonical, views, 0) == [[name] for name in views]
    for limit in (max(own.values()), sum(own.values()) // 2):
        found = passes(canonical, views, limit)
        assert [name for names in found for name in names] == list(views)
        for names in found:
            together = {spec for name in names for spec in views[name].specs}
            assert len(names) == 1 or sum(sizes[spec] for spec in together) <= limit
    assert 1 < len(passes(canonical, views, sum(own.values()) // 2)) < len(views)


def test_the_sums_take_what_is_said():
    known = run(None)
    views = known.study.views.values()
    specs = [spec for view in views for spec in view.specs]
    grams = collect(known.study.canonical, specs, known.batches(), samples=16)
    sizes = sums_bytes(known.study.canonical, specs)
    assert {spec: gram.sums.nbytes for spec, gram in grams.items()} == sizes


def test_a_study_in_passes_is_the_same_to_the_last_bit(monkeypatch):
    calls = []

    def counted(*arguments: object, **settings: object) -> object:
        calls.append(1)
        return collect(*arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr("onnxprune.study.collect", counted)
    free = run(None).study
    assert len(calls) == 2
    bound = run(40_000).study
    assert len(calls) > 4
    assert bound.layers.bytes_held <= 20_000 < free.layers.bytes_held
    assert list(free.layers) == list(bound.layers)
    for name in free.layers:
        for left, right in zip(free.layers[name], bound.layers[name], strict=True):
            assert left.gram.tobytes() == right.gram.tobytes()
            assert left.tune_gram.tobytes() == right.tune_gram.tobytes()
    for name, ranking in free.rankings.items():
        np.testing.assert_array_equal(ranking.order, bound.rankings[name].order)
        np.testing.assert_array_equal(ranking.error, bound.rankings[name].error)


@pytest.mark.slow
def test_the_pruned_model_does_not_depend_on_the_limit():
    model = onnx.load(MODELS / "resnet_digits.onnx")
    results = [
        prune(
            model,
            digits()[:200],
            Target("macs", 0.6),
            options=Options(max_memory=limit, allocation="uniform", latency=False),
        )
        for limit in (None, 10_000)
    ]
    assert results[0].model.SerializeToString() == results[1].model.SerializeToString()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512 * 10**6),
        ("2GB", 2 * 10**9),
        ("1GiB", 2**30),
        ("1.5 kib", 1536),
        ("2g", 2 * 10**9),
        ("1TB", 10**12),
        ("4096", 4096),
        ("10B", 10),
    ],
)
def test_sizes_are_read(text, size):
    assert memory(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1PB", "1iB", "two", "1e9"])
def test_what_is_no_size_is_told(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write a size as 512MB, 2GB or 1GiB"):
        memory(text)


def test_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="max_memory must not be negative, but is -1"):
        Options(max_memory=-1)


def test_the_command_takes_a_limit(tmp_path):
    out = tmp_path / "out.onnx"
    words = [MODELS / "mlp_digits.onnx", out, "--calib", MODELS / "digits_calib.npz", "-q"]
    words += ["--target", "macs=0.5", "--num-samples", "100", "--allocation", "uniform"]
    made = []
    for flags in ([], ["--max-memory", "1kB"], ["--no-sequential"]):
        assert main([str(word) for word in [*words, *flags]]) == 0
        made.append(out.read_bytes())
    assert made[0] == made[1] != made[2]
