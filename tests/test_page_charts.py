"""Charts of the page: marks at round values, lines through the record's points."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_reports import report

from onnxprune.page import wording
from onnxprune.page.axes import Scale, even_ticks, thinned
from onnxprune.page.curves import figures
from onnxprune.page.latency import latency
from onnxprune.page.layers import layers
from onnxprune.page.svg import element
from onnxprune.saved_report import SavedReport


def numbers(svg: str, tag: str, classes: str, *names: str) -> list[list[float]]:
    """These attributes of the elements of a kind."""
    found = re.findall(rf'<{tag} ([^>]*class="{classes}"[^>]*)>', svg)
    return [[float(re.search(rf'(?<!\w){n}="([^"]+)"', each)[1]) for n in names] for each in found]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 9))
def test_even_ticks_are_round_and_inside(low, width, count):
    ticks = even_ticks(low, low + width, count)
    slack = 1e-6 * (abs(low) + width)
    assert len(ticks) <= count + 1
    assert all(low - slack <= tick <= low + width + slack for tick in ticks)
    steps = [after - before for before, after in pairwise(ticks)]
    assert not steps or max(steps) - min(steps) <= slack


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.5, 64, [0.5, 2, 8, 32]),
        (1e-6, 1, [1e-6, 1e-4, 1e-2, 1]),
        (0.3, 7, [0.5, 1, 2, 5]),
    ],
)
def test_logarithmic_ticks(low, high, ticks):
    base = 2 if high == 64 else 10
    assert Scale(low, high, 100, 0, base).ticks(4) == pytest.approx(ticks)


@pytest.mark.parametrize("base", [None, 10])
def test_a_scale_goes_from_end_to_end(base):
    scale = Scale(1, 100, 200, 0, base)
    assert (scale(1), scale(100)) == (200, 0)
    assert scale(1e9) == 0
    assert scale(10) == pytest.approx(100 if base else 200 - 200 * 9 / 99)


def test_a_thinned_line_keeps_its_ends_and_its_peaks():
    points = [(x / 100, 5.0) for x in range(1000)]
    points[537] = (5.37, -40.0)
    kept = thinned(points)
    assert len(kept) <= 2 * 11
    assert (5.37, -40.0) in kept
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_text_in_elements_is_escaped():
    made = element("text", '<b>"', title='"><script>', x=-0.01)
    assert made == '<text title="&#34;&gt;&lt;script&gt;" x="0">&lt;b&gt;&#34;</text>'


def test_bars_are_as_high_as_layers_are_wide():
    record = report((8, 16, 4))
    record["layers"][2] |= {"kept": 0}
    chart = layers(SavedReport.of(record)).chart
    ((base,),) = numbers(chart, "line", "axis", "y1")
    for classes, wanted in (("before", [8, 16, 4]), ("after", [4, 8, 0])):
        bars = numbers(chart, "rect", classes, "y", "height")
        heights = [height for _, height in bars]
        assert [height / heights[1] * wanted[1] for height in heights] == pytest.approx(wanted)
        assert [y + height for y, height in bars] == pytest.approx([base] * 3)
    assert "/layer0/layer0.1/conv/Conv: 16 → 8 channels (50.0% kept)" in chart


def test_widths_far_apart_are_on_a_logarithmic_axis():
    chart = layers(SavedReport.of(report((16, 32, 1280)))).chart
    heights = [height for (height,) in numbers(chart, "rect", "before", "height")]
    assert heights[1] - heights[0] == pytest.approx((heights[2] - heights[0]) / 6.32, abs=0.3)
    assert "channels, logarithmic" in chart


def test_the_histograms_count_every_run_once():
    saved = SavedReport.of(report())
    times = latency(saved)
    assert times is not None
    for name in ("before", "after"):
        runs = re.findall(rf"{name}: (\d+) runs of", times.chart)
        beyond = times.beyond if name == "before" else 0
        assert sum(map(int, runs)) == 50 - beyond
    left, right = (
        min(x for (x,) in numbers(times.chart, "rect", name, "x")) for name in ("after", "before")
    )
    assert left < right  # 1 to 2 ms became of 2 to 3 ms


def test_the_chosen_count_lies_on_its_curve():
    (group,) = SavedReport.of(report((16,))).groups
    for figure, what in zip(figures(group)[:2], ("error", "divergence"), strict=True):
        ((at, value),) = numbers(figure.chart, "circle", "choice", "cx", "cy")
        (points,) = re.findall(r'points="([^"]+)" class="line after"', figure.chart)
        places = [tuple(map(float, point.split(","))) for point in points.split()]
        assert (at, value) in places
        ((line,),) = numbers(figure.chart, "line", "chosen", "x1")
        assert line == at
        price = getattr(group.price, what)
        assert f"8 channels kept: {what} {wording.small(price)}" in figure.chart


def test_without_sensitivity_no_divergence_is_drawn():
    (group,) = SavedReport.of(report((16,), divergence=False)).groups
    titles = [figure.title for figure in figures(group)]
    assert titles == ["Error of its readers", "Cumulative variance", "Spectrum"]


def test_components_are_marked_where_they_reach_the_variance():
    (group,) = SavedReport.of(report((16,))).groups
    variance = figures(group)[2]
    for level in (0.9, 0.99, 0.999):
        count = group.spectrum.needed(1 - level)
        assert f"{count} principal components carry {100 * level:g}% of the variance" in (
            variance.chart
        )


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        (wording.ranges([0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8"),
        (wording.ranges([]), ""),
        (wording.small(0.0), "0"),
        (wording.small(6.1e-5), "6.1e-5"),
        (wording.small(1e-6), "1e-6"),
        (wording.small(None), "-"),
        (wording.percent(0.0004), "0.04%"),
        (wording.milliseconds(0.0347), "0.0347 ms"),
        (wording.milliseconds(1234.5), "1,234.5 ms"),
        (wording.seconds(3725), "1 h 2 min"),
        (wording.factor(100, 99.9, "fewer", "more"), "the same"),
        (wording.factor(100, 200, "faster", "slower"), "2.00x slower"),
        (wording.factor(0, 1, "fewer", "more"), ""),
        (wording.shown({"budget": "30s", "augment": []}), "budget 30s, augment -"),
        (wording.shown(True), "yes"),
        (wording.path("/a/b<"), "/<wbr>a/<wbr>b&lt;"),
    ],
)
def test_numbers_are_said_shortly(made, wanted):
    plain = made.replace("\N{EN DASH}", "-").replace("\N{MULTIPLICATION SIGN}", "x")
    assert plain == wanted
