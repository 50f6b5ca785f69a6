"""Charts are drawn by the server, say their figures in words, and hold nothing that the pages' policy would stop."""

from __future__ import annotations

import re
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from video.admin import charts

HOURS = [f"{hour:02}:00" for hour in range(24)]


def drawn(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)


def rects(chart: str, tone: str) -> list[dict[str, float]]:
    found = [one for one in drawn(chart).iter("rect") if one.get("class") == f"rw-c-{tone}" and one.get("x")]
    return [{name: float(one.attrib[name]) for name in ("x", "y", "width", "height")} for one in found]


def test_columns_stand_on_each_other() -> None:
    chart = charts.columns(["a", "b"], {"delivered": [3, 1], "failed": [1, 0]}, "videos", title="Videos")
    good, bad = rects(chart, "good"), rects(chart, "bad")
    assert len(good) == 2
    assert len(bad) == 1  # nothing is drawn for nothing
    assert bad[0]["y"] + bad[0]["height"] == pytest.approx(good[0]["y"])
    assert good[0]["y"] + good[0]["height"] == 160
    assert good[0]["height"] == pytest.approx(3 * good[1]["height"], rel=0.01)
    assert bad[0]["y"] >= 0


def test_losses_hang_below_the_line_of_zero() -> None:
    chart = charts.columns(["a", "b"], {"margin": [-2, 2]}, "USD")
    loss, gain = rects(chart, "0")
    assert gain["y"] + gain["height"] == pytest.approx(loss["y"])
    assert all(one["y"] >= 0 and one["y"] + one["height"] <= 160 for one in (loss, gain))


def test_figures_are_told_in_words_too() -> None:
    chart = charts.columns(HOURS, {"delivered": [*range(23), 1234]}, "videos", title="Videos")
    svg = drawn(chart).find(".//svg[@role='img']")
    assert svg is not None
    assert svg.get("aria-label") == (
        "Videos, in videos, 00:00 to 23:00. delivered: at most 1,234, last 1,234. The table beneath has all figures."
    )
    assert "<title>07:00: delivered 7 (videos)</title>" in chart
    cells = [one.text for one in drawn(chart).iter("td")]
    assert cells[:3] == ["0", "1", "2"]
    assert cells[-1] == "1,234"


def test_a_line_has_a_gap_where_nothing_is_known_and_a_dot_between_two_gaps() -> None:
    chart = charts.line(["a", "b", "c", "d"], {"p95": [1.5, 2, None, 3]}, "seconds")
    path = drawn(chart).find(".//path")
    assert path is not None
    assert len(re.findall("M", path.attrib["d"])) == 2
    assert '<td class="rw-right">–</td>' in chart


@pytest.mark.parametrize("draw", [charts.columns, charts.line])
@pytest.mark.parametrize(
    ("labels", "series"),
    [([], {}), ([], {"videos": []}), (["a"], {"videos": [0]}), (["a"], {"wait": [None]}), (["a"], {})],
)
def test_without_figures_an_empty_chart_says_so(
    draw: object, labels: list[str], series: dict[str, list[float]]
) -> None:
    chart = draw(labels, series, "videos")  # type: ignore[operator]
    drawn(chart)
    assert "Nothing yet" in chart
    assert "<details>" not in chart


@pytest.mark.parametrize("draw", [charts.columns, charts.line])
def test_what_comes_from_outside_is_escaped_and_nothing_is_inline(draw: object) -> None:
    evil = '"><script>alert(1)</script>'
    chart = draw([evil], {evil: [Decimal("1.25")]}, evil, title=evil)  # type: ignore[operator]
    assert "<script" not in chart
    assert "style=" not in chart
    assert not re.search(r"\son\w+=", chart)
    drawn(chart)


def test_a_series_with_another_number_of_figures_than_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="videos has 2 figures for 1 labels"):
        charts.columns(["a"], {"videos": [1, 2]}, "videos")


def test_few_labels_stand_each_under_its_column_and_of_many_some_with_the_first_and_the_last() -> None:
    few = drawn(charts.columns(["a", "b", "c"], {"n": [1, 2, 3]}, "n")).find(".//div[@class='rw-x rw-each']")
    many = drawn(charts.columns(HOURS, {"n": [1] * 24}, "n")).find(".//div[@class='rw-x']")
    assert few is not None
    assert many is not None
    assert [one.text for one in few] == ["a", "b", "c"]
    assert [many[0].text, many[-1].text, len(many)] == ["00:00", "23:00", 5]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (7, "7"), (1234567, "1,234,567"), (0.5, "0.5"), (12.345, "12.3"), (0.00123, "0.00123"),
        (-3.25, "-3.25"), (123.6, "124"), (None, "–"), (1e-9, "0"),
    ],
)  # fmt: skip
def test_figures_have_the_digits_that_count(value: float | None, words: str) -> None:
    assert charts.figure(value) == words


@pytest.mark.parametrize("most", [0.003, 0.9, 1, 3, 7, 10, 99, 1234, 5e6])
def test_the_axis_ends_just_above_the_highest_figure(most: float) -> None:
    axis = charts._axis(low=0, high=most)
    assert most <= axis.high * 1.000001 <= 2.6 * most
    assert 2 <= len(axis.ticks) <= 5
    assert axis.ticks[-1] == pytest.approx(0)
