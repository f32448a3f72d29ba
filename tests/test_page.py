"""The page of a report: safe whatever names say, complete, and made of the record's numbers."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from small_reports import HOSTILE, changed, full_report, report

from onnxprune.page import page, write_page
from onnxprune.saved_report import SavedReport

MANY = tuple([96, 160, 320, 1280, 64, 256] * 8)
LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "ping", "background"}
INLINE = {"code", "span", "strong", "em", "time", "wbr", "a", "text"}
VOID = {"meta", "br", "wbr", "input", "link", "hr", "img"}


class Document(HTMLParser):
    """Elements of a page, in order, each with its attributes and the text inside it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str], list[str]]] = []
        self._open: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == [], "an element is not closed"

    def handle_starttag(self, tag, attrs):
        element = tag, {name: value or "" for name, value in attrs}, []
        self.elements.append(element)
        if tag not in INLINE:
            self.handle_data(" ")
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self._open:
            text.append(data)

    def of(self, tag: str, **attributes: str) -> list[tuple[dict[str, str], str]]:
        """Attributes and text of the elements of a kind."""
        return [
            (found, " ".join("".join(text).split()))
            for kind, found, text in self.elements
            if kind == tag and all(found.get(name) == value for name, value in attributes.items())
        ]

    def values(self, name: str) -> list[str]:
        return [found[name] for _, found, _ in self.elements if name in found]


def made(record) -> Document:
    return Document(page(SavedReport.of(record)))


def rows(document: Document) -> list[list[str]]:
    """What is sorted by in every row of the table of groups."""
    cells: list[list[str]] = []
    for tag, found, _ in document.elements:
        if tag == "tr" and "data-group" in found:
            cells.append([])
        elif tag in ("td", "th") and "data-value" in found:
            cells[-1].append(found["data-value"])
    return cells


def test_names_are_shown_and_never_run():
    document = made(full_report())
    assert len(document.of("script")) == len(document.of("style")) == 1
    assert not [name for _, found, _ in document.elements for name in found if name[:2] == "on"]
    assert {HOSTILE} == {text for _, text in document.of("h1")}
    shown = [text for _, text in document.of("code") if HOSTILE in text]
    assert len(shown) >= 9  # group, details, layer, consumers, makers, sections, outputs, command
    titles = [text for _, text in document.of("title") if HOSTILE in text]
    assert any("16" not in text for text in titles)


@pytest.mark.parametrize(
    "hostile", ["</style><b>", "</script><b>", "]]>", "{{ 7 * 7 }}", "\x1b[2J\0"]
)
def test_no_name_leaves_its_place(hostile):
    calm, found = (made(full_report(name=name)).elements for name in ("calm", hostile))
    # names may be broken behind their slashes
    tags = [[tag for tag, _, _ in elements if tag != "wbr"] for elements in (calm, found)]
    assert tags[0] == tags[1]


def test_the_browser_may_load_and_send_nothing():
    text = page(SavedReport.of(full_report()))
    document = Document(text)
    (policy,) = [
        found["content"]
        for found, _ in document.of("meta")
        if found.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
        assert "url(" not in inside
        assert "@import" not in inside
    assert set(rules) == {"default-src", "base-uri", "form-action", "style-src", "script-src"}
    assert all(value.startswith("#") for name in LOADING for value in document.values(name))
    assert document.values("style") == []
    assert text.index("Content-Security-Policy") < text.index("<style>")


@pytest.mark.parametrize("record", [full_report(), report(MANY[:9])], ids=["full", "plain"])
def test_links_and_labels_lead_somewhere(record):
    document = made(record)
    ids = document.values("id")
    assert len(ids) == len(set(ids))
    referred = [
        name
        for attribute in ("aria-labelledby", "aria-controls", "for")
        for value in document.values(attribute)
        for name in value.split()
    ]
    assert {*referred, *(link[1:] for link in document.values("href"))} <= set(ids)
    texts = {found["id"]: "".join(text) for _, found, text in document.elements if "id" in found}
    landmarks = [
        found.get("aria-label") or texts[found["aria-labelledby"]]
        for tag, found, _ in document.elements
        if tag == "section" or found.get("role") == "region"
    ]
    assert len(landmarks) == len(set(landmarks))
    levels = [int(tag[1]) for tag, _, _ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False))
    assert [found["lang"] for found, _ in document.of("html")] == ["en-GB"]
    for tag in ("header", "main", "footer", "nav"):
        assert len(document.of(tag)) == 1
    assert all(found.get("aria-label") for found, _ in document.of("svg", role="img"))
    assert all(found.get("scope") for found, _ in document.of("th"))


def test_the_table_has_what_the_record_says_of_every_group():
    record = report((8, 16, 4), divergence=False)
    found = rows(made(record))
    for at, (cells, group) in enumerate(zip(found, record["groups"], strict=True), start=1):
        number, name, size, kept, share, macs, error, divergence = cells
        assert (int(number), name) == (at, group["name"])
        assert (int(size), int(kept)) == (group["size"], group["kept"])
        assert (float(share), float(macs)) == (0.5, group["macs_share"])
        assert float(error) == group["error"]
        assert divergence == ""
    assert float(rows(made(report()))[0][-1]) == report()["groups"][0]["divergence"]


def test_consumers_have_their_errors_before_and_after_recovery():
    document = made(full_report(name="/first/Conv"))
    text = [text for _, text in document.of("tr")]
    assert "/first/Conv 0.3 0.0125 24.0\N{MULTIPLICATION SIGN} /first/Conv" in text
    assert "/silent/Conv \N{EN DASH} \N{EN DASH} slice" in text


def test_the_summary_has_costs_effects_and_targets():
    record = full_report(name="net")
    latency = [record[when]["latency_ms"] for when in ("before", "after")]
    cards = [text for found, text in made(record).of("li") if found.get("class") == "card"]
    assert "Parameters 40.0% kept 2.50\N{MULTIPLICATION SIGN} fewer before 1,000 after 400" in cards
    assert "MACs 50.0% kept 2.00\N{MULTIPLICATION SIGN} fewer before 2,000 after 1,000" in cards
    (times,) = [card for card in cards if card.startswith("Latency")]
    for name in ("p90", "p99"):
        before, after = (f"{timed[name]:.3f} ms" for timed in latency)
        assert f"{name} {before} \N{RIGHTWARDS ARROW} {after}" in times
    assert any(card.startswith("Relative error 0.136") and "boxes" in card for card in cards)
    assert any(card.startswith("Same top class 93.8%") for card in cards)
    assert "net 0.8999 after before 0.9100 change -0.0101" in cards
    (targets,) = [card for card in cards if card.startswith("Targets")]
    assert "macs=0.5 ✓ holds asked at most 50.0% reached 49.5%" in targets
    assert "drop=1% ✗ missed, within tolerance" in targets


def test_the_run_can_be_made_again():
    record = full_report(name="net")
    document = made(record)
    facts = [text for _, text in document.of("dd")]
    assert [text for _, text in document.of("pre")] == [record["run"]["command"]]
    assert set(record["run"]["digests"].values()) <= {text for _, text in document.of("code")}
    for fact in ("2026-01-31 12:34:56+01:00", "1 min 23 s", "7", "cpu", "1.2.3", "Linux 6, x86_64"):
        assert fact in facts
    called = made(changed(record, "run", "command", to=None))
    assert called.of("pre") == []
    assert "Called from Python." in [text for _, text in called.of("p")]


def test_what_is_missing_leaves_no_hole():
    record = report()
    record["before"]["latency_ms"] = None
    document = made(record)
    assert document.of("section", id="latency") == []
    assert "#latency" not in document.values("href")
    assert document.of("section", id="refinement") == []
    bare = made(changed(changed(record, "groups", to=[]), "layers", to=[]))
    assert bare.of("table", id="group-table") == []
    assert "No channel group is left" in bare.of("section", id="groups")[0][1]
    untimed = full_report()
    for when in ("before", "after"):
        untimed[when]["latency_ms"]["durations"] = []
    assert "Histogram" not in page(SavedReport.of(untimed))


def test_groups_that_carry_nothing_are_shown():
    record = report((4,))
    (group,) = record["groups"]
    group["spectrum"] = {"pivots": [0.0] * 4, "components": [0.0] * 4}
    for price in group["curve"]:
        price |= {"error": 0.0, "divergence": 0.0}
    text = page(SavedReport.of(record))
    assert "Error is 0 at every count." in text
    assert "Its channels are 0 on all samples." in text


def test_the_same_record_makes_the_same_bytes(tmp_path):
    saved = SavedReport.of(full_report())
    for name in ("one.html", "two.html"):
        write_page(saved, tmp_path / name)
    one, two = (tmp_path / name for name in ("one.html", "two.html"))
    assert one.read_bytes() == two.read_bytes() == page(saved).encode("utf-8")


def test_a_big_network_makes_a_page_that_can_be_mailed():
    assert len(page(SavedReport.of(report(MANY)))) < 1_500_000
