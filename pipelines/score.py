"""`igvg score`: predictions and shards in, the benchmark's own metrics out.

Both are read side by side, one expression at a time; only what comes out of order waits.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.artifact import begin_work, digest_file, find_finished, finish_work, replace_file, write_json
from pipelines.metrics import TERMS
from pipelines.metrics.breakdown import break_down, estimate_intervals
from pipelines.metrics.grec import match_boxes, measure_boxes
from pipelines.metrics.overlap import Outcome, Outcomes, count_overlap, stack_outcomes, summarize
from pipelines.metrics.robust import count_left_out, divide_robust
from pipelines.overrides import select_material
from pipelines.predictions import PREDICTIONS, Prediction, read_predictions
from pipelines.sources import digest_shards
from shards.errors import DataError
from shards.masks import unite_masks
from shards.reader import ShardReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipelines.artifact import Artifact
    from pipelines.settings import ScoreSettings
    from shards.record import Expression, ImageRecord

SCORES = "scores.json"
TABLE = "expressions.csv"
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class ScoreResult:
    """Scores of one split."""

    document: dict[str, Any]
    """What `igvg score --format json` prints."""
    artifact: Artifact | None = None
    """The record of the folder that keeps them, if one was asked for."""
    hit: bool = False
    """Whether they were already there."""


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
    file = predictions / PREDICTIONS if predictions.is_dir() else predictions
    if out is None:
        return ScoreResult(document=score_file(file, shards, settings)[0])
    if not file.is_file():
        remedy = f"give a {PREDICTIONS}, or the folder that igvg predict made"
        raise DataError("no such file", file=file, remedy=remedy)
    inputs = {"predictions": digest_file(file), "shards": digest_shards(shards)}
    options = select_material(settings)
    if finished := find_finished(out, "score", inputs, options, force=force):
        return ScoreResult(document=json.loads((out / SCORES).read_text("utf-8")), artifact=finished, hit=True)
    document, outcomes, ids = score_file(file, shards, settings)
    begin_work(out, "score", inputs, options, force=force)
    write_json(out / SCORES, document)
    _write_table(out / TABLE, outcomes, ids)
    counts = {"expressions": len(outcomes)}
    return ScoreResult(document=document, artifact=finish_work(out, "score", inputs, options, counts))


def score_file(predictions: Path, shards: Path, settings: ScoreSettings) -> tuple[dict[str, Any], Outcomes, list[str]]:
    """The score document, the outcomes it is made from, and the expressions' ids in the same order.

    Raises:
        DataError: as `run`.
    """
    rows: list[Outcome] = []
    ids: list[str] = []
    faults: list[DataError] = []
    with ShardReader(shards, settings.split) as reader:
        for record, expression, prediction in pair_predictions(predictions, reader):
            ids.append(expression.id)
            try:
                rows.append(judge_prediction(record, expression, prediction, settings.resolution))
            except DataError as error:
                faults.append(error)
    if faults:
        shown = "; ".join(fault.what for fault in faults[:_SHOWN])
        more = f" and {len(faults) - _SHOWN} more like this" if len(faults) > _SHOWN else ""
        raise DataError(shown + more, file=predictions, remedy=faults[0].remedy)
    outcomes = stack_outcomes(rows)
    dataset = name_dataset(ids, shards, settings.split)
    divide = TERMS[dataset]
    terms = divide(outcomes)
    document = {
        "dataset": dataset,
        "split": settings.split,
        "expressions": len(outcomes),
        "metrics": summarize(terms),
        "resolution": settings.resolution,
        "targets": {
            "empty": int(outcomes.empty.sum()),
            "single": int((outcomes.targets == 1).sum()),
            "multiple": int((outcomes.targets > 1).sum()),
        },
        "breakdown": break_down(outcomes, divide),
    }
    if settings.bootstrap:
        samples, seed = settings.bootstrap, settings.seed
        document["intervals"] = estimate_intervals(terms, outcomes.image_id, samples=samples, seed=seed)
    if divide is divide_robust:
        document["left_out"] = count_left_out(outcomes)
    return document, outcomes, ids


def pair_predictions(file: Path, reader: ShardReader) -> Iterator[tuple[ImageRecord, Expression, Prediction]]:
    """Every expression of a split with its prediction, in the order of the shards.

    Raises:
        DataError: ids are unknown, missing or given twice; names the first of them.
    """
    predictions = read_predictions(file)
    waiting: dict[str, Prediction] = {}
    done: set[str] = set()
    missing: list[str] = []
    twice: list[str] = []
    for record in reader.records():
        for expression in record.expressions:
            while expression.id not in waiting:
                prediction = next(predictions, None)
                if prediction is None:
                    break
                if prediction.id in waiting or prediction.id in done:
                    twice.append(prediction.id)
                else:
                    waiting[prediction.id] = prediction
            if expression.id in waiting:
                yield record, expression, waiting.pop(expression.id)
                done.add(expression.id)
            else:
                missing.append(expression.id)
    unknown = [*waiting]
    for prediction in predictions:
        (twice if prediction.id in done or prediction.id in waiting else unknown).append(prediction.id)
    if twice:
        ids = list(dict.fromkeys(twice))
        what = f"{_list_ids(ids)} {'is' if len(ids) == 1 else 'are'} given twice"
        raise DataError(what, file=file, remedy="keep one of its lines" if len(ids) == 1 else "keep one line of each")
    if unknown:
        what = f"{_list_ids(unknown)}: not in split '{reader.split}' of {reader.folder}"
        raise DataError(what, file=file, remedy="score against the split that was predicted")
    if missing:
        raise DataError(f"no prediction for {_list_ids(missing)}", file=file, remedy="predict every expression once")


def judge_prediction(
    record: ImageRecord, expression: Expression, prediction: Prediction, resolution: int = 0
) -> Outcome:
    """Compare one prediction with the truth.

    Raises:
        DataError: its mask has another size than the picture.
    """
    if prediction.mask["size"] != [record.height, record.width]:
        raise DataError(
            f"the mask of {expression.id} has size {prediction.mask['size']}, its picture [{record.height}, "
            f"{record.width}]",
            remedy="give masks at the original picture's size",
        )
    instances = [record.instances[position] for position in expression.instances]
    # Drawing a blank mask for each empty target would take a quarter of the time of scoring.
    target = unite_masks([instance.mask for instance in instances], record.height, record.width) if instances else None
    predicted_px, target_px, shared_px = count_overlap(prediction.mask, target, resolution)
    boxes = _stack_boxes(prediction.boxes)
    targets = _stack_boxes([instance.box for instance in instances])
    return Outcome(
        ref_id=expression.ref_id,
        targets=len(instances),
        flagged=prediction.no_target,
        predicted_px=predicted_px,
        target_px=target_px,
        shared_px=shared_px,
        boxes_match=match_boxes(boxes, targets, "iou"),
        boxes_match_giou=match_boxes(boxes, targets, "giou"),
        best_box_hits=_hits_best(boxes, prediction.scores, targets),
        image_id=record.image_id,
        picture_px=resolution**2 or record.height * record.width,
    )


def name_dataset(ids: list[str], shards: Path, split: str) -> str:
    """The data set that all ids begin with.

    Raises:
        DataError: they name several, or one that has no metrics; or there are no ids.
    """
    names = sorted({expression_id.split("/")[0] for expression_id in ids})
    if len(names) != 1 or names[0] not in TERMS:
        found = ", ".join(names) or "no expressions"
        what = f"split '{split}' holds {found}; scores are defined for one of {', '.join(TERMS)}"
        raise DataError(what, file=shards)
    return names[0]


def _hits_best(boxes: NDArray[np.float64], scores: list[float] | None, targets: NDArray[np.float64]) -> bool:
    if not len(boxes) or not len(targets):
        return False
    best = int(np.argmax(scores)) if scores else 0
    return bool(measure_boxes(boxes[best : best + 1], targets[:1], "iou")[0, 0] >= 0.5)


def _stack_boxes(boxes: Any) -> NDArray[np.float64]:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _list_ids(ids: list[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    more = f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else ""
    return shown + more


def _write_table(file: Path, outcomes: Outcomes, ids: list[str]) -> None:
    columns = {name: getattr(outcomes, name).tolist() for name in Outcome._fields}
    with replace_file(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", *columns])
        for row in zip(ids, *columns.values(), strict=True):
            writer.writerow([int(value) if isinstance(value, bool) else value for value in row])
