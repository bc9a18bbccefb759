"""Sections of a summary about scores: headline, all metrics with intervals, composition, breakdowns, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.evaluation.comparison import ComparisonReport
from pipelines.evaluation.metrics.benchmarks import describe_metric
from pipelines.evaluation.score_format import format_change, format_interval, format_score
from pipelines.evaluation.score_report import ScoreReport
from pipelines.report.charts import Axis, Mark, draw_bars, draw_intervals
from pipelines.report.sections import Composition, Figure, Headline, Row, Section, Table, letter_sets

# The metrics that a summary begins with and draws curves of, in the order of their data sets' papers.
HEADLINES = ("gIoU", "cIoU", "F1score", "N-acc", "T-acc", "mIoU", "oIoU", "rIoU", "mRR", "Acc", "Acc@0.5")
# The metrics that are drawn by group: one for masks, one for boxes or empty targets.
_BY_GROUP = ("gIoU", "F1score", "mIoU", "Acc", "mRR", "Acc@0.5")
_KINDS = {"empty": "no target", "single": "one target", "multiple": "several targets"}
_SIZES = {"small": "small (< 2\xa0%)", "medium": "medium (2 to 15 %)", "large": "large (≥ 15 %)"}
_AXES = {
    "kind": ("by kind of expression", _KINDS),
    "targets": ("by number of targets", {"1": "1 target"}),
    "size": ("by the targets' share of the image", _SIZES),
}


def pick_headlines(metrics: Sequence[str]) -> list[str]:
    """The metrics of a data set that a summary begins with."""
    return [name for name in HEADLINES if name in metrics]


def build_headlines(reports: Sequence[ScoreReport]) -> tuple[Headline, ...]:
    """The metrics of the first line, those that are measured in any set."""
    letters = ("",) if len(reports) == 1 else letter_sets(["", ""])
    return tuple(
        Headline(
            metric=name,
            meaning=describe_metric(name),
            values=tuple(
                (letter, format_score(report.metrics[name]), _interval(report, name))
                for letter, report in zip(letters, reports, strict=True)
            ),
        )
        for name in pick_headlines(list(reports[0].metrics))
        if any(report.metrics[name] is not None for report in reports)
    )


def build_composition(report: ScoreReport) -> Composition:
    """How many expressions of the split have no target, one, and several."""
    kinds = tuple(
        (_KINDS[kind], f"{count:,}", f"{100 * count / report.expressions:.1f}\xa0%")
        for kind, count in report.targets.items()
    )
    return Composition(expressions=f"{report.expressions:,}", kinds=kinds)


def describe_scores(names: Sequence[str], reports: Sequence[ScoreReport]) -> Section:
    """All metrics with their intervals, and the composition of the split beside them."""
    first = reports[0]
    size = f"at {first.resolution} × {first.resolution} pixels" if first.resolution else "at the size of the images"
    notes = [
        f"{letter + ': ' if len(reports) > 1 else ''}the predictions have no {report.not_predicted}; metrics of these "
        "are not measured (–)"
        for letter, report in zip(letter_sets(names), reports, strict=True)
        if report.not_predicted
    ]
    notes += [f"{count} {name.replace('_', ' ')}" for name, count in (first.left_out or {}).items() if count]
    if first.crowd_only:
        notes.append(
            f"{first.crowd_only} expressions are about crowd regions alone: their target mask is empty (IoU 0)"
        )
    if first.unmasked:
        notes.append(
            f"{first.unmasked} expressions have a target of which only the box is known: metrics of masks are not "
            "measured (–)"
        )
    return Section(
        key="scores",
        title="Scores",
        lead=f"{first.dataset}, split {first.split}: {first.expressions:,} expressions, masks scored {size}. "
        + ("Lines are 95\xa0% intervals of a bootstrap over images." if any((first.intervals or {}).values()) else ""),
        notes=tuple(notes),
        table=_tabulate_scores(names, reports),
        figures=(*_draw_scores(names, reports), _draw_composition(first)),
    )


def describe_breakdown(names: Sequence[str], reports: Sequence[ScoreReport]) -> Section:
    """The metrics of groups of expressions: a chart for each axis and metric, and all metrics in a table."""
    first = reports[0]
    letters = letter_sets(names)
    metrics = [name for name in _BY_GROUP if name in first.metrics]
    figures = [
        figure
        for axis, groups in first.breakdown.items()
        if len(groups) > 1
        for metric in metrics
        if (figure := _draw_groups(axis, metric, letters, reports))
    ]
    rows = [
        Row(
            label=f"{_name_group(axis, group)}{f', {letter}' if len(reports) > 1 else ''}",
            cells=(f"{part['expressions']:,}", *(format_score(part["metrics"][name]) for name in first.metrics)),
        )
        for axis, groups in first.breakdown.items()
        for group in groups
        for letter, report in zip(letters, reports, strict=True)
        if (part := report.breakdown[axis][group])
    ]
    return Section(
        key="breakdown",
        fold=True,
        title="Where the score comes from",
        table=Table(
            caption="All metrics by group, percent", columns=("group", "expressions", *first.metrics), rows=tuple(rows)
        ),
        figures=tuple(figures),
    )


def describe_differences(report: ComparisonReport) -> Section:
    """The paired differences of two sets of predictions, and the expressions on which they differ most."""
    intervals, better = report.intervals or {}, report.expressions_better_in
    rows = tuple(
        Row(label=name, cells=(format_change(change), format_interval(intervals.get(name))))
        for name, change in report.differences.items()
    )
    values = Table(caption="B less A, percentage points", columns=("metric", "B − A", "95 % interval"), rows=rows)
    marks = [
        Mark(label=name, series="B − A", value=change, low=bounds[0], high=bounds[1])
        for name, change in report.differences.items()
        if change is not None and (bounds := intervals.get(name) or [change, change])
    ]
    figures = []
    if marks:
        svg = draw_intervals(marks, ["B − A"], Axis(title="B − A, percentage points"))
        what = "Differences of the metrics, B less A, with their paired 95 % intervals."
        figures.append(Figure(title="B less A", svg=svg, description=what, values=values, unfolded=True))
    differing = tuple(
        Row(
            label=row.text,
            remark=row.id,
            expression=row.id,
            cells=(format_score(100 * row.a), format_score(100 * row.b)),
        )
        for row in report.differing
    )
    table = Table(caption="The expressions that differ most, percent", columns=("expression", "A", "B"), rows=differing)
    return Section(
        key="differences",
        title="Differences",
        lead=f"A is better on {better['a']:,} expressions, B on {better['b']:,}, neither on {better['neither']:,}. "
        "If an interval does not contain 0, other images of the same kind would show the difference, too.",
        table=table if differing else None,
        figures=tuple(figures),
    )


def _tabulate_scores(names: Sequence[str], reports: Sequence[ScoreReport]) -> Table:
    letters = letter_sets(names)
    columns = [column for letter in letters for column in (letter, "95 % interval")]
    rows = tuple(
        Row(
            label=metric,
            remark=describe_metric(metric),
            cells=tuple(
                cell
                for report in reports
                for cell in (format_score(report.metrics[metric]), _interval(report, metric) or "–")
            ),
        )
        for metric in reports[0].metrics
    )
    return Table(caption="All metrics, percent", columns=("metric", *columns), rows=rows)


def _draw_scores(names: Sequence[str], reports: Sequence[ScoreReport]) -> list[Figure]:
    letters = letter_sets(names)
    marks = [
        Mark(label=metric, series=letter, value=value, low=bounds[0], high=bounds[1])
        for metric in reports[0].metrics
        for letter, report in zip(letters, reports, strict=True)
        if (value := report.metrics[metric]) is not None
        and (bounds := (report.intervals or {}).get(metric) or [value, value])
    ]
    if not marks:
        return []
    what = "All metrics with their 95 % intervals, in percent."
    values = _tabulate_scores(names, reports)
    return [Figure(title="By metric", svg=draw_intervals(marks, letters), description=what, values=values)]


def _draw_composition(report: ScoreReport) -> Figure:
    rows = build_composition(report).kinds
    marks = [
        Mark(label=label, series="n", value=value, text=f"{count} ({share})")
        for (label, count, share), value in zip(rows, report.targets.values(), strict=True)
    ]
    values = Table(
        caption="Expressions of the split",
        columns=("kind", "expressions", "share"),
        rows=tuple(Row(label=label, cells=(count, share)) for label, count, share in rows),
    )
    what = "Number of expressions of the split: " + ", ".join(f"{count} with {label}" for label, count, _ in rows)
    svg = draw_bars(marks, ["n"], Axis(title="expressions"))
    return Figure(title="The split", svg=svg, description=f"{what}.", values=values)


def _draw_groups(axis: str, metric: str, letters: Sequence[str], reports: Sequence[ScoreReport]) -> Figure | None:
    groups: dict[str, dict[str, Any]] = reports[0].breakdown[axis]
    cells = [
        (name, letter, report.breakdown[axis][name]["metrics"][metric])
        for name in groups
        for letter, report in zip(letters, reports, strict=True)
    ]
    marks = [
        Mark(
            label=_name_group(axis, name),
            series=letter,
            value=value,
            text=f"{letter} {value:.2f}" if len(reports) > 1 else f"{value:.2f}",
        )
        for name, letter, value in cells
        if value is not None
    ]
    if len({mark.label for mark in marks}) < 2:
        return None
    values = Table(
        caption=f"{metric}, percent",
        columns=("group", "expressions", *letters),
        rows=tuple(
            Row(
                label=_name_group(axis, name),
                cells=(
                    f"{part['expressions']:,}",
                    *(format_score(report.breakdown[axis][name]["metrics"][metric]) for report in reports),
                ),
            )
            for name, part in groups.items()
        ),
    )
    title = f"{metric} {_AXES[axis][0]}"
    svg = draw_bars(marks, letters)
    return Figure(title=title, svg=svg, description=f"{title}, in percent.", values=values)


def _name_group(axis: str, group: str) -> str:
    names = _AXES[axis][1]
    return names.get(group) or (f"{group} targets" if axis == "targets" else group)


def _interval(report: ScoreReport, metric: str) -> str:
    bounds = (report.intervals or {}).get(metric)
    return format_interval(bounds) if bounds else ""
