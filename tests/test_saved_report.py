"""Reports read back: what was saved, or one error that says what is wrong."""

from __future__ import annotations

import json

import pytest
from small_reports import changed, full_report, report, without

from onnxprune.errors import ReportError
from onnxprune.saved_report import SavedReport

GROUP = ("groups", 1)


def test_what_was_saved_is_read(tmp_path):
    record = report()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    found = SavedReport.load(path)
    assert found.settings == record["settings"]
    assert (found.macs, found.params, found.share) == (0.5, 0.4, 0.125)
    for group, given in zip(found.groups, record["groups"], strict=True):
        assert (group.name, group.size) == (given["name"], given["size"])
        assert list(group.keep) == given["keep"]
        assert [vars(price) for price in group.curve] == given["curve"]
        assert group.price.error == given["error"]
        assert vars(group.spectrum) == given["spectrum"]


def test_all_parts_are_read():
    record = full_report()
    found = SavedReport.of(record)
    assert vars(found.run) == record["run"]
    assert found.before.to_dict() == record["before"]
    assert found.after.to_dict() == record["after"]
    assert [group.to_dict() for group in found.groups] == record["groups"]
    assert [vars(layer) for layer in found.layers] == record["layers"]
    assert [section.to_dict() for section in found.sections] == record["sections"]
    assert [vars(frozen) for frozen in found.frozen] == record["frozen"]
    assert found.refinement is not None
    assert found.refinement.to_dict() == record["refinement"]
    assert found.metric is not None
    assert vars(found.metric) == record["metric"]
    assert [output.relative_error for output in found.outputs] == [0.0681, 2 * 0.0681]
    assert [output.agreement for output in found.outputs] == [0.9375, None]
    assert [check.holds for check in found.targets] == [True, False]
    assert found.targets[0].reached_text == "49.5%"
    assert (found.notes, found.samples) == (record["notes"], record["samples"])


def test_a_report_whose_groups_all_went_with_sections_is_one():
    assert SavedReport.of(changed(report(), "groups", to=[])).groups == ()


def test_a_model_without_macs_keeps_all_of_them():
    assert SavedReport.of(changed(report(), "before", "macs", to=0)).macs == 1.0


@pytest.mark.parametrize(
    ("record", "part"),
    [
        ([1, 2], "not a report of onnxprune"),
        ({"format": 2, "edits": []}, "not a report of onnxprune"),
        (without(report(), *GROUP, "spectrum"), "has no spectrum: the report is of an older"),
        (without(report(), "share"), "'share'"),
        (without(report(), *GROUP, "curve"), "'curve'"),
        (changed(report(), "groups", to={"a": 1}), "run again with --report"),
        (changed(report(), *GROUP, "size", to=7), "spectrum of other lengths"),
        (changed(report(), *GROUP, "spectrum", "pivots", to=[1.0]), "spectrum of other lengths"),
        (changed(report(), *GROUP, "spectrum", "pivots", 0, to=-1.0), "-1.0 stands where"),
        (changed(report(), *GROUP, "spectrum", "pivots", 0, to=float("inf")), "inf stands where"),
        (changed(report(), *GROUP, "spectrum", "pivots", 0, to=10**400), "OverflowError"),
        (changed(report(), *GROUP, "spectrum", "pivots", 0, to=None), "TypeError"),
        (changed(report(), *GROUP, "spectrum", "more", to=[]), "more"),
        (changed(report(), *GROUP, "curve", to=[]), "does not price the 8 channels"),
        (changed(report(), *GROUP, "curve", 3, "count", to=99), "does not price the 8 channels"),
        (changed(report(), "before", to=None), "TypeError"),
        (without(report(), "run"), "'run'"),
        (changed(report(), "before", "latency_ms", "durations", to=[-1.0]), "-1.0 stands where"),
        (changed(report(), "after", "params", to=1.5), "1.5 stands where a whole number"),
        (changed(report(), "layers", 0, "kept", to=-1), "-1 stands where"),
        (changed(report(), "notes", to="one"), "'one' stands where a list should"),
        (changed(report(), *GROUP, "consumers", to={"fc": None}), "TypeError"),
        (without(report(), "settings", "moments"), "'moments'"),
        (changed(report(), "settings", "cutoff", to="much"), "'much'"),
    ],
)
def test_what_is_no_report_is_refused(record, part):
    with pytest.raises(ReportError) as refused:
        SavedReport.of(record)
    assert part in str(refused.value)


@pytest.mark.parametrize("content", [b"hello", b"", b"\xff\xfe", b'{"groups": [NaN]}'])
def test_a_file_without_json_is_refused_by_its_name(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"broken\.json: not readable as JSON"):
        SavedReport.load(path)


def test_a_missing_file_is_refused_by_its_name(tmp_path):
    with pytest.raises(ReportError, match=r"missing\.json: .*--report"):
        SavedReport.load(tmp_path / "missing.json")
