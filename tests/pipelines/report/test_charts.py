"""Charts are static SVG in the colors of the page, and their series differ by more than color."""

from __future__ import annotations

import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import pytest

from pipelines.report.charts import WIDTH, Axis, CurvePoint, Mark, draw_bars, draw_curves, draw_intervals

SETS = ("A", "B")
MARKS = [
    Mark(label=metric, series=name, value=value, low=value - 2, high=value + 3, text=f"{value:.2f}")
    for metric, value in (("gIoU", 74.02), ("N-acc", 95.45))
    for name in SETS
]
CURVES = [CurvePoint(series=name, x=x / 10, y=50 + 4 * x) for name in SETS for x in range(1, 10)]
CHARTS: dict[str, Callable[[], str]] = {
    "intervals": lambda: draw_intervals(MARKS, SETS),
    "differences": lambda: draw_intervals(MARKS, SETS, Axis(title="B − A")),
    "bars": lambda: draw_bars(MARKS, SETS),
    "curves": lambda: draw_curves(CURVES, SETS, Axis(title="threshold", domain=(0, 1)), marked=[0.45]),
}


def list_texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter("text")]


def list_shapes(svg: str) -> set[str]:
    """The outlines of the symbols on the curves or intervals, not of those of the legend."""
    outlines = re.findall(r'transform="translate\([^)]*\)" d="([^"]*)" fill="var\(--summary-\d\)"', svg)
    return {re.sub(r"[-\d.,]+", "", outline) for outline in outlines}


@pytest.mark.parametrize("name", CHARTS)
def test_every_color_is_one_of_the_page(name: str) -> None:
    svg = CHARTS[name]()
    colors = {
        value
        for element in ET.fromstring(svg).iter()
        for attribute in ("fill", "stroke")
        if (value := element.get(attribute)) is not None
    }
    assert colors - {"none", "transparent"} <= {
        "currentColor",
        *(f"var(--summary-{part})" for part in ("muted", "grid", "1", "2", "3", "4")),
    }
    assert {"var(--summary-1)", "var(--summary-2)"} <= colors


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_asks_for_nothing_and_runs_nothing(name: str) -> None:
    svg = CHARTS[name]()
    assert not re.search(r"<(script|style|image|foreignObject|use|a)\b|href=|url\(|\son\w+=|font-family", svg)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_fits_a_phone_at_its_natural_size(name: str) -> None:
    assert float(ET.fromstring(CHARTS[name]()).attrib["width"]) <= WIDTH


@pytest.mark.parametrize("name", ["intervals", "curves"])
def test_series_have_symbols_of_different_shapes(name: str) -> None:
    assert len(list_shapes(CHARTS[name]())) == len(SETS)


def test_curves_have_different_dashes() -> None:
    lines = [
        element.get("stroke-dasharray") for element in ET.fromstring(CHARTS["curves"]()).iter("path")
        if (element.get("stroke") or "").startswith("var(--summary-")
    ]  # fmt: skip
    assert len(set(lines)) == len(SETS)


def test_bars_say_their_values() -> None:
    assert {"74.02", "95.45", "gIoU", "N-acc", *SETS} <= set(list_texts(CHARTS["bars"]()))


def test_markup_in_names_is_text() -> None:
    name = '<script>alert("1")</script>'
    marks = [Mark(label=name, series=name, value=1, low=1, high=1, text=name)]
    for svg in (
        draw_bars(marks, [name]),
        draw_intervals(marks, [name, "B"]),
        draw_curves([CurvePoint(series=name, x=1, y=1)], [name, "B"], Axis(title=name)),
    ):
        assert not list(ET.fromstring(svg).iter("script"))
        assert "<script" not in svg


def test_one_set_of_values_needs_no_legend() -> None:
    single = [mark for mark in MARKS if mark.series == "A"]
    assert "A" not in list_texts(draw_intervals(single, ["A"]))


def test_the_same_values_give_the_same_chart() -> None:
    assert CHARTS["curves"]() == CHARTS["curves"]()
