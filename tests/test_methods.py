"""Methods: every part has its name, parts can be overridden, and each makes a smaller model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from micro_models import build

from onnxprune import Options, Target, prune
from onnxprune.allocation import ALLOCATIONS
from onnxprune.cli import prune as command
from onnxprune.cli.run_settings import options
from onnxprune.criteria import CRITERIA, Obs, Settings
from onnxprune.methods import METHODS, RECOVERIES, Method
from onnxprune.recovery import NoRecovery


@pytest.mark.parametrize("name", METHODS)
def test_the_parts_are_known(name: str) -> None:
    method = METHODS[name]
    assert method.criterion in CRITERIA
    assert method.allocation in ALLOCATIONS
    assert method.recovery in RECOVERIES


def test_no_two_methods_are_the_same() -> None:
    assert len(set(METHODS.values())) == len(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_options_are_the_method_where_nothing_else_is_said(name: str) -> None:
    options = Options(method=name)
    assert options.composition == METHODS[name]
    assert options.make_recovery() == RECOVERIES[METHODS[name].recovery]
    assert options.make_criterion() == CRITERIA[METHODS[name].criterion](Settings())


def test_what_is_said_overrides_the_method() -> None:
    options = Options(method="grail", criterion="snp", allocation="sensitivity", recovery=False)
    assert options.composition == Method("snp", "sensitivity", "none")
    assert Options(method="snp", sequential=True).composition == replace(
        METHODS["snp"], sequential=True
    )
    assert Options(align=8).composition.align == 8
    assert options.make_recovery() == NoRecovery()
    assert Options().composition.sequential
    assert not Options(sequential=False).composition.sequential
    assert not Options(recovery=False).composition.sequential
    own = Obs(damping=0.5)
    assert Options(method="grail", criterion=own).make_criterion() is own
    assert replace(Options(), method="l1").composition == METHODS["l1"]


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'magic'; known: .*onnxprune"):
        Options(method="magic")


def test_the_command_has_all_methods() -> None:
    for name in METHODS:
        words = ["in.onnx", "out.onnx", "--calib", "x.npz", "--method", name]
        assert options(command.parser().parse_args(words)).method == name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_prunes(name: str, rng: np.random.Generator) -> None:
    model = build(
        "c = Conv <pads=[1,1,1,1]> (x, w1) h = Relu(c) y = Conv <pads=[1,1,1,1]> (h, w2)",
        {"w1": (8, 3, 3, 3), "w2": (4, 8, 3, 3)},
    )
    samples = {"x": rng.standard_normal((64, 3, 8, 8)).astype(np.float32)}
    options = Options(method=name, latency=False, align=1)
    result = prune(model, samples, Target("macs", 0.5), options=options)
    (edit,) = result.plan.edits
    assert len(edit.keep) == 4
    assert result.report.settings["method"] == name
