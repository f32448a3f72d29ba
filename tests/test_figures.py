"""A run's figure: every panel shows the report's numbers, whatever the number of groups."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from small_reports import changed, report

from onnxprune import figures
from onnxprune.errors import ReportError
from onnxprune.panels import BEFORE, LEVEL_COLOURS, LEVELS, PANELS
from onnxprune.saved_report import SavedReport

MANY = tuple([16] * 9 + [32] * 9 + [64] * 12) * 2


def drawn(record):
    """The panels of a record's figure, by their names."""
    figure = figures.draw(SavedReport.of(record))
    return {axes.get_label(): axes for axes in figure.axes if axes.get_label() in PANELS}


def bars(axes, colour=None):
    """Heights of the bars, from left to right, of one colour or those of none of the fixed ones."""
    fixed = [to_rgb(c) for c in (BEFORE, *LEVEL_COLOURS)]
    wanted = [to_rgb(colour)] if colour else None
    found = [
        (bar.get_x() + bar.get_width() / 2, bar.get_height())
        for bar in axes.patches
        if (bar.get_facecolor()[:3] in wanted if wanted else bar.get_facecolor()[:3] not in fixed)
    ]
    places, heights = zip(*sorted(found), strict=True)
    assert np.allclose(places, np.arange(len(places)))
    return np.array(heights)


def lines(axes):
    """The lines of the groups, in their order."""
    return [line for line in axes.get_lines() if line.get_label().startswith("_/")]


def marked(line):
    """The point that a line marks."""
    (at,) = line.get_markevery()
    return line.get_xdata()[at], line.get_ydata()[at]


def unexplained(parts, count):
    """The share of a sum that lies behind so many of its parts, term by term."""
    return sum(parts[count:]) / sum(parts)


@pytest.mark.parametrize("sizes", [(8,), (8, 16, 4), MANY])
def test_bars_are_widths_and_ratios(sizes):
    panels = drawn(report(sizes))
    kept = [size // 2 for size in sizes]
    assert bars(panels["widths"], BEFORE).tolist() == list(sizes)
    assert bars(panels["widths"]).tolist() == kept
    assert np.allclose(bars(panels["kept"]), np.divide(kept, sizes))
    (overall,) = panels["kept"].get_lines()
    assert set(overall.get_ydata()) == {sum(kept) / sum(sizes)}


def test_components_are_the_fewest_that_carry_the_variance():
    record = report()
    panels = drawn(record)
    for level, colour in zip(LEVELS, LEVEL_COLOURS, strict=True):
        for share, group in zip(bars(panels["components"], colour), record["groups"], strict=True):
            count, parts = round(share * group["size"]), group["spectrum"]["components"]
            assert unexplained(parts, count) <= 1 - level + 1e-12
            assert unexplained(parts, count - 1) > 1 - level
    assert panels["components"].get_lines() == []


def test_the_information_reached_is_drawn_where_the_allocation_goes_by_it():
    record = report(allocation="information", share=0.05)
    (ticks,) = drawn(record)["components"].get_lines()
    assert ticks.get_label() == "τ = 0.95"
    for share, group in zip(ticks.get_ydata(), record["groups"], strict=True):
        count, parts = round(share * group["size"]), group["spectrum"]["components"]
        assert unexplained(parts, count) <= 0.05 < unexplained(parts, count - 1)


def test_cumulative_variance_falls_from_one_to_zero_and_marks_the_count():
    record = report()
    axes = drawn(record)["variance"]
    for line, group in zip(lines(axes), record["groups"], strict=True):
        size, parts = group["size"], group["spectrum"]["pivots"]
        assert np.allclose(line.get_xdata(), np.arange(size + 1) / size)
        expected = [unexplained(parts, count) for count in range(size + 1)]
        assert np.allclose(line.get_ydata(), expected)
        assert marked(line) == pytest.approx((0.5, expected[size // 2]))


@pytest.mark.parametrize(
    ("allocation", "share", "cut_off"),
    [("cumvar", 0.125, [0.125]), ("cumvar", None, []), ("information", 0.125, [])],
)
def test_the_cut_off_is_drawn_where_the_allocation_has_one(allocation, share, cut_off):
    axes = drawn(report(allocation=allocation, share=share))["variance"]
    found = [line for line in axes.get_lines() if line.get_label().startswith("cut-off")]
    assert [set(line.get_ydata()) for line in found] == [{value} for value in cut_off]


def test_the_spectrum_is_relative_to_its_largest_and_ends_where_nothing_is_left():
    record = report()
    axes = drawn(record)["spectrum"]
    assert axes.get_yscale() == "log"
    for line, group in zip(lines(axes), record["groups"], strict=True):
        pivots = np.array(group["spectrum"]["pivots"])
        assert np.allclose(line.get_ydata()[:-1], (pivots / pivots.max())[:-1])
        assert np.isnan(line.get_ydata()[-1])
        assert marked(line)[1] == pytest.approx(pivots[group["kept"] - 1] / pivots.max())


@pytest.mark.parametrize("divergence", [True, False])
def test_prices_are_divergences_where_they_were_measured(divergence):
    record = report(divergence=divergence)
    axes = drawn(record)["prices"]
    assert axes.get_yscale() == "log"
    assert axes.get_ylabel().startswith("predicted divergence" if divergence else "relative error")
    for line, group in zip(lines(axes), record["groups"], strict=True):
        prices = [p["divergence" if divergence else "error"] for p in group["curve"]]
        counts = [p["count"] for p in group["curve"]]
        assert np.allclose(line.get_xdata(), np.divide(counts, group["size"]))
        assert np.allclose(line.get_ydata()[:-1], prices[:-1])
        assert np.isnan(line.get_ydata()[-1])
        expected = group["divergence" if divergence else "error"]
        assert marked(line) == pytest.approx((0.5, expected))


def test_rounding_does_not_stretch_an_axis():
    record = changed(report(), "groups", 0, "spectrum", "pivots", 6, to=1e-15)
    line = lines(drawn(record)["spectrum"])[0]
    assert np.isnan(line.get_ydata()[6])
    assert np.isfinite(line.get_ydata()[:6]).all()


def test_a_group_has_one_colour_in_all_panels():
    panels = drawn(report(MANY))
    fixed = to_rgb(BEFORE)
    colours = [bar.get_facecolor() for bar in panels["kept"].patches]
    assert len(set(colours)) == len(MANY)
    after = [bar.get_facecolor() for bar in panels["widths"].patches]
    assert [colour for colour in after if colour[:3] != fixed] == colours
    for name in ("variance", "spectrum", "prices"):
        assert [line.get_color() for line in lines(panels[name])] == colours


def test_widths_of_very_different_size_are_all_seen():
    assert drawn(report((4, 256)))["widths"].get_yscale() == "log"
    assert drawn(report((16, 64)))["widths"].get_yscale() == "linear"


def test_groups_have_their_names_under_the_bars_and_beside_the_colours():
    record = report()
    figure = figures.draw(SavedReport.of(record))
    expected = ["layer0.0/conv", "layer0.1/conv", "layer0.2/conv"]
    axes = {a.get_label(): a for a in figure.axes}
    assert [text.get_text() for text in axes["kept"].get_xticklabels()] == expected
    (scale,) = [a for a in figure.axes if a.get_label() == "<colorbar>"]
    assert [text.get_text() for text in scale.get_yticklabels()] == expected


def test_the_title_says_what_was_run_and_what_is_left():
    figure = figures.draw(SavedReport.of(report()))
    title = figure.get_suptitle()
    assert "method snp, criterion snp, order zca, allocation cumvar" in title
    assert "target macs=0.5" in title
    assert "50.0% of the MACs, 40.0% of the parameters, 14 of 28 channels in 3 groups" in title
    assert "moments" not in title
    correlated = changed(report(), "settings", "moments", to="correlation")
    assert "moments correlation" in figures.draw(SavedReport.of(correlated)).get_suptitle()
    asked = changed(report(), "settings", "cutoff", to=0.0)
    assert "cutoff 0" in figures.draw(SavedReport.of(asked)).get_suptitle()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_same_report_makes_the_same_bytes(tmp_path, kind):
    paths = [tmp_path / f"{name}.{kind}" for name in ("first", "second")]
    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None}):  # a user's own settings
        figures.save(figures.draw(SavedReport.of(report())), paths[0])
    figures.save(figures.draw(SavedReport.of(report())), paths[1])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    other = tmp_path / f"other.{kind}"
    figures.save(figures.draw(SavedReport.of(report((8, 16, 6)))), other)
    assert other.read_bytes() != paths[0].read_bytes()


def test_drawing_leaves_the_global_state_alone():
    before = dict(matplotlib.rcParams)
    figures.draw(SavedReport.of(report()))
    assert dict(matplotlib.rcParams) == before


def test_names_with_dollars_are_no_formulae(tmp_path):
    record = changed(report(), "groups", 0, "name", to="a$\\frac$b")
    path = tmp_path / "figure.svg"
    figures.save(figures.draw(SavedReport.of(record)), path)
    assert path.read_bytes().startswith(b"<?xml")


def test_latency_is_drawn_where_runs_were_recorded():
    record = report()
    figure = figures.draw(SavedReport.of(record))
    (axes,) = [axes for axes in figure.axes if axes.get_label() == "latency"]
    for at, when in enumerate(("before", "after")):
        timed = record[when]["latency_ms"]
        edges = [bar.get_x() for bar in axes.containers[at].patches]
        heights = [bar.get_height() for bar in axes.containers[at].patches]
        width = axes.containers[at].patches[0].get_width()
        shown = [d for d in timed["durations"] if d <= edges[-1] + width]
        assert sum(heights) == len(shown) >= 0.9 * len(timed["durations"])
        for edge, height in zip(edges, heights, strict=True):
            inside = [d for d in shown if edge + 1e-9 < d < edge + width - 1e-9]
            assert abs(len(inside) - height) <= 1  # one may lie on an edge
    assert {line.get_xdata()[0] for line in axes.get_lines()} == {
        record[when]["latency_ms"]["median"] for when in ("before", "after")
    }
    untimed = changed(record, "after", "latency_ms", to=None)
    labels = [axes.get_label() for axes in figures.draw(SavedReport.of(untimed)).axes]
    assert "latency" not in labels


def test_without_groups_there_is_nothing_to_draw():
    with pytest.raises(ReportError, match="no channel groups"):
        figures.draw(SavedReport.of(changed(report(), "groups", to=[])))
