"""Refinement by distillation, from the command's words to the file it leaves."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import files, finite, run, working_folder
from micro_models import build
from small_networks import MODELS, accuracy, digits, random_samples

from onnxprune import Options, Result, Target, Weights, apply, prune
from onnxprune.api import Pruner
from onnxprune.cli import main
from onnxprune.errors import MissingLibraryError, TargetError, TrainingError, UnsupportedModelError
from onnxprune.refinement import Budget, Refine, Refinement

pytest.importorskip("torch")

SAMPLES = digits()[:200]
BARE = Options(allocation="uniform", criterion="l2", recovery=False, latency=False, refine=None)
"""What is sliced and not recovered is damaged, and takes no time."""
THIRD = Target("macs", 0.3)
STEPS = Refine(Budget(steps=24), rate=1e-3)


def path_of(name: str) -> Path:
    return MODELS / f"{name}.onnx"


def refined(settings: Refine | None, *targets: Target, **options: object) -> Result:
    given = replace(BARE, refine=settings, **options)  # type: ignore[arg-type]
    return prune(path_of("mlp_digits"), SAMPLES, targets or THIRD, options=given)


def done(result: Result) -> Refinement:
    assert result.report.refinement is not None
    return result.report.refinement


def content(model: onnx.ModelProto) -> bytes:
    """The graph alone: what a model says of its making differs with the settings."""
    return bytes(model.graph.SerializeToString(deterministic=True))


@pytest.fixture(scope="module")
def bare() -> Result:
    return refined(None)


@pytest.fixture(scope="module")
def trained() -> Result:
    return refined(STEPS)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("300s", Budget(seconds=300)),
        ("5m", Budget(seconds=300)),
        ("1.5min", Budget(seconds=90)),
        ("1h", Budget(seconds=3600)),
        ("epochs=2", Budget(epochs=2)),
        ("epochs=0.5", Budget(epochs=0.5)),
        ("steps=1000", Budget(steps=1000)),
    ],
)
def test_a_budget_is_a_time_or_a_number(text, budget):
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "300", "5w", "steps=1.5", "epochs", "-3s", "epochs=-1", "1 s"]
)
def test_what_is_no_budget_is_refused_with_its_forms(text):
    with pytest.raises(ValueError, match="300s, 5m or 1h, epochs=2 or steps=1000"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["0s", "steps=0", "epochs=0"])
def test_a_budget_is_more_than_nothing(text):
    with pytest.raises(ValueError, match="more than nothing"):
        Budget.parse(text)


def test_a_budget_is_divided_into_parts_of_at_least_a_step():
    assert Budget(seconds=60).divided(4) == Budget(seconds=15)
    assert Budget(epochs=2).divided(4) == Budget(epochs=0.5)
    assert Budget(steps=3).divided(4) == Budget(steps=1)
    assert Budget(epochs=0.5).limit_of(5) == 2
    assert Budget(epochs=0.01).limit_of(5) == 1
    assert Budget(seconds=1).limit_of(5) is None


def test_a_damaged_network_gets_better(bare, trained):
    """On images of the test set, which it was not trained on."""
    assert done(trained).after < 0.5 * done(trained).before
    assert trained.report.outputs[0].divergence < 0.5 * bare.report.outputs[0].divergence
    assert accuracy(trained.model) > accuracy(bare.model) + 0.02


def test_the_record_is_of_the_files_themselves(bare, trained):
    """What is said of the samples to choose by is what onnxruntime makes of the two models."""
    pruner = Pruner(path_of("mlp_digits"), SAMPLES, replace(BARE, refine=STEPS))
    chosen = {"input": SAMPLES[pruner._ground.parts.choose]}
    original = onnx.load(path_of("mlp_digits"))
    for model, said in ((bare.model, done(trained).before), (trained.model, done(trained).after)):
        assert softened(original, model, chosen) == pytest.approx(said, rel=1e-4)


def softened(original: onnx.ModelProto, model: onnx.ModelProto, feed: dict[str, np.ndarray]):
    """The mean divergence of softened scores, written out."""
    from onnxprune.runtime import Session

    old, new = (Session(m).run(feed)[0].astype(float) / 3.0 for m in (original, model))
    p, q = (np.exp(s - s.max(1, keepdims=True)) for s in (old, new))
    p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
    return 9.0 * (p * np.log(p / q)).sum(1).mean()


def test_only_weights_change(bare, trained):
    assert [n.SerializeToString() for n in bare.model.graph.node] == [
        n.SerializeToString() for n in trained.model.graph.node
    ]
    shapes = [
        [(t.name, t.data_type, list(t.dims)) for t in m.graph.initializer]
        for m in (bare.model, trained.model)
    ]
    assert shapes[0] == shapes[1]
    costs = [(after.params, after.macs) for after in (bare.report.after, trained.report.after)]
    assert costs[0] == costs[1]
    assert bare.plan == trained.plan
    assert content(bare.model) != content(trained.model)


def test_plan_and_weights_make_the_refined_model_again(trained, tmp_path):
    trained.weights.save(tmp_path / "plan.npz")
    weights = Weights.load(tmp_path / "plan.npz")
    again = apply(onnx.load(path_of("mlp_digits")), trained.plan, weights)
    assert content(again) == content(trained.model)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(trained):
    assert content(refined(STEPS).model) == content(trained.model)
    assert content(refined(STEPS, seed=1).model) != content(trained.model)


@pytest.mark.parametrize("rate", [30.0, 1e30])
def test_a_rate_that_ruins_everything_changes_nothing(bare, rate):
    result = refined(Refine(Budget(steps=8), rate=rate))
    assert content(result.model) == content(bare.model)
    assert not result.weights.refined
    assert done(result).after == done(result).before > 0
    assert not done(result).improved
    assert "nothing improved" in result.report.table()


def test_the_rate_is_found_by_trials():
    """Larger ones are tried while they do better, as much has to be made good here."""
    found = done(refined(Refine(Budget(steps=50))))
    assert list(found.trials) == [3e-4, 1e-4, 1e-3]
    assert found.rate == min(found.trials, key=lambda rate: found.trials[rate]) == 1e-3
    assert found.steps == 50
    assert found.after < min(found.before, *found.trials.values())


def test_a_handful_of_steps_is_not_spent_on_trials():
    found = done(refined(Refine(Budget(steps=4))))
    assert not found.trials
    assert found.steps == 4


@pytest.mark.parametrize(("budget", "steps"), [(Budget(epochs=1.4), 7), (Budget(steps=7), 7)])
def test_steps_and_epochs_are_counted(budget, steps):
    """150 samples to fit on are 5 steps of 32."""
    assert done(refined(Refine(budget, rate=1e-3))).steps == steps


@pytest.mark.slow
@pytest.mark.parametrize("rate", [None, 1e-3])
def test_a_time_is_kept_with_the_trials(rate):
    found = done(refined(Refine(Budget(seconds=2), rate=rate)))
    assert 0 < found.seconds < 2.5
    assert found.steps > 5
    assert found.improved


def test_bounds_on_damage_are_judged_on_the_refined_model(bare, trained):
    before, after = (r.report.outputs[0].relative_error for r in (bare, trained))
    bound = Target("error", math.sqrt(before * after))
    with pytest.raises(TargetError, match=r"error=.* asks for"):
        refined(None, THIRD, bound)
    result = refined(STEPS, THIRD, bound)
    assert [check.holds for check in result.report.targets] == [True, True]
    assert content(result.model) == content(trained.model)
    with pytest.raises(TargetError, match=r"error=0\.001 asks for"):
        refined(STEPS, THIRD, Target("error", 0.001))


def test_refinement_lets_more_be_pruned_within_a_bound_on_damage():
    bound = Target("error", 0.25)
    plain = refined(None, bound)
    result = refined(Refine(Budget(steps=96), rate=1e-3), bound)
    assert result.report.outputs[0].relative_error <= 0.25
    assert result.report.after.macs < plain.report.after.macs


def test_an_operator_without_gradient_is_named_before_anything_is_run(monkeypatch):
    model = build(
        "a = Gemm (x, w1, b1) h = Relu (a) r = Bernoulli <seed=1.0> (h) y = Gemm (r, w2, b2)",
        {"w1": (6, 10), "b1": (10,), "w2": (10, 5), "b2": (5,)},
        inputs="float[N,6] x",
        outputs="float[N,5] y",
    )
    model.graph.node[2].name = "coin"

    def no_study(*_: object) -> None:
        raise AssertionError("statistics were collected")

    monkeypatch.setattr("onnxprune.groundwork.study", no_study)
    with pytest.raises(UnsupportedModelError, match=r"Bernoulli.*'coin'"):
        prune(model, random_samples(model), THIRD, options=replace(BARE, refine=STEPS))


def test_an_augmentation_that_is_not_known_is_refused_first():
    with pytest.raises(TrainingError, match="unknown augmentation 'blur'"):
        refined(replace(STEPS, augment=("blur",)))


def test_the_report_holds_what_was_asked_and_done(trained, tmp_path):
    trained.report.save(tmp_path / "report.json")
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["settings"]["refine"]["budget"] == "steps=24"
    assert record["refinement"]["improved"] is True
    assert record["refinement"]["after"] == done(trained).after
    (line,) = [x for x in trained.report.table().splitlines() if x.startswith("refined: ")]
    assert "24 steps" in line
    assert "learning rate 0.001" in line


def test_without_refinement_the_report_says_none(bare):
    record = bare.report.to_dict()
    assert record["settings"]["refine"] is None
    assert record["refinement"] is None


def test_torch_is_asked_for_before_any_work(monkeypatch):
    monkeypatch.setattr("onnxprune.refinement.find_spec", lambda name: None)
    monkeypatch.setattr("onnxprune.groundwork.study", lambda *_: pytest.fail("worked before"))
    with pytest.raises(MissingLibraryError, match=r"torch.*\[train\]"):
        refined(STEPS)


def test_cuda_is_asked_for_before_any_work(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("onnxprune.groundwork.study", lambda *_: pytest.fail("worked before"))
    with pytest.raises(Exception, match="CUDA device to refine on"):
        refined(STEPS, provider="cuda")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


FLAGS = ("--target", "macs=0.3", "--allocation", "uniform", "--criterion", "l2", "--no-recovery")


def test_the_command_refines_and_apply_does_it_again(folder, capsys):
    words = ("--refine", "steps=12", "--refine-rate", "0.001", "--plan", "plan.json")
    assert run(*FLAGS, *words, "--refine-optimizer", "adamw") == 0
    assert "refined: divergence on unseen samples" in capsys.readouterr().out
    assert main(["apply", "in.onnx", "plan.json", "again.onnx", "--weights", "plan.npz"]) == 0
    assert (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()


def test_the_example_of_the_readme_runs(folder, capsys):
    """As it is written there, but for less time."""
    text = (MODELS.parent / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^onnxprune (.* --refine 300s.*)$", text, re.MULTILINE)
    (folder / "samples.npz").write_bytes((folder / "calib.npz").read_bytes())
    words = line.replace("300s", "1s").split()
    assert main(words) == 0
    assert "refined: " in capsys.readouterr().out
    assert finite("out.onnx")


def test_a_function_of_the_users_changes_the_samples(folder, capsys):
    own = "def noisy(feed, rng):\n    return {n: x + 0.1 * rng.random() for n, x in feed.items()}\n"
    (folder / "own.py").write_text(own, encoding="utf-8")
    words = ("--refine", "steps=6", "--refine-rate", "0.001", "--augment", "own.py:noisy")
    assert run(*FLAGS, *words) == 0
    changed = content(onnx.load(folder / "out.onnx"))
    assert run(*FLAGS, *words[:4]) == 0
    assert content(onnx.load(folder / "out.onnx")) != changed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--refine", "soon"), "300s, 5m or 1h"),
        (("--refine", "0s"), "more than nothing"),
        (("--refine", "9s", "--refine-rate", "-1"), "learning rate is more than 0"),
        (("--refine", "9s", "--refine-blocks", "-1"), "at least 0"),
        (("--refine-rate", "0.1"), "--refine-rate is for --refine"),
        (("--refine-blocks", "1"), "--refine-blocks is for --refine"),
        (("--augment", "flip"), "--augment is for --refine"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_written(folder, capsys, words, said):
    before = files(folder)
    assert run(*FLAGS, *words) == 2
    assert said in capsys.readouterr().err
    assert files(folder) == before
