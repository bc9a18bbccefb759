"""Output: results on standard output, progress and log lines on standard error."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from igvg_cli import progress, streams
from igvg_cli.tables import print_table, table_width
from pipelines.evaluation.score_format import format_change, format_interval, format_score
from shards.files import dump_json

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Mapping, Sequence

    from pipelines.evaluation.comparison import ComparisonReport
    from pipelines.evaluation.score_report import ScoreReport
    from pipelines.evaluation.seed_differences import SeedDifference
    from pipelines.evaluation.sweep import SweepReport
    from pipelines.experiments.ablation import AblationReport
    from pipelines.experiments.component_scores import ComponentsReport

# Below this width the definitions of metrics stand below their table.
_NARROW = 80
# Of those of gRefCOCO; of other data sets all are shown.
_COMPONENT_METRICS = ("gIoU", "cIoU", "N-acc", "T-acc", "F1score")


def print_scores(reports: Sequence[ScoreReport]) -> None:
    """Print the scores of splits as tables, with the definition of each metric."""
    from pipelines.evaluation.metrics.benchmarks import describe_metric

    for report in reports:
        resolution, intervals = report.resolution, report.intervals or {}
        size = f"at {resolution} × {resolution} pixels" if resolution else "at the size of the images"
        kinds = ", ".join(f"{count} {kind}" for kind, count in report.targets.items())
        rows = [
            [name, format_score(value), format_interval(intervals.get(name)), describe_metric(name)]
            for name, value in report.metrics.items()
        ]
        columns = ["metric", "score", "95 % interval", "what it measures"]
        notes = []
        if table_width() < _NARROW:
            notes = [f"{name}: {meaning}" for name, *_, meaning in rows]
            columns, rows = columns[:3], [row[:3] for row in rows]
        notes += [f"{report.expressions} expressions ({kinds}), {size}; percent; – means nothing to measure"]
        if report.not_predicted:
            notes.append(f"the predictions have no {report.not_predicted}: metrics of these are not measured")
        notes += [f"{count} {name.replace('_', ' ')}" for name, count in (report.left_out or {}).items() if count]
        if report.crowd_only:
            what = "expressions about crowd regions alone, with boxes and an empty target mask (IoU 0)"
            notes.append(f"{what}: {report.crowd_only}")
        if report.unmasked:
            what = "expressions with a target of which only the box is known: metrics of masks are not measured"
            notes.append(f"{report.unmasked} {what}")
        title = f"{report.dataset}/{report.split}"
        print_table(title, columns, rows, notes, left=(0, 3))
        print_breakdown(title, report.breakdown)


def print_breakdown(title: str, breakdown: Mapping[str, dict[str, Any]]) -> None:
    """Print the metrics of every group of a split, one group a row."""
    parts = [(f"{axis}: {name}", part) for axis, groups in breakdown.items() for name, part in groups.items()]
    if parts:
        names = list(parts[0][1]["metrics"])
        rows = [
            [label, str(part["expressions"]), *(format_score(part["metrics"][name]) for name in names)]
            for label, part in parts
        ]
        print_table(f"{title}, by part", ["part", "expressions", *names], rows)


def print_baselines(title: str, scores: Mapping[str, ScoreReport]) -> None:
    """Print the metrics of several predictions for the same expressions, one prediction a row."""
    names = list(next(iter(scores.values())).metrics)
    rows = [[label, *(format_score(report.metrics[name]) for name in names)] for label, report in scores.items()]
    print_table(title, ["percent", *names], rows)


def print_comparison(report: ComparisonReport) -> None:
    """Print the metrics of two sets of predictions, and the expressions on which they differ most."""
    intervals = report.intervals or {}
    rows = [
        [
            name,
            format_score(report.a.metrics[name]),
            format_score(report.b.metrics[name]),
            format_change(change),
            format_interval(intervals.get(name)),
        ]
        for name, change in report.differences.items()
    ]
    better = report.expressions_better_in
    counts = f"A better on {better['a']}, B on {better['b']}, neither on {better['neither']}"
    notes = [f"A: {report.a.predictions}", f"B: {report.b.predictions}"]
    notes.append(f"{report.expressions} expressions: {counts}; percent")
    title = f"{report.dataset}/{report.split}"
    print_table(title, ["metric", "A", "B", "B − A", "95 % interval"], rows, notes)
    if report.differing:
        rows = [[row.id, row.text, format_score(100 * row.a), format_score(100 * row.b)] for row in report.differing]
        print_table("Where they differ most", ["expression", "text", "A", "B"], rows, left=(0, 1), labels=2)


def print_ablation(report: AblationReport) -> None:
    """Print the variants of an ablation as the paper's table shows them, one table for each scored data set."""
    for dataset in dict.fromkeys(variant.score.dataset for variant in report.variants):
        variants = [variant for variant in report.variants if variant.score.dataset == dataset]
        first = variants[0].score
        names = [name for name in report.metrics if name in first.metrics] or list(first.metrics)
        rows = [
            [f"{variant.value:g}", *(format_score(variant.score.metrics[name]) for name in names)]
            for variant in variants
        ]
        notes = [f"{first.expressions} expressions; percent"]
        print_table(f"{report.title}, {dataset}/{first.split}", [report.symbol, *names], rows, notes)


def print_components(report: ComponentsReport) -> None:
    """Print the scores of a network with and without each component, and the differences, for each scored data set."""
    for scores in report.datasets:
        names = [name for name in _COMPONENT_METRICS if name in scores.variants[0].mean] or list(
            scores.variants[0].mean
        )
        means, changes = [], []
        for variant in scores.variants:
            label = f"without {variant.title}: {variant.instead}" if variant.instead else variant.title
            means.append([label, *(format_score(variant.mean[name]) for name in names)])
            if variant.differences is not None:
                changes.append([label, *(_format_difference(variant.differences[name]) for name in names)])
        title = f"{scores.dataset}/{scores.split}"
        notes = [
            f"{scores.expressions} expressions about {scores.images} images; percent, mean of {len(report.seeds)} seeds"
        ]
        print_table(f"{title}, scores", ["network", *names], means, notes)
        notes = ["less the full network: below 0 where the component helps; 95 % intervals over seeds and images"]
        print_table(f"{title}, differences", ["network", *names], changes, notes)


def _format_difference(difference: SeedDifference | None) -> str:
    if difference is None:
        return "–"
    interval = f" ({format_interval(difference.interval)})" if difference.interval else ""
    return format_change(difference.mean) + interval


def print_sweep(report: SweepReport) -> None:
    """Print the settings of a sweep, one a row; a star marks the best of each metric, unless all are equal."""
    total, count = len(report.settings), len(report.varied)
    best = {name: indices if len(indices) < total else [] for name, indices in report.best.items()}
    rows = [
        [
            *(format_setting(row.settings[key]) for key in report.varied),
            *(("* " if index in best[name] else "") + format_score(row.metrics[name]) for name in report.shown),
        ]
        for index, row in enumerate(report.settings)
    ]
    fixed = ", ".join(f"{key} {format_setting(value)}" for key, value in report.fixed.items())
    notes = [f"{report.expressions} expressions; percent; * marks the best of a metric"]
    notes += [f"the same for all: {fixed}"] if fixed else []
    title = f"{report.dataset}/{report.split}, {total} settings"
    print_table(title, [*report.varied, *report.shown], rows, notes, left=range(count), labels=count)


def print_sweep_rows(report: SweepReport) -> None:
    """Print the settings of a sweep as CSV: varied keys, metrics, and the metrics that a row is best in."""
    import csv

    names = list(report.best)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    with streams.printing():
        writer.writerow([*report.varied, *names, "best"])
        for index, row in enumerate(report.settings):
            marked = " ".join(name for name in names if index in report.best[name])
            settings = (format_setting(row.settings[key]) for key in report.varied)
            writer.writerow([*settings, *(row.metrics[name] for name in names), marked])


def format_setting(value: Any) -> str:
    """A setting's value as `--set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def print_json(document: Any) -> None:
    """Print one JSON document; escaped if standard output is not Unicode, or a file name in it is no UTF-8."""
    text = dump_json(document, allow_nan=False).decode()
    print_text(text if streams.is_unicode() else json.dumps(document, allow_nan=False))


def print_text(text: str) -> None:
    """Print a text to standard output as it is, and end its line."""
    with streams.printing():
        sys.stdout.write(text + "\n")


def print_line(message: str) -> None:
    """Print one line to standard output; on a narrow terminal it breaks between words."""
    print_text(streams.fit_to_terminal(message, sys.stdout))


def note(message: str) -> None:
    """Print one line to standard error; on a narrow terminal it breaks between words."""
    streams.write_error(streams.fit_to_terminal(message, sys.stderr) + "\n")


def show_progress(label: str, *, live: bool = False) -> contextlib.AbstractContextManager[None]:
    """Show the progress of a block on standard error: see `igvg_cli.progress.show_progress`."""
    return progress.show_progress(label, write=note, interval=progress.INTERVAL, live=live)
