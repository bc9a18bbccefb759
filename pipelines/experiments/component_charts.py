"""Charts of `igvg ablate components`, as SVG files that read on light and dark pages."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from pipelines.experiments.component_scores import ComponentsReport, DatasetScores, VariantScores
from pipelines.report.charts import Axis, BandPoint, Mark, draw_intervals, draw_panels
from shards.files import write_bytes

METRICS = ("gIoU", "cIoU", "F1score")
"""Those of the chart of differences, where a data set has them; else its first ones."""
_WITH, _WITHOUT = "full network", "without"
# The colors of a report's page, where an image has no page to take them from.
_STYLE = """
svg { color: #1f2328; --back: #ffffff; --summary-1: #0072b2; --summary-2: #d55e00; --summary-3: #009e73;
  --summary-4: #000000; --summary-muted: #545b66; --summary-grid: #d5dae1;
  font-family: "Liberation Sans", Arial, Helvetica, sans-serif; }
@media (prefers-color-scheme: dark) {
  svg { color: #e8eaed; --back: #1c1f24; --summary-1: #56b4e9; --summary-2: #e69f00; --summary-4: #f0e442;
    --summary-muted: #a9b1bc; --summary-grid: #363d47; }
}
"""


def write_charts(out: Path, report: ComponentsReport) -> list[Path]:
    """Write the two charts of every scored data set into a folder, unless they are there; returns the files."""
    files = {}
    for scores in report.datasets:
        name = f"{scores.dataset}-{scores.split}"
        files[out / f"{name}-curves.svg"] = draw_component_curves(scores)
        files[out / f"{name}-differences.svg"] = draw_component_differences(scores)
    for file, svg in files.items():
        if not file.is_file() or file.read_bytes() != svg.encode():
            write_bytes(file, svg.encode())
    return list(files)


def draw_component_curves(scores: DatasetScores) -> str:
    """The validation scores of every trained variant beside those of the full network: means and ranges over seeds."""
    full = next(variant for variant in scores.variants if variant.differences is None)
    points = []
    for variant in scores.variants:
        if variant.trained and variant is not full:
            for series, shown in ((_WITH, full), (_WITHOUT, variant)):
                points += _average_curves(shown, series, f"without {variant.title}")
    axis = Axis(title=f"{scores.curve_metric}, percent")
    svg = draw_panels(points, (_WITH, _WITHOUT), Axis(title="step", format=",d"), axis)
    return _stand_alone(svg, "Validation scores with and without each component by training step")


def draw_component_differences(scores: DatasetScores) -> str:
    """The differences of every variant to the full network, with their intervals."""
    metrics = [name for name in METRICS if name in scores.variants[0].mean] or list(scores.variants[0].mean)[:3]
    titles = [variant.title for variant in scores.variants]
    marks = []
    for variant in scores.variants:
        for name, difference in (variant.differences or {}).items():
            if name in metrics and difference is not None:
                low, high = difference.interval or (difference.mean, difference.mean)
                label = variant.title if titles.count(variant.title) == 1 else variant.instead
                marks.append(Mark(label=label, series=name, value=difference.mean, low=low, high=high))
    svg = draw_intervals(marks, metrics, Axis(title="without less with, points"))
    return _stand_alone(svg, "Differences to the full network with their 95 % intervals")


def _average_curves(variant: VariantScores, series: str, panel: str) -> list[BandPoint]:
    points = []
    for steps in zip(*(seed.curve for seed in variant.seeds), strict=False):
        values = [value for _, value in steps]
        mean = sum(values) / len(values)
        points.append(BandPoint(series=series, panel=panel, x=steps[0][0], y=mean, low=min(values), high=max(values)))
    return points


def _stand_alone(svg: str, title: str) -> str:
    """An SVG of a page as a file of its own: with the page's colors, a background and a title."""
    root = ET.fromstring(svg)  # noqa: S314, drawn by this program
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    head = [
        ET.Element("title"),
        ET.Element("style"),
        ET.Element("rect", width="100%", height="100%", fill="var(--back)"),
    ]
    head[0].text, head[1].text = title, _STYLE
    for element in reversed(head):
        root.insert(0, element)
    return ET.tostring(root, encoding="unicode") + "\n"
