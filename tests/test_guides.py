"""What the guides show is run: the tutorial, the how-to, and the examples of extending."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from textwrap import dedent

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune import Options, Target, cli, prune
from onnxprune.rules import registry
from onnxprune.runtime import Session
from onnxprune.stand_ins import SHAPED_LIKE_FIRST_INPUT

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SHARED = ROOT.parent / "shared"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [dedent(block) for _, block in found]


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [line.removeprefix("onnxprune ") for line in lines if line.startswith("onnxprune ")]


@pytest.mark.slow
@pytest.mark.parametrize("line", commands("how-to"))
def test_the_commands_of_the_how_to_run(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("models").symlink_to(ROOT / "models", target_is_directory=True)
    (judge,) = blocks("how-to", "python")
    Path("judge.py").write_text(judge, encoding="utf-8")
    if "--refine" in line:
        pytest.importorskip("torch")
    words = shlex.split(line)
    if words[0] in ("apply", "plot"):  # they go on from the command before
        before = next(c for c in commands("how-to") if "--plan" in c)
        assert cli.main([*shlex.split(before), "-q"]) == 0
    if any(word.startswith("latency=") for word in words):
        # whether a target on time can be met is the machine's to say: 0 it was, 1 it was not
        assert cli.main(words) in (0, 1)
        return
    assert cli.main(words) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is missing: it holds the network")
def test_the_commands_of_the_tutorial_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(ROOT / "tools")
    from trained import NETWORKS

    network = NETWORKS["resnet20_cifar10"]
    Path("model.onnx").symlink_to(SHARED / "models" / "resnet20_cifar10.onnx")
    np.save("calib.npy", network.inputs(network.images("train", 150)[0]))
    pixels, labels = network.images("test", 100)
    np.save("test.npy", network.inputs(pixels))
    np.save("labels.npy", labels)
    lines = commands("tutorial")
    assert {line.split()[0] for line in lines} >= {"inspect", "plan", "compare", "bench", "sweep"}
    for line in lines:
        assert cli.main(shlex.split(line)) == 0, line
    assert "pruned before (1 of 1)" in capsys.readouterr().out
    assert Path("report.html").stat().st_size > 10_000
    assert len(list(Path("frontier").glob("*.onnx"))) == 4


def through_sample_op() -> onnx.ModelProto:
    """A perceptron with an operator in the middle that has no rule."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 6), "b1": (16,), "w2": (4, 16), "b2": (4,)}
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], transB=1),
        helper.make_node("SampleOp", ["a"], ["h"], domain="com.microsoft"),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["y"], transB=1),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size])]
        for name, size in (("x", 6), ("y", 4))
    ]
    graph = helper.make_graph(nodes, "sample", *ends, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_the_operator_of_extending_passes_channels(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))
    monkeypatch.delitem(SHAPED_LIKE_FIRST_INPUT, ("com.microsoft", "SampleOp"), raising=False)
    (example,) = [block for block in blocks("extending", "python") if "SampleOp" in block]
    exec(example, {})
    model = through_sample_op()
    x = np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)
    result = prune(model, {"x": x}, Target("macs", 0.5), options=Options(latency=False))
    (group,) = result.report.groups
    assert len(group.keep) == 8
    # six inputs: eight hidden units of a linear network span all that sixteen do
    expected, found = (Session(m).run({"x": x})[0] for m in (model, result.model))
    np.testing.assert_allclose(found, expected, atol=1e-3)
    del SHAPED_LIKE_FIRST_INPUT["com.microsoft", "SampleOp"]


def test_the_criterion_of_extending_chooses_channels(monkeypatch):
    monkeypatch.chdir(ROOT)
    (example,) = [block for block in blocks("extending", "python") if "class Read" in block]
    names: dict[str, object] = {"__name__": "example"}
    exec(example, names)
    result = names["result"]
    assert result.report.after.macs <= 0.5 * result.report.before.macs  # type: ignore[attr-defined]
    assert result.report.outputs[0].agreement > 0.9  # type: ignore[attr-defined]
