"""`igvg score`: predictions and shards in, the benchmark's own metrics out."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipelines.config.overrides import fingerprinted_settings
from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import SplitOutcomes, evaluate_split
from pipelines.evaluation.metrics.outcomes import UNKNOWN_PX, Outcome
from pipelines.evaluation.score_report import ScoreReport, build_report
from pipelines.stages.artifact import KeyedFolder, Stage, StageResult
from pipelines.stages.inputs import digest_input, digest_shards, find_predictions
from shards.errors import DataError
from shards.files import read_json, replace_file, write_json
from shards.progress import begin_stage, log

SCORES = "scores.json"
TABLE = "expressions.csv"
BOX_COLUMNS = ("boxes_match", "boxes_match_giou", "best_box_hits")
MASK_COLUMNS = ("predicted_px", "intersection_px")
# What expressions.csv calls these fields.
COLUMN_NAMES = {"predicted_empty": "flagged", "intersection_px": "shared_px", "image_px": "picture_px"}


def run(
    predictions: Path,
    shards: Path,
    settings: ScoreSettings,
    *,
    out: Path | KeyedFolder | None = None,
    force: bool = False,
) -> StageResult[ScoreReport]:
    """Score predictions against a split, and log warnings about them.

    Args:
        predictions: a prediction file, or the folder of `igvg predict`.
        shards: folder that `igvg prepare` made.
        settings: the split, and the resolution to score at.
        out: folder that keeps scores.json and expressions.csv, one row per expression; None keeps nothing.
        force: replace what igvg left in `out`.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size.
        ArtifactError: `out` holds something else, or the shards are damaged.
    """
    begin_stage(f"scoring {settings.split}")
    if out is None:
        outcomes = _evaluate(predictions, shards, settings)
        report = build_report(outcomes, settings)
        _log_warnings(outcomes.warnings)
        return StageResult(report=report)
    file = find_predictions(predictions)
    inputs = {"predictions": digest_input(file), "shards": digest_shards(shards)}
    stage = Stage(name="score", out=out, inputs=inputs, options=fingerprinted_settings(settings))
    if cached := stage.find(force=force):
        _log_warnings(cached.counts.get("warnings", ()))
        return cached.with_report(_read_report(stage.folder / SCORES))
    with stage.claim(force=force) as cached:
        if cached:
            return cached.with_report(_read_report(stage.folder / SCORES))
        outcomes = _evaluate(file, shards, settings)
        report = build_report(outcomes, settings)
        stage.start(force=force)
        write_json(stage.folder / SCORES, report.to_json())
        _write_table(stage.folder / TABLE, outcomes)
        counts: dict[str, Any] = {"expressions": report.expressions}
        if outcomes.warnings:
            counts["warnings"] = list(outcomes.warnings)
        finished = stage.finish(counts)
    _log_warnings(outcomes.warnings)
    return finished.with_report(report)


def _evaluate(predictions: Path, shards: Path, settings: ScoreSettings) -> SplitOutcomes:
    return evaluate_split(predictions, shards, settings.split, settings.resolution, partial=settings.partial)


def _read_report(file: Path) -> ScoreReport:
    remedy = "make it again with --force"
    values = read_json(file, "scores in JSON", remedy)
    try:
        return ScoreReport(**values)
    except TypeError as error:
        raise DataError(f"does not hold scores ({error})", file=file, remedy=remedy) from error


def _log_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        log(warning)


def _write_table(file: Path, split_outcomes: SplitOutcomes) -> None:
    columns = {name: getattr(split_outcomes.outcomes, name).tolist() for name in Outcome._fields}
    columns["target_px"] = ["" if pixels == UNKNOWN_PX else pixels for pixels in columns["target_px"]]
    # Columns that depend on missing boxes or masks have empty cells, not zeros.
    for given, names in ((split_outcomes.has_boxes, BOX_COLUMNS), (split_outcomes.has_masks, MASK_COLUMNS)):
        columns |= {} if given else {name: [""] * len(split_outcomes.ids) for name in names}
    with replace_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *(COLUMN_NAMES.get(name, name) for name in columns)])
        for row in zip(split_outcomes.ids, *columns.values(), strict=True):
            writer.writerow([int(value) if isinstance(value, bool) else value for value in row])
