"""Predictions of a split compared with the ground truth, one expression at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipelines.evaluation.metrics.benchmarks import metric_ratios
from pipelines.evaluation.metrics.box_matching import IOU_THRESHOLD, match_boxes
from pipelines.evaluation.metrics.outcomes import Outcome, Outcomes, Ratio, count_mask_pixels, stack_outcomes
from pipelines.prediction.alignment import align_predictions, check_mask_size, locate_predictions
from pipelines.prediction.box_iou import box_iou, generalized_box_iou
from pipelines.prediction.prediction import BoxRange, Prediction
from shards.errors import DataError, join_first
from shards.masks import merge_rles, merge_target_masks
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord

_MAX_SHOWN = 3
_PROGRESS_STEP = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitOutcomes:
    """The outcome of every expression of a split, in the order of the shards."""

    dataset: str
    ids: list[str]
    texts: list[str]
    outcomes: Outcomes
    has_boxes: bool = True
    """Whether the predictions have boxes; without them metrics of boxes are None."""
    has_masks: bool = True
    """Whether the predictions have masks; without them metrics of masks are None."""
    warnings: tuple[str, ...] = ()
    """Lines about predictions that look wrong and are scored nevertheless."""

    def ratios(self, outcomes: Outcomes) -> dict[str, Ratio]:
        """The metrics of a selection of the outcomes as ratios of sums."""
        return metric_ratios(self.dataset, outcomes, has_boxes=self.has_boxes, has_masks=self.has_masks)


class BoxMatches(NamedTuple):
    """How predicted boxes compare with the targets' boxes: the fields of `Outcome`."""

    boxes_match: bool
    boxes_match_giou: bool
    best_box_hits: bool


def evaluate_split(
    predictions: Path, shards: Path, split: str, resolution: int = 0, *, partial: bool = False
) -> SplitOutcomes:
    """Compare every prediction for a split with the ground truth.

    Args:
        predictions: a prediction file, or the folder of `igvg predict`.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        resolution: side length in pixels to which masks are resized first; 0: the image's own size.
        partial: whether expressions without a prediction are left out, with a warning; else they are an error.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size; or the
            split has no metrics.
    """
    file = locate_predictions(predictions)
    outcomes: list[Outcome] = []
    ids: list[str] = []
    texts: list[str] = []
    errors: list[DataError] = []
    box_range, has_boxes, has_masks = BoxRange(), True, True
    with ShardReader(shards, split) as reader:
        for record, expression, prediction in align_predictions(file, reader, partial=partial):
            ids.append(expression.id)
            texts.append(expression.text)
            box_range.add(prediction)
            has_boxes, has_masks = prediction.boxes is not None, prediction.mask is not None
            if len(ids) % _PROGRESS_STEP == 0:
                report_progress(len(ids), reader.index.num_expressions)
            try:
                outcomes.append(evaluate_prediction(record, expression, prediction, resolution))
            except DataError as error:
                errors.append(error)
        total = reader.index.num_expressions
    if errors:
        what = join_first([error.what for error in errors], _MAX_SHOWN, "; ")
        raise DataError(what, file=file, remedy=errors[0].remedy)
    return SplitOutcomes(
        dataset=name_dataset(ids, shards, split),
        ids=ids,
        texts=texts,
        outcomes=stack_outcomes(outcomes),
        has_boxes=has_boxes,
        has_masks=has_masks,
        warnings=(*box_range.warnings(file), *_describe_missing(file, len(ids), total)),
    )


def _describe_missing(file: Path, scored: int, total: int) -> list[str]:
    what = f"{file}: {scored:,} of {total:,} expressions have predictions: only these are scored"
    return [what] if scored < total else []


def evaluate_prediction(
    record: ImageRecord, expression: Expression, prediction: Prediction, resolution: int = 0
) -> Outcome:
    """Compare one prediction with the ground truth: its boxes with all targets, its mask with `mask_targets`.

    Without a mask or without boxes, the fields that depend on them are 0 or false; `target_px` is `UNKNOWN_PX` if a
    target has no mask.

    Raises:
        DataError: its mask is not of the image's size.
    """
    check_mask_size(record, prediction)
    targets, mask_targets = record.targets(expression), record.mask_targets(expression)
    target = merge_target_masks(record, expression)
    predicted = prediction.mask or merge_rles([], record.height, record.width)
    predicted_px, target_px, intersection_px = count_mask_pixels(predicted, target, resolution)
    matches = BoxMatches(boxes_match=False, boxes_match_giou=False, best_box_hits=False)
    if prediction.boxes is not None:
        matches = evaluate_boxes(prediction.boxes, prediction.scores, [instance.box for instance in targets])
    return Outcome(
        ref_id=expression.ref_id,
        targets=len(targets),
        predicted_empty=prediction.no_target,
        predicted_px=predicted_px,
        target_px=target_px,
        intersection_px=intersection_px,
        **matches._asdict(),
        image_id=record.image_id,
        image_px=resolution**2 or record.height * record.width,
        crowds=len(targets) - len(mask_targets),
    )


def evaluate_boxes(boxes: ArrayLike, scores: Sequence[float] | None, targets: ArrayLike) -> BoxMatches:
    """Compare predicted boxes (P, 4) with scores (P,) and the targets' boxes (T, 4), all xyxy in pixels."""
    predicted, target = (np.asarray(values, dtype=np.float64).reshape(-1, 4) for values in (boxes, targets))
    best = int(np.argmax(scores)) if scores else 0
    best_iou = box_iou(predicted[best : best + 1], target[:1])
    return BoxMatches(
        boxes_match=match_boxes(predicted, target, box_iou),
        boxes_match_giou=match_boxes(predicted, target, generalized_box_iou),
        best_box_hits=bool((best_iou >= IOU_THRESHOLD).any()),
    )


def name_dataset(ids: list[str], shards: Path, split: str) -> str:
    """The data set that all ids begin with: a published one or one's own.

    Raises:
        DataError: they name several, or there are no ids.
    """
    names = sorted({expression_id.split("/")[0] for expression_id in ids})
    if len(names) != 1:
        found = join_first(names, _MAX_SHOWN) or "no expressions"
        what = f"split '{split}' holds {found}; scores are defined for the expressions of one data set"
        raise DataError(what, file=shards)
    return names[0]
