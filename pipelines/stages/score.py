"""`igvg score`: predictions and shards in, the benchmark's own metrics out."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config.overrides import fingerprinted_settings
from pipelines.config.settings import ScoreSettings
from pipelines.evaluation.evaluator import SplitOutcomes, evaluate_split
from pipelines.evaluation.metrics.benchmarks import METRICS
from pipelines.evaluation.metrics.bootstrap import estimate_intervals
from pipelines.evaluation.metrics.breakdown import break_down
from pipelines.evaluation.metrics.outcomes import Outcome, summarize
from pipelines.evaluation.metrics.rrefcoco import count_left_out, rrefcoco_ratios
from pipelines.prediction.alignment import locate_predictions
from pipelines.prediction.prediction_file import PREDICTIONS
from pipelines.stages.artifact import Artifact, begin_work, find_finished, finish_work
from pipelines.stages.inputs import digest_shards
from shards.errors import DataError
from shards.files import digest_file, read_json, replace_file, write_json
from shards.progress import begin_stage

SCORES = "scores.json"
TABLE = "expressions.csv"
BOX_COLUMNS = ("boxes_match", "boxes_match_giou", "best_box_hits")
MASK_COLUMNS = ("predicted_px", "intersection_px")
# What expressions.csv calls these fields.
COLUMN_NAMES = {"predicted_empty": "flagged", "intersection_px": "shared_px", "image_px": "picture_px"}


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Scores of one split."""

    document: dict[str, Any]
    """What `igvg score --format json` prints."""
    artifact: Artifact | None = None
    """The record of the folder that keeps them, if one was asked for."""
    hit: bool = False
    """Whether they were already there."""
    warnings: tuple[str, ...] = ()
    """What looks wrong in the predictions and is scored nevertheless."""


def run(
    predictions: Path, shards: Path, settings: ScoreSettings, *, out: Path | None = None, force: bool = False
) -> ScoreResult:
    """Score predictions against a split.

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
    file = locate_predictions(predictions)
    if out is None:
        split_outcomes = _judge(file, shards, settings)
        return ScoreResult(document=describe_scores(split_outcomes, settings), warnings=split_outcomes.warnings)
    inputs, options = describe(settings, file, shards)
    if finished := find_finished(out, "score", inputs, options, force=force):
        document = read_json(out / SCORES, "scores in JSON", "make it again with --force")
        warnings = tuple(finished.counts.get("warnings", ()))
        return ScoreResult(document=document, artifact=finished, hit=True, warnings=warnings)
    split_outcomes = _judge(file, shards, settings)
    document = describe_scores(split_outcomes, settings)
    begin_work(out, "score", inputs, options, force=force)
    write_json(out / SCORES, document)
    _write_table(out / TABLE, split_outcomes)
    counts: dict[str, Any] = {"expressions": len(split_outcomes.ids)}
    if split_outcomes.warnings:
        counts["warnings"] = list(split_outcomes.warnings)
    artifact = finish_work(out, "score", inputs, options, counts)
    return ScoreResult(document=document, artifact=artifact, warnings=split_outcomes.warnings)


def describe(settings: ScoreSettings, predictions: Path, shards: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and options that make up the fingerprint of kept scores.

    Raises:
        DataError: there are no predictions.
        ArtifactError: the shards are damaged.
    """
    file = locate_predictions(predictions)
    if not file.is_file():
        remedy = f"give a {PREDICTIONS}, or the folder that igvg predict made"
        raise DataError("no such file", file=file, remedy=remedy)
    return {"predictions": digest_file(file), "shards": digest_shards(shards)}, fingerprinted_settings(settings)


def describe_scores(split_outcomes: SplitOutcomes, settings: ScoreSettings) -> dict[str, Any]:
    """The score document: metrics, intervals and breakdowns of a whole split."""
    outcomes = split_outcomes.outcomes
    terms = split_outcomes.ratios(outcomes)
    document: dict[str, Any] = {
        "dataset": split_outcomes.dataset,
        "split": settings.split,
        "expressions": len(outcomes),
        "metrics": summarize(terms),
        "resolution": settings.resolution,
        "targets": {
            "empty": int(outcomes.empty.sum()),
            "single": int((outcomes.targets == 1).sum()),
            "multiple": int((outcomes.targets > 1).sum()),
        },
        "breakdown": break_down(outcomes, split_outcomes.ratios),
    }
    if not (split_outcomes.has_boxes and split_outcomes.has_masks):
        document["not_predicted"] = "masks" if split_outcomes.has_boxes else "boxes"
    if settings.bootstrap:
        samples, seed = settings.bootstrap, settings.seed
        document["intervals"] = estimate_intervals(terms, outcomes.image_id, samples=samples, seed=seed)
    if crowds := int(outcomes.crowd_only.sum()):
        document["crowd_only"] = crowds
    if METRICS[split_outcomes.dataset] is rrefcoco_ratios:
        document["left_out"] = count_left_out(outcomes)
    return document


def _judge(file: Path, shards: Path, settings: ScoreSettings) -> SplitOutcomes:
    return evaluate_split(file, shards, settings.split, settings.resolution)


def _write_table(file: Path, split_outcomes: SplitOutcomes) -> None:
    columns = {name: getattr(split_outcomes.outcomes, name).tolist() for name in Outcome._fields}
    # What was not predicted was not measured: empty cells, not zeros.
    for given, names in ((split_outcomes.has_boxes, BOX_COLUMNS), (split_outcomes.has_masks, MASK_COLUMNS)):
        columns |= {} if given else {name: [""] * len(split_outcomes.ids) for name in names}
    with replace_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *(COLUMN_NAMES.get(name, name) for name in columns)])
        for row in zip(split_outcomes.ids, *columns.values(), strict=True):
            writer.writerow([int(value) if isinstance(value, bool) else value for value in row])
