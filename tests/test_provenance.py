"""What a pruned model says of itself: true, complete, beside the model's own metadata, kept."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from command_line import QUICK, run, working_folder
from small_networks import MODELS, digits
from small_reports import SETTINGS

from onnxprune import Options, Pruner, Target
from onnxprune.cli import main
from onnxprune.comparison import OutputDistance
from onnxprune.criteria import CRITERIA, Settings
from onnxprune.metadata import KEYS, PREFIX, PREVIOUS, RESERVED, own_entries, records, stamp
from onnxprune.plan import Keep, Plan
from onnxprune.provenance import record_of
from onnxprune.report import Report
from onnxprune.report_parts import Footprint, Run
from onnxprune.rewrite import digest

SLICED = Options(allocation="uniform", criterion="l2", latency=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    return working_folder(tmp_path, monkeypatch)


def said(path: str) -> dict[str, str]:
    return {e.key.removeprefix(PREFIX): e.value for e in onnx.load(path).metadata_props}


def test_the_record_is_what_was_asked_and_measured(folder, capsys):
    assert run(*QUICK, "--json", "--plan", "plan.json") == 0
    report, found = json.loads(capsys.readouterr().out), said("out.onnx")
    source = Path("in.onnx").read_bytes()
    assert found["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert found["source_graph_sha256"] == digest(onnx.load("in.onnx"))
    assert found["version"] == report["settings"]["versions"]["onnxprune"]
    assert found["targets"] == "macs=0.5"
    assert found["method"] == "onnxprune"
    assert found["samples"] == "fit=45, tune=9, held_out=6"
    assert found["plan_sha256"] == Plan.load("plan.json").fingerprint
    for key, side in (("source_macs", "before"), ("macs", "after")):
        assert int(found[key]) == report[side]["macs"]
    for key, side in (("source_params", "before"), ("params", "after")):
        assert int(found[key]) == report[side]["params"]
    error = report["outputs"][0]["relative_error"]
    assert float(found["relative_error"]) == pytest.approx(error, rel=1e-3)
    assert {PREFIX + key for key in found} == set(KEYS)
    assert report["after"]["bytes"] == Path("out.onnx").stat().st_size


def test_other_settings_have_another_digest(folder):
    made = []
    for number, words in enumerate(((), (), ("--seed", 3), ("--no-recovery",))):
        assert run(*QUICK, "-q", *words, out=f"{number}.onnx") == 0
        made.append(said(f"{number}.onnx")["settings_sha256"])
    assert made[0] == made[1]
    assert len(set(made)) == 3


def test_a_criterion_without_a_name_has_one_digest():
    class Mine:
        def rank(self, group):
            return CRITERIA["l2"](Settings()).rank(group)

    made = set()
    for criterion in (Mine(), Mine()):
        options = replace(SLICED, criterion=criterion)
        result = Pruner(MODELS / "mlp_digits.onnx", {"input": digits()[:60]}, options).prune()
        made.add(result.model.SerializeToString(deterministic=True))
        assert " at 0x" in str(result.report.settings["criterion"])
    assert len(made) == 1


def test_a_model_that_is_no_file_has_no_digest_of_one():
    model = onnx.load(MODELS / "mlp_digits.onnx")
    pruned = Pruner(model, {"input": digits()[:60]}, SLICED).prune([Target("macs", 0.5)]).model
    (record,) = records(pruned)
    assert PREFIX + "source_sha256" not in record
    assert record[PREFIX + "source_graph_sha256"] == digest(model)


def test_a_model_pruned_again_keeps_what_was_said_before(folder, capsys):
    model = onnx.load("in.onnx")
    model.metadata_props.add(key="stride", value="32")
    onnx.save(model, "in.onnx")
    names = ["in.onnx", "a.onnx", "b.onnx", "c.onnx"]
    for source, out in itertools.pairwise(names):
        assert run("--target", "macs=0.8", *QUICK[2:], "-q", model=source, out=out) == 0
    chain = records(onnx.load("c.onnx"))
    assert [own_entries(onnx.load(name)) for name in names] == [[("stride", "32")]] * 4
    assert chain[0] == records(onnx.load("a.onnx"))[0]
    assert chain[:2] == records(onnx.load("b.onnx"))
    for name, record in zip(names, chain, strict=False):
        written = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert record[PREFIX + "source_sha256"] == written
    for older, newer in itertools.pairwise(chain):
        assert newer[PREFIX + "source_macs"] == older[PREFIX + "macs"]


def test_inspect_shows_the_chain(folder, capsys):
    assert run("--target", "macs=0.8", *QUICK[2:], "-q", out="a.onnx") == 0
    assert run("--target", "macs=0.7", *QUICK[2:], "-q", model="a.onnx", out="b.onnx") == 0
    assert main(["inspect", "b.onnx"]) == 0
    shown = capsys.readouterr().out
    assert "pruned before (1 of 2):" in shown
    assert "  targets              macs=0.8\n" in shown
    assert "  targets              macs=0.7\n" in shown
    assert main(["inspect", "b.onnx", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["provenance"]
    assert found == records(onnx.load("b.onnx"))
    assert main(["inspect", "in.onnx"]) == 0
    assert "pruned before" not in capsys.readouterr().out


def test_apply_claims_only_what_holds(folder):
    assert run(*QUICK, "-q", "--plan", "plan.json") == 0
    document = json.loads(Path("plan.json").read_text(encoding="utf-8"))
    origin = {"version", "source_sha256", "source_graph_sha256", "plan_sha256", "recovered_layers"}
    assert main(["apply", "in.onnx", "plan.json", "sliced.onnx"]) == 0
    assert set(said("sliced.onnx")) == origin
    assert said("sliced.onnx")["recovered_layers"] == "0"
    edited = json.loads(json.dumps(document))
    edited["edits"][0]["keep"].pop(0)
    Path("edited.json").write_text(json.dumps(edited), encoding="utf-8")
    assert main(["apply", "in.onnx", "edited.json", "edited.onnx"]) == 0
    assert set(said("edited.onnx")) == origin
    assert said("edited.onnx")["plan_sha256"] != said("out.onnx")["plan_sha256"]
    del document["record"]
    Path("bare.json").write_text(json.dumps(document), encoding="utf-8")
    assert main(["apply", "in.onnx", "bare.json", "bare.onnx", "--weights", "plan.npz"]) == 0
    assert set(said("bare.onnx")) == origin
    assert said("bare.onnx")["plan_sha256"] == said("out.onnx")["plan_sha256"]


@pytest.mark.parametrize("text", ["not JSON", '{"a": 1}', "[7]"])
def test_what_cannot_be_read_of_former_prunings_is_not_lost(text):
    model = onnx.ModelProto()
    model.metadata_props.add(key=PREVIOUS, value=text)
    stamp(model, {PREFIX + "version": "9"})
    assert records(model) == [{PREVIOUS: text}, {PREFIX + "version": "9"}]


def test_nothing_is_written_without_a_record():
    model = onnx.ModelProto()
    model.metadata_props.add(key="onnxprune.note", value="the user's")
    stamp(model, {})
    assert len(model.metadata_props) == 1
    stamp(model, {PREFIX + "version": "9"})
    assert own_entries(model) == [("onnxprune.note", "the user's")]


def test_a_record_is_no_larger_than_what_is_reserved():
    targets = [f"{kind}=0.123456" for kind in ("macs", "params", "size", "latency", "error")]
    settings = SETTINGS | {"method": "decorrelated", "target": targets}
    samples = dict.fromkeys(("fit", "tune", "choose", "held_out"), 10**7)
    huge = Footprint(10**12, 10**15, 10**12, None)
    distance = OutputDistance("y", scores=False)
    distance.add(np.full((2, 4), 0.1), np.full((2, 4), 1 / 7))
    run = Run(None, "m.onnx", {}, "", 0.0, "")
    nothing: list[object] = []
    parts = (None, None, *[nothing] * 5)
    report = Report(settings, run, samples, huge, huge, [distance], [], *parts)
    plan = Plan("a" * 64, (Keep("g", tuple(np.arange(500).tolist()), 1000),))
    model = onnx.ModelProto()
    stamp(model, record_of(report, plan, 10_000, "b" * 64))
    assert 700 < model.ByteSize() <= RESERVED
