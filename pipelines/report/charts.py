"""Charts as static SVG: Vega-Lite by altair, rendered by vl-convert, in the colors of the page that shows them.

An SVG refers to the page's colors by CSS custom properties, so that the same chart is read on a light and on a dark
page: `--summary-1` … `--summary-4` for the series, `--summary-muted`, `--summary-grid`, and the color of text.
Series differ by color, by dash and by the shape of their points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

WIDTH = 320
"""Pixels: a chart fits a phone of 360 pixels at its natural size."""
MAX_SERIES = 4
# Colors of the drawing that are replaced by those of the page.
_SERIES = tuple(f"#0a0b0{number}" for number in range(1, MAX_SERIES + 1))
_INK, _MUTED, _GRID = "#0a0c01", "#0a0c02", "#0a0c03"
_PAGE_COLORS = {
    _INK: "currentColor",
    _MUTED: "var(--summary-muted)",
    _GRID: "var(--summary-grid)",
    **{color: f"var(--summary-{number})" for number, color in enumerate(_SERIES, 1)},
}
_DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3))
_SHAPES = ("circle", "square", "triangle-up", "diamond")
_SVG = "http://www.w3.org/2000/svg"
_FONT_SIZE = 11
# Attributes that say nothing in a page: the SVG as a whole has a text alternative, and the page sets the font.
_DROPPED = ("aria-hidden", "aria-label", "aria-roledescription", "class", "font-family", "pointer-events", "role")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A value of a series for a label, in the chart's unit, with the bounds of its interval."""

    label: str
    series: str
    value: float
    low: float | None = None
    high: float | None = None
    text: str = ""
    """Written beside a bar."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A point of the curve of a series."""

    series: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class BandPoint(CurvePoint):
    """A point of the curve of a series in a panel, with the range around it."""

    panel: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows."""

    title: str
    domain: tuple[float, float] | None = None
    """None: that of the values, with 0."""
    format: str = ""
    """Of its numbers, as of d3-format; empty: as fits them."""


PERCENT = Axis(title="percent", domain=(0, 100))


def draw_intervals(marks: Sequence[Mark], series: Sequence[str], axis: Axis = PERCENT) -> str:
    """Values as points on the lines of their intervals, one row for each label and series; returns SVG."""
    alt = _load_altair()
    chart = alt.Chart(alt.Data(values=[asdict(mark) for mark in marks]))
    x = alt.X("value:Q", axis=_axis(axis), scale=_scale(axis), title=axis.title)
    place = _rows(marks, series)
    rule = chart.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", color=_color(series), **place)
    point = chart.mark_point(filled=True, size=52, opacity=1)
    layers = [rule, point.encode(x=x, color=_color(series), shape=_shape(series), **place)]
    if axis.domain is None:
        zero = alt.Chart(alt.Data(values=[{"value": 0}])).mark_rule(color=_INK, strokeDash=[3, 3])
        layers.insert(0, zero.encode(x="value:Q"))
    return _render(alt.layer(*layers), height=len({mark.label for mark in marks}) * (14 + 12 * len(series)))


def draw_bars(marks: Sequence[Mark], series: Sequence[str], axis: Axis = PERCENT) -> str:
    """Values as horizontal bars with their texts, one row for each label and series; returns SVG."""
    alt = _load_altair()
    top = axis.domain[1] if axis.domain else max((mark.value for mark in marks), default=0) or 1
    # Room for the texts to the right of the longest bar.
    room = top * (1 + 0.036 * max((len(mark.text) for mark in marks), default=0))
    chart = alt.Chart(alt.Data(values=[asdict(mark) for mark in marks]))
    # The texts say the values: the axis shows the whole.
    bounds = _axis(axis, values=[0, 50, 100] if axis.domain == PERCENT.domain else [])
    x = alt.X("value:Q", axis=bounds, scale=alt.Scale(domain=[0, room]), title=axis.title)
    place = _rows(marks, series)
    bars = chart.mark_bar(opacity=1).encode(x=x, color=_color(series), **place)
    texts = chart.mark_text(align="left", dx=4, color=_INK).encode(x=x, text="text:N", **place)
    return _render(alt.layer(bars, texts), height=len({mark.label for mark in marks}) * (8 + 17 * len(series)))


def draw_curves(
    points: Sequence[CurvePoint], series: Sequence[str], x: Axis, y: Axis = PERCENT, *, marked: Sequence[float] = ()
) -> str:
    """Curves with their points; returns SVG.

    Args:
        points: in the order of their curves.
        series: names of the curves, `MAX_SERIES` at most.
        x: the axis of `CurvePoint.x`.
        y: the axis of `CurvePoint.y`.
        marked: values of x that vertical lines mark.
    """
    alt = _load_altair()
    chart = alt.Chart(alt.Data(values=[asdict(point) for point in points]))
    place = {
        "x": alt.X("x:Q", axis=_axis(x), scale=_scale(x, zero=False), title=x.title),
        "y": alt.Y("y:Q", axis=_axis(y), scale=_scale(y), title=y.title),
    }
    lines = chart.mark_line(strokeWidth=1.8)
    layers = [lines.encode(color=_color(series, legend=None), strokeDash=_dash(series, legend=None), **place)]
    # Symbols on every point of a long curve would cover it.
    shown = _thin(points, series)
    symbols = alt.Chart(alt.Data(values=[asdict(point) for point in shown])).mark_point(filled=True, size=38, opacity=1)
    layers.append(symbols.encode(color=_color(series), shape=_shape(series), **place))
    if marked:
        line = alt.Chart(alt.Data(values=[{"x": value} for value in marked])).mark_rule(color=_INK, strokeDash=[3, 3])
        layers.insert(0, line.encode(x="x:Q"))
    return _render(alt.layer(*layers).resolve_scale(color="independent", shape="independent"), height=150)


def draw_panels(points: Sequence[BandPoint], series: Sequence[str], x: Axis, y: Axis = PERCENT) -> str:
    """Curves within their ranges, a small chart for each panel, two in a row; returns SVG.

    Args:
        points: in the order of their panels and curves.
        series: names of the curves, `MAX_SERIES` at most.
        x: the axis of `CurvePoint.x`.
        y: the axis of `CurvePoint.y`, the same for all panels.
    """
    alt = _load_altair()
    panels = list(dict.fromkeys(point.panel for point in points))
    place_x = alt.X("x:Q", axis=_axis(x), scale=_scale(x, zero=False), title=x.title)
    place_y = alt.Y("y:Q", axis=_axis(y), scale=_scale(y, zero=False), title=y.title)
    chart = alt.Chart()
    band = chart.mark_area(opacity=0.2).encode(
        x=place_x, y=alt.Y("low:Q", title=y.title), y2="high:Q", color=_color(series)
    )
    line = chart.mark_line(strokeWidth=1.8).encode(
        x=place_x, y=place_y, color=_color(series), strokeDash=_dash(series, legend=None)
    )
    symbols = chart.mark_point(filled=True, size=38, opacity=1).encode(
        x=place_x, y=place_y, color=_color(series), shape=_shape(series)
    )
    layers = alt.layer(band, line, symbols, data=alt.Data(values=[asdict(point) for point in points]))
    header = alt.Header(title=None, labelColor=_INK, labelFontSize=_FONT_SIZE, labelLimit=WIDTH, labelPadding=4)
    facet = alt.Facet("panel:N", sort=panels, header=header)
    return _render_specification(layers.properties(width=WIDTH - 60, height=110).facet(facet, columns=2))


@cache
def _load_altair() -> ModuleType:
    import altair as alt

    return alt


def _rows(marks: Sequence[Mark], series: Sequence[str]) -> dict[str, Any]:
    alt = _load_altair()
    labels = list(dict.fromkeys(mark.label for mark in marks))
    scale = alt.Scale(domain=labels, paddingInner=0.25, paddingOuter=0.1)
    axis = alt.Axis(title=None, ticks=False, domain=False, grid=False, labelLimit=150, labelPadding=6)
    place: dict[str, Any] = {"y": alt.Y("label:N", scale=scale, axis=axis)}
    if len(series) > 1:
        place["yOffset"] = alt.YOffset("series:N", scale=alt.Scale(domain=list(series), paddingInner=0.1))
    return place


def _axis(axis: Axis, values: Sequence[float] | None = None) -> Any:
    given: dict[str, Any] = {"format": axis.format} if axis.format else {}
    given |= {} if values is None else {"values": list(values)}
    return _load_altair().Axis(tickCount=5, ticks=False, domain=False, labelPadding=5, labelFlush=False, **given)


def _scale(axis: Axis, *, zero: bool = True) -> Any:
    alt = _load_altair()
    return alt.Scale(domain=list(axis.domain)) if axis.domain else alt.Scale(zero=zero)


def _series_scale(series: Sequence[str], values: Sequence[Any]) -> Any:
    return _load_altair().Scale(domain=list(series), range=[*values[: len(series)]])


def _legend(series: Sequence[str]) -> Any:
    if len(series) < 2:
        return None
    legend = {"orient": "top", "direction": "horizontal", "columns": 2, "title": None, "symbolSize": 60, "offset": 4}
    return _load_altair().Legend(**legend, symbolOpacity=1, symbolStrokeWidth=1.8, labelLimit=130, columnPadding=14)


def _color(series: Sequence[str], *, legend: Any = ...) -> Any:
    legend = _legend(series) if legend is ... else legend
    return _load_altair().Color("series:N", scale=_series_scale(series, _SERIES), legend=legend)


def _shape(series: Sequence[str]) -> Any:
    return _load_altair().Shape("series:N", scale=_series_scale(series, _SHAPES), legend=_legend(series))


def _dash(series: Sequence[str], *, legend: Any) -> Any:
    return _load_altair().StrokeDash("series:N", scale=_series_scale(series, _DASHES), legend=legend)


def _thin(points: Sequence[CurvePoint], series: Sequence[str], most: int = 14) -> list[CurvePoint]:
    """At most about `most` points of each curve, the first and the last among them."""
    thinned = []
    for name in series:
        own = [point for point in points if point.series == name]
        step = max(1, math.ceil(len(own) / most))
        thinned += [point for index, point in enumerate(own) if index % step == 0 or index == len(own) - 1]
    return thinned


def _render(chart: Any, height: int) -> str:
    fit = _load_altair().AutoSizeParams(type="fit-x", contains="padding")
    return _render_specification(chart.properties(width=WIDTH, height=height, autosize=fit))


def _render_specification(chart: Any) -> str:
    import vl_convert

    text = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": _FONT_SIZE, "titleFontSize": _FONT_SIZE}
    axis = {**text, "titleFontWeight": "normal", "gridColor": _GRID, "tickColor": _GRID, "domainColor": _GRID}
    config = {
        "font": "Liberation Sans",
        "background": "transparent",
        "view": {"stroke": None},
        "axis": axis,
        "legend": text,
        "text": {"fontSize": _FONT_SIZE},
        "aria": False,
    }
    specification = chart.properties(padding=2).to_dict()
    return _adopt_page_colors(vl_convert.vegalite_to_svg({**specification, "config": config}))


def _adopt_page_colors(svg: str) -> str:
    """SVG to stand in a page: its colors are the page's, and what says nothing there is left out."""
    root = ET.fromstring(svg)  # noqa: S314, written by vl-convert
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        for name, value in list(element.attrib.items()):
            if name in _DROPPED or (name, value) == ("opacity", "1"):
                del element.attrib[name]
            elif value in _PAGE_COLORS:
                element.set(name, _PAGE_COLORS[value])
    _drop_invisible(root)
    return ET.tostring(root, encoding="unicode")


def _drop_invisible(parent: ET.Element) -> None:
    for child in list(parent):
        _drop_invisible(child)
        hidden = child.get("display") == "none" or child.get("d") == "M0,0h0v0h0Z"
        empty = child.tag == "g" and not len(child)
        if hidden or empty:
            parent.remove(child)
