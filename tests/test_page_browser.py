"""The page as a browser shows it: nothing fails, nothing is cut off, everything can be read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_reports import full_report

from onnxprune.page import write_page
from onnxprune.saved_report import SavedReport

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CHECKS = (Path(__file__).parent / "page_checks.js").read_text(encoding="utf-8")
WIDTHS = (1280, 390)
SIZES = tuple([16] * 10 + [32] * 10 + [64] * 10)
LONG = "/model/encoder/blocks.17/attention/" + "self_attention_projection_of_queries/" * 3 + "Conv"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A page of many groups, of one name that is hostile and one that is long."""
    record = full_report(SIZES)
    record["groups"][3] |= {"name": LONG, "divergence": None}
    for price in record["groups"][3]["curve"]:
        price["divergence"] = None
    record["layers"][3]["name"] = LONG
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(SavedReport.of(record), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


class Opened:
    """The page in a window, and everything that went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", lambda request: self.complaints.append(request.url))
        self.page.goto(address)

    def check(self, name: str) -> Any:
        return self.page.evaluate(f"{CHECKS.strip()}.{name}()")

    def column(self, at: int) -> list[str]:
        """What is sorted by in a column of the rows that show, from top to bottom."""
        return self.page.evaluate(
            "at => [...document.querySelectorAll('#group-rows tr')].filter(r => !r.hidden)"
            ".map(r => r.cells[at].dataset.value)",
            at,
        )

    def colours(self) -> tuple[str, str]:
        return tuple(
            self.page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.body).color]"
            )
        )


@pytest.fixture
def opened(browser, address) -> Iterator[Opened]:
    found = Opened(browser, address)
    yield found
    found.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_whole_and_can_be_read(browser, address, width, scheme):
    shown = Opened(browser, address, width, color_scheme=scheme)
    page = shown.page
    page.evaluate("document.querySelectorAll('details').forEach((d, i) => { d.open = i < 4; })")
    assert shown.requests == [address]
    assert shown.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for fault in ("wide", "nameless", "unreachable", "doubled", "small"):
        assert shown.check(fault) == [], fault
    contrasts = shown.check("contrasts")
    assert len(contrasts) > 300
    assert [entry for entry in contrasts if entry[0] < 4.5] == []
    assert [entry for entry in shown.check("shapes") if entry[0] < 3] == []
    assert page.title() != "owned"
    shown.context.close()


def test_a_fault_would_be_seen(opened):
    opened.page.evaluate(
        """() => {
            const box = document.createElement("div");
            box.innerHTML = '<a id="main" href="#x"></a><p>faint</p><button>x</button>';
            document.body.append(box);
            document.styleSheets[0].insertRule("body > div > p { color: #999; width: 3000px; }");
            document.styleSheets[0].insertRule("body > div > button { height: 12px; }");
        }"""
    )
    assert any("faint" in text for ratio, text in opened.check("contrasts") if ratio < 4.5)
    for fault, count in (("wide", 1), ("nameless", 1), ("doubled", 1), ("small", 1)):
        assert len(opened.check(fault)) == count, fault


def head(opened: Opened, name: str) -> Any:
    return opened.page.locator("#group-table thead th").filter(has_text=name)


def test_a_click_sorts_and_another_turns_the_order(opened):
    for name, column in (("channels", 2), ("MACs share", 5), ("error", 6)):
        heading = head(opened, name)
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        values = [float(value) for value in opened.column(column)]
        assert values == sorted(values, reverse=True)
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        assert [float(value) for value in opened.column(column)] == sorted(values)
        assert opened.page.locator("#group-table th[aria-sort]").count() == 1
    places = opened.page.evaluate(
        "[...document.querySelectorAll('#group-details details')].map(d => d.dataset.group)"
    )
    assert places == opened.column(0)


def test_what_has_no_value_comes_last_in_either_order(opened):
    button = head(opened, "divergence").get_by_role("button")
    for _ in range(2):
        button.click()
        *values, last = opened.column(7)
        assert last == ""
        assert "" not in values


def test_the_keyboard_sorts_by_name(opened):
    heading = head(opened, "group")
    heading.get_by_role("button").focus()
    opened.page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    first = opened.column(1)
    opened.page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert opened.column(1) == first[::-1]
    numbered = [name for name in first if name.startswith("/layer")]
    assert numbered.index("/layer2/layer2.0/conv/Conv") < numbered.index(
        "/layer7/layer7.0/conv/Conv"
    )


def test_filtering_shows_what_fits_and_says_how_much(opened):
    page = opened.page
    page.get_by_label("Filter by name").fill("LAYER4 conv")
    names = opened.column(1)
    assert names == [f"/layer4/layer4.{at}/conv/Conv" for at in range(4)]
    assert page.locator("#filtered").inner_text() == f"4 of {len(SIZES)} shown"
    assert page.locator("#group-details details:visible").count() == 4
    page.get_by_label("Filter by name").fill("nowhere")
    assert opened.column(1) == []
    page.get_by_label("Filter by name").fill("")
    assert len(opened.column(1)) == len(SIZES)
    assert page.locator("#filtered").inner_text() == ""


def test_the_button_changes_the_colours_and_keeps_nothing(browser, address):
    shown = Opened(browser, address, color_scheme="light")
    light = shown.colours()
    shown.page.get_by_role("button", name="Dark colours").click()
    dark = shown.colours()
    assert dark[0] != light[0]
    assert dark[1] != light[1]
    assert [entry for entry in shown.check("contrasts") if entry[0] < 4.5] == []
    shown.page.get_by_role("button", name="Light colours").click()
    assert shown.colours() == light
    shown.page.get_by_role("button", name="Dark colours").click()
    shown.page.reload()
    assert shown.colours() == light
    shown.page.emulate_media(color_scheme="dark")
    assert shown.colours() == dark
    shown.context.close()


def test_a_link_opens_the_details_of_its_group(opened):
    page = opened.page
    page.locator("#group-rows tr:nth-child(20) a").click()
    page.wait_for_function("document.querySelector('details[data-group=\"20\"]').open")
    assert page.locator("details.group[open]").count() == 1
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.get_by_role("button", name="Open all details").click()
    assert page.locator("details.group[open]").count() == len(SIZES)
    page.get_by_role("button", name="Close all details").click()
    assert page.locator("details.group[open]").count() == 0


def test_without_scripts_everything_can_be_read(browser, address):
    shown = Opened(browser, address, java_script_enabled=False)
    page = shown.page
    assert page.locator("#group-rows tr").count() == len(SIZES)
    for control in ("#theme", "#filter", "#unfold", "#group-table button"):
        assert page.locator(control).locator("visible=true").count() == 0
    page.locator("details.group summary").first.click()
    assert page.locator("details.group figure").first.is_visible()
    shown.context.close()


def test_the_first_key_leads_to_the_report_and_focus_shows(opened):
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_paper_has_no_controls_and_is_light(browser, address):
    paper = 700  # A4 between margins, in pixels
    shown = Opened(browser, address, paper, color_scheme="dark")
    shown.page.evaluate(
        "document.querySelectorAll('details').forEach((d, i) => { d.open = i < 4; })"
    )
    shown.page.emulate_media(media="print")
    assert shown.page.evaluate("document.documentElement.scrollWidth") == paper
    assert shown.colours()[0] == "rgb(255, 255, 255)"
    for control in ("#theme", "#filter", ".contents"):
        assert not shown.page.locator(control).is_visible()
    assert [entry for entry in shown.check("contrasts") if entry[0] < 4.5] == []
    assert len(shown.page.pdf()) > 10_000
    shown.context.close()
