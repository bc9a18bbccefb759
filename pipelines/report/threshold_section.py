"""The section of a summary about the score threshold: curves of the metrics, from raw outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.score_format import format_score
from pipelines.evaluation.sweep import SweepReport
from pipelines.evaluation.sweep_grid import Grid
from pipelines.report.charts import Axis, CurvePoint, draw_curves
from pipelines.report.score_sections import pick_headlines
from pipelines.report.sections import Figure, Row, Section, Table, letter_sets

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_KEY = "score_threshold"


def threshold_grid(base: PostprocessSettings, mask_floor: float) -> Grid:
    """The settings of the curves: a score threshold each, among them that of `base`.

    Thresholds below `mask_floor` are left out where instance masks are used: raw outputs do not hold these masks.
    """
    lowest = 0.0 if base.mask_source == "global" else mask_floor
    values = sorted({*THRESHOLDS, base.score_threshold})
    settings = tuple(replace(base, score_threshold=value) for value in values if value >= lowest)
    return Grid(varied=(_KEY,), settings=settings)


@dataclass(frozen=True, kw_only=True)
class ThresholdCurve:
    """The scores of one set of predictions under the settings of `threshold_grid`."""

    report: SweepReport
    used: float
    """The threshold that the set was predicted with."""


def describe_thresholds(names: Sequence[str], curves: Sequence[ThresholdCurve | str]) -> Section:
    """The metrics of each set against the score threshold, or for a set the reason why there is no curve."""
    letters = letter_sets(names)
    several = len(names) > 1
    notes = tuple(
        f"{f'{letter}: ' if several else ''}no curve, because {curve}."
        for letter, curve in zip(letters, curves, strict=True)
        if isinstance(curve, str)
    )
    found = {letter: curve for letter, curve in zip(letters, curves, strict=True) if isinstance(curve, ThresholdCurve)}
    lead, figures = "", []
    if found:
        used = " and ".join(f"{curve.used:g}{f' ({letter})' if several else ''}" for letter, curve in found.items())
        lead = (
            "Queries with a score above the threshold are selected; every other setting is that of the predictions. "
            f"The dashed line marks the threshold of the predictions: {used}."
        )
        metrics = pick_headlines(list(next(iter(found.values())).report.best))
        figures = [figure for name in metrics if (figure := _draw_metric(name, letters, found))]
    return Section(key="thresholds", title="Score threshold", lead=lead, notes=notes, figures=tuple(figures))


def _draw_metric(name: str, letters: Sequence[str], found: Mapping[str, ThresholdCurve]) -> Figure | None:
    values = {
        letter: {float(row.settings[_KEY]): row.metrics[name] for row in curve.report.settings}
        for letter, curve in found.items()
    }
    points = [
        CurvePoint(series=letter, x=threshold, y=score)
        for letter, scores in values.items()
        for threshold, score in scores.items()
        if score is not None
    ]
    if not points:
        return None
    thresholds = sorted({threshold for scores in values.values() for threshold in scores})
    table = Table(
        caption=f"{name} by score threshold, percent",
        columns=("threshold", *values),
        rows=tuple(
            Row(label=f"{threshold:g}", cells=tuple(format_score(scores.get(threshold)) for scores in values.values()))
            for threshold in thresholds
        ),
    )
    marked = sorted({curve.used for curve in found.values()})
    svg = draw_curves(points, letters, Axis(title="score threshold", domain=(0, 1)), marked=marked)
    return Figure(title=name, svg=svg, description=f"{name} against the score threshold, in percent.", values=table)
