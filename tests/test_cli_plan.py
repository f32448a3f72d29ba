"""``onnxprune plan``: what a run would make first; and plans changed by hand, applied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import QUICK, files, run, working_folder
from small_networks import MODELS, digits, perceptron

from onnxprune import Plan, finishing
from onnxprune.cli import main
from onnxprune.metadata import RESERVED
from onnxprune.runtime import Session

SAMPLES = ("--calib", "calib.npz")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def plan(*words: object, model: str = "in.onnx") -> int:
    try:
        return main(["plan", model, *SAMPLES, *map(str, words)])
    except SystemExit as stopped:
        return int(stopped.code or 0)


def record(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_nothing_is_written_unless_it_is_asked_for(folder, capsys):
    before = files(folder)
    assert plan(*QUICK) == 0
    said = capsys.readouterr()
    assert files(folder) == before
    assert said.out.splitlines()[0].split() == ["before", "after", "kept"]
    assert "output logits: predicted relative error" in said.out
    assert "192 -> " in said.out
    assert "/7/Gemm: 10 of 10 channels (1.7% of MACs): graph output 'logits'" in said.out
    assert said.out.splitlines()[-1].startswith("nothing was written; onnxprune in.onnx OUT")
    assert plan(*QUICK, "-q", "-o", "plan.json") == 0
    assert set(files(folder)) == {*before, "plan.json"}
    assert plan(*QUICK, "-o", "plan.json") == 0
    assert "plan.json holds no recovered weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ("macs=0.5",),
        pytest.param(("error=0.05",), marks=pytest.mark.slow),
        pytest.param(("params=0.4", "size=0.5", "error=0.9"), marks=pytest.mark.slow),
        pytest.param(("drop=5%",), marks=pytest.mark.slow),
    ],
)
def test_it_is_what_the_run_makes_first(folder, capsys, monkeypatch, words):
    np.savez("calib.npz", input=digits()[:200])
    np.save("labels.npy", np.load(MODELS / "digits_test.npz")["labels"][:200])
    made = []

    def noted(self: finishing.Finisher, *given: Any) -> Any:
        made.append(finish(self, *given))
        return made[-1]

    finish = finishing.Finisher.finish
    flags = [w for word in words for w in ("--target", word)]
    flags += ["--labels", "labels.npy"] * (words == ("drop=5%",))
    assert plan(*flags, "-o", "plan.json", "--json") == 0
    found = record(capsys)
    monkeypatch.setattr(finishing.Finisher, "finish", noted)
    run(*flags, "-q")
    first = made[0]
    assert Plan.load("plan.json") == first.plan
    after = first.measured.after
    size = found["after"].pop("bytes")  # of the file, with the record that it carries
    assert 0 < size - after.bytes <= RESERVED
    assert found["after"] == {"params": after.params, "macs": after.macs}
    assert [row["target"] for row in found["targets"]] == list(words)
    assert {g["name"]: g["keep"] for g in found["groups"] if g["kept"] < g["size"]} == {
        edit.group: list(edit.keep) for edit in first.plan.keeps
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_digits", "vgg_digits"])
def test_the_prediction_is_near_what_is_measured(name, folder, capsys):
    words = [str(MODELS / f"{name}.onnx"), "--calib", str(MODELS / "digits_calib.npz")]
    assert main(["plan", *words, "--target", "macs=0.5", "--json"]) == 0
    found = record(capsys)
    assert main([words[0], "out.onnx", *words[1:], "--target", "macs=0.5", "--json"]) == 0
    measured = record(capsys)
    assert abs(found["after"].pop("bytes") - measured["after"]["bytes"]) <= 4  # digits in the file
    assert {k: measured["after"][k] for k in ("params", "macs")} == found["after"]
    (predicted,), (output,) = found["predicted"]["outputs"], measured["outputs"]
    assert predicted["relative_error"] == pytest.approx(output["relative_error"], rel=0.6)


@pytest.mark.slow
def test_sections_that_would_go_are_said_and_recovered(folder, capsys):
    words = ["--calib", str(MODELS / "digits_calib.npz"), "--num-samples", "120"]
    words += ["--target", "macs=0.8", "--sections", "--align", "64"]  # nothing else can go
    model = str(MODELS / "resnet_digits.onnx")
    assert main(["plan", model, *words, "-o", "plan.json", "--json"]) == 0
    found = record(capsys)
    assert main([model, "out.onnx", *words, "-q", "--plan", "run.json"]) == 0
    plan = Plan.load("plan.json")
    assert plan == Plan.load("run.json")
    assert plan.drops
    assert [section["name"] for section in found["sections"]] == list(plan.drops)
    inside = {name for section in found["sections"] for name in section["groups"]}
    assert inside.isdisjoint(group["name"] for group in found["groups"])
    assert main(["apply", model, "plan.json", "again.onnx", *words[:4], "-q"]) == 0
    assert onnx.load("again.onnx").graph == onnx.load("out.onnx").graph  # notes of files differ


def test_biases_that_recovery_adds_are_counted(folder, capsys):
    onnx.save(perceptron(nodes="a = MatMul (x, w1) h = Relu(a) y = MatMul (h, w2)"), "bare.onnx")
    samples = np.random.default_rng(0).normal(1.0, 1.0, (80, 6)).astype(np.float32)
    np.savez("calib.npz", x=samples)
    words = ["--calib", "calib.npz", "--target", "macs=0.6", "--align", "1", "--json"]
    assert main(["plan", "bare.onnx", *words]) == 0
    found = record(capsys)["after"]
    assert main(["bare.onnx", "out.onnx", *words]) == 0
    after = record(capsys)["after"]
    size, expected = found.pop("bytes"), after["bytes"]
    assert abs(size - expected) <= 4  # the digits of the error that the file holds
    assert found == {name: after[name] for name in found}
    assert [node.op_type for node in onnx.load("out.onnx").graph.node].count("Add") == 1


@pytest.mark.slow
def test_time_is_predicted_where_it_is_a_target(folder, capsys):
    assert plan(*QUICK, "--json") == 0
    assert record(capsys)["predicted"]["latency_ms"] is None
    words = ("--target", "latency=0.8", "--latency-batch", 256, *QUICK[2:])
    assert plan(*words) == 0
    lines = capsys.readouterr().out.splitlines()
    (time,) = [line for line in lines if line.startswith("latency, predicted")]
    (target,) = [line.split() for line in lines if line.startswith("latency=0.8")]
    assert target[-1] == "predicted"
    assert time.split()[-1] == target[-2]


def test_a_fixed_share_has_a_plan_too(folder, capsys):
    words = ("--method", "squeeze", "--information", "0.9")
    assert plan(*words, "-q", "-o", "plan.json") == 0
    assert run(*words, "-q", "--plan", "run.json") == 0
    assert Plan.load("plan.json").edits == Plan.load("run.json").edits


def test_what_cannot_be_reached_is_said_and_leaves_no_plan(folder, capsys):
    before = files(folder)
    assert plan("--target", "size=1kB", "-o", "plan.json") == 1
    assert "file size = 0.003299 of the original (1kB) cannot be reached" in capsys.readouterr().err
    assert plan(*QUICK, "-o", "in.onnx") == 2
    assert plan("--target", "drop=1%") == 2
    assert files(folder) == before


@pytest.mark.slow
def test_a_plan_and_samples_make_what_the_run_makes(folder):
    assert run("--target", "macs=0.5", "-q", "--plan", "run.json") == 0
    assert plan("--target", "macs=0.5", "-q", "-o", "plan.json") == 0
    words = ["apply", "in.onnx", "plan.json", "again.onnx", *SAMPLES, "-q"]
    assert main(words) == 0
    assert onnx.load("again.onnx").graph == onnx.load("out.onnx").graph  # notes of files differ


def edited(change: Callable[[dict[str, Any]], object], name: str = "edited.json") -> str:
    """The plan of the folder with a change to it."""
    document = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    change(document)
    Path(name).write_text(json.dumps(document), encoding="utf-8")
    return name


def swapped(document: dict[str, Any]) -> None:
    """As many channels, but others."""
    first = document["edits"][0]
    others = sorted(set(range(first["size"])) - set(first["keep"]))
    first["keep"] = sorted([*first["keep"][1:], others[0]])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, bytes]:
    """The files of a folder with a plan and its weights, out.onnx being what they make."""
    with pytest.MonkeyPatch.context() as patch:
        folder = working_folder(tmp_path_factory.mktemp("planned"), patch)
        assert run(*QUICK, "-q", "--plan", "plan.json") == 0
        return files(folder)


@pytest.fixture
def planned(finished, tmp_path, monkeypatch) -> Path:
    """Such a folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    for name, content in finished.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_channels_chosen_by_hand_are_cut_and_recovered(planned):
    def fewer(document: dict[str, Any]) -> None:
        swapped(document)
        document["edits"][1]["keep"] = [0, 2, 3, 5, 8, 13, 21, 34, 55, 89]

    edited(fewer)
    original = Session("in.onnx").run({"input": digits()[:60]})[0]
    errors = []
    for words in ((), (*SAMPLES, "-q")):
        assert main(["apply", "in.onnx", "edited.json", "cut.onnx", *words]) == 0
        widths = [list(t.dims) for t in onnx.load("cut.onnx").graph.initializer]
        assert [10] in widths
        (made,) = Session("cut.onnx").run({"input": digits()[:60]})
        errors.append(float(np.linalg.norm(made - original)))
    sliced, recovered = errors
    assert recovered < 0.7 * sliced


def test_weights_are_not_put_on_other_channels(planned, capsys):
    """Their shapes would fit."""
    edited(swapped)
    words = ["apply", "in.onnx", "edited.json", "cut.onnx", "--weights", "plan.npz"]
    assert main(words) == 1
    assert "recovered for other channels than the plan keeps" in capsys.readouterr().err
    assert not Path("cut.onnx").exists()
    edited(lambda document: document["edits"].reverse())  # the same plan
    assert main(words) == 0
    assert Path("cut.onnx").read_bytes() == Path("out.onnx").read_bytes()


@pytest.mark.parametrize(
    ("key", "value", "part"),
    [
        ("keep", [], "keep must be sorted, without repeats and within 0..191, but it is empty"),
        ("keep", [3, 3], "but it has 3 twice"),
        ("keep", [4, 3], "but 3 follows 4"),
        ("keep", [4, 192], "but it has 192"),
        ("keep", [-1, 4], "but it has -1"),
        ("keep", [1.5, 4], "group '/1/Gemm': keep is a list of whole numbers, and size is one"),
        ("keep", "12", "keep is a list of whole numbers"),
        ("size", 200, "'/1/Gemm' of 200 units, which the model lacks; the group has 192 there"),
        ("group", "/2/Relu", "the model lacks; it has /1/Gemm, /3/Gemm, /5/Gemm"),
        ("group", "/3/Gemm", "the plan cuts group '/3/Gemm' twice; merge its edits"),
        ("type", "hold", "an edit of the unknown type 'hold'"),
    ],
)
@pytest.mark.parametrize("source", [(), SAMPLES])
def test_an_edit_that_does_not_fit_says_what_is_wrong(planned, capsys, key, value, part, source):
    edited(lambda document: document["edits"][0].update({key: value}))
    capsys.readouterr()
    before = files(planned)
    assert main(["apply", "in.onnx", "edited.json", "cut.onnx", *source]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert part in last
    assert files(planned) == before


def test_weights_come_from_one_source(planned, capsys):
    words = ["apply", "in.onnx", "plan.json", "cut.onnx", "--weights", "plan.npz", *SAMPLES]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "not allowed with argument --weights" in capsys.readouterr().err


def test_the_page_on_plans_shows_one_that_is_read(folder, tmp_path):
    page = Path(__file__).resolve().parents[1] / "docs" / "plans.md"
    text = page.read_text(encoding="utf-8")
    shown = text.split("```json\n")[1].split("```")[0]
    Path("shown.json").write_text(shown, encoding="utf-8")
    found = Plan.load("shown.json")
    assert found.keeps
    assert found.drops
    found.save("saved.json")
    assert json.loads(shown) == json.loads(Path("saved.json").read_text(encoding="utf-8"))
