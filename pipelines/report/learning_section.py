"""The section of a summary about a training: losses, learning rates and validation scores of its log.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.evaluation.score_format import format_score
from pipelines.report.charts import MAX_SERIES, PERCENT, Axis, CurvePoint, draw_curves
from pipelines.report.score_sections import pick_headlines
from pipelines.report.sections import Figure, Row, Section, Table
from shards.errors import DataError

MAX_POINTS = 100
"""Longer curves are drawn as means of as many runs of neighboring steps."""
# Terms of the loss that are drawn together. Those of the decoder's earlier layers end in _layer1, _layer2, …
_LOSS_GROUPS = {
    "Total loss": ("total",),
    "Losses of classes and existence": ("classes", "existence"),
    "Losses of boxes": ("boxes", "giou"),
    "Losses of instance masks": ("instance_dice", "instance_bce", "negative_dice", "negative_bce"),
    "Losses of the global mask and of attention": ("global_dice", "global_bce", "attention_dice", "attention_bce"),
}
_REMEDY = "give the folder of a finished igvg train, or train again"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A quantity of a log by step."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """What a log holds."""

    losses: Mapping[str, Curve]
    learning_rates: Mapping[str, Curve]
    scores: Mapping[str, Mapping[str, Curve]]
    """By validation split and metric."""


def read_training_log(file: Path) -> TrainingCurves:
    """Read the log.jsonl of a training; the end of a line that a killed training left is passed over.

    Raises:
        DataError: the file is missing, or a line is no record of a training.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError("is no text in UTF-8", file=file, remedy=_REMEDY) from error
    except FileNotFoundError as error:
        raise DataError("no such file", file=file, remedy=_REMEDY) from error
    losses: dict[str, list[tuple[float, float]]] = {}
    rates: dict[str, list[tuple[float, float]]] = {}
    scores: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line, parse_constant=lambda _: None)
            step = _check_number(record["step"])
            _collect(losses, step, record.get("losses", {}))
            _collect(rates, step, record.get("learning_rates", {}))
            for split, metrics in record.get("scores", {}).items():
                _collect(scores.setdefault(str(split), {}), step, metrics)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            if number == len(lines):
                break
            raise DataError("is no record of a training", file=file, record=f"line {number}", remedy=_REMEDY) from error
    return TrainingCurves(
        losses=_join(losses),
        learning_rates=_join(rates),
        scores={name: _join(curves) for name, curves in scores.items()},
    )


def describe_training(curves: TrainingCurves) -> Section:
    """Learning curves of a training."""
    grouped = {name for names in _LOSS_GROUPS.values() for name in names}
    others = [name for name in curves.losses if name not in grouped and "_layer" not in name][:MAX_SERIES]
    groups = {**_LOSS_GROUPS, "Other losses": tuple(others)}
    figures = [
        _draw_curves(title, [curves.losses[name] for name in names if name in curves.losses], Axis(title="loss"), ".4g")
        for title, names in groups.items()
    ]
    rate = Axis(title="learning rate", format="~e")
    figures.append(_draw_curves("Learning rates", list(curves.learning_rates.values()), rate, ".3g"))
    for split, metrics in curves.scores.items():
        shown = [metrics[name] for name in pick_headlines(list(metrics))][:MAX_SERIES]
        figures.append(_draw_curves(f"Validation scores, {split}", shown, PERCENT, ""))
    notes = [] if curves.losses else ["The log holds no losses yet."]
    if curves.losses and not curves.learning_rates:
        notes.append("The log holds no learning rates: an earlier igvg wrote it.")
    if not curves.scores:
        notes.append("The log holds no validation scores.")
    if any(len(curve.steps) > MAX_POINTS for curve in curves.losses.values()):
        notes.append(f"Each point of a long curve is the mean of neighboring steps; there are at most {MAX_POINTS}.")
    return Section(
        key="training",
        title="Training",
        lead="Losses as they enter the sum that is minimized, before their weights; those of the decoder's earlier "
        "layers are left out.",
        notes=tuple(notes),
        figures=tuple(figure for figure in figures if figure),
    )


def average_neighbors(curve: Curve, most: int = MAX_POINTS) -> Curve:
    """A curve of at most `most` points: means of the steps and values of equally many neighbors."""
    size = math.ceil(len(curve.steps) / most) if curve.steps else 1
    runs = [slice(start, start + size) for start in range(0, len(curve.steps), size)]
    return Curve(
        name=curve.name,
        steps=tuple(math.fsum(curve.steps[run]) / len(curve.steps[run]) for run in runs),
        values=tuple(math.fsum(curve.values[run]) / len(curve.values[run]) for run in runs),
    )


def _collect(series: dict[str, list[tuple[float, float]]], step: float, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        points = series.setdefault(str(name), [])
        if value is not None:
            points.append((step, _check_number(value)))


def _check_number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _join(series: Mapping[str, list[tuple[float, float]]]) -> dict[str, Curve]:
    return {
        name: Curve(name=name, steps=tuple(step for step, _ in points), values=tuple(value for _, value in points))
        for name, points in series.items()
        if points
    }


def _draw_curves(title: str, curves: Sequence[Curve], y: Axis, form: str) -> Figure | None:
    if not curves:
        return None
    drawn = [average_neighbors(curve) for curve in curves]
    points = [
        CurvePoint(series=curve.name, x=step, y=value)
        for curve in drawn
        for step, value in zip(curve.steps, curve.values, strict=True)
    ]
    by_step = {curve.name: dict(zip(curve.steps, curve.values, strict=True)) for curve in drawn}
    steps = sorted({step for values in by_step.values() for step in values})
    table = Table(
        caption=title,
        columns=("step", *by_step),
        rows=tuple(
            Row(label=f"{step:,.0f}", cells=tuple(_format(values.get(step), form) for values in by_step.values()))
            for step in steps
        ),
    )
    svg = draw_curves(points, list(by_step), Axis(title="step", format="~s" if steps[-1] > 9999 else ",d"), y)
    ends = ", ".join(f"{curve.name} {_format(curve.values[-1], form)}" for curve in drawn)
    return Figure(title=title, svg=svg, description=f"{title} by training step; at the end: {ends}.", values=table)


def _format(value: float | None, form: str) -> str:
    return format_score(value) if value is None or not form else format(value, form)
