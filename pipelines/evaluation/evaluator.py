"""Predictions against the truth: every expression of a split with its prediction, and how the two compare.

Both are read side by side, one expression at a time; only what comes out of order waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipelines.evaluation.metrics.benchmarks import METRICS, metric_ratios
from pipelines.evaluation.metrics.box_matching import OVERLAP, match_boxes, pairwise_box_overlap
from pipelines.evaluation.metrics.outcomes import Outcome, Outcomes, Ratio, count_mask_pixels, stack_outcomes
from pipelines.prediction.alignment import align_predictions, check_mask_size, locate_predictions
from pipelines.prediction.prediction_file import BoxExtent, Prediction
from shards.errors import DataError, join_first
from shards.masks import merge_rles
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.record import Expression, ImageRecord

_SHOWN = 3
_PROGRESS_STEP = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitOutcomes:
    """A prediction file, compared with the truth; columns in the order of the shards."""

    dataset: str
    ids: list[str]
    texts: list[str]
    """What the expressions say."""
    outcomes: Outcomes
    has_boxes: bool = True
    """Whether the predictions give boxes; without them no metric of boxes is measured."""
    has_masks: bool = True
    """Whether the predictions give masks; without them no metric of masks is measured."""
    warnings: tuple[str, ...] = ()
    """What looks wrong in the file and is scored nevertheless."""

    def divide(self, outcomes: Outcomes) -> dict[str, Ratio]:
        """The metrics of some of the outcomes as ratios of sums; of what is not predicted, 0 ÷ 0."""
        return metric_ratios(self.dataset, outcomes, boxes=self.has_boxes, masks=self.has_masks)


class BoxMatches(NamedTuple):
    """How predicted boxes compare with the targets' boxes; as in `Outcome`."""

    iou: bool
    giou: bool
    best: bool


def evaluate_split(predictions: Path, shards: Path, split: str, resolution: int = 0) -> SplitOutcomes:
    """Compare every prediction for a split with the truth.

    Args:
        predictions: a prediction file, or the folder of `igvg predict`.
        shards: folder that `igvg prepare` made.
        split: of the shards.
        resolution: masks are scaled to so many pixels square first; 0: the picture's own size.

    Raises:
        DataError: a prediction is damaged, unknown, missing, given twice, or has a mask of the wrong size; or the
            split has no metrics.
    """
    file = locate_predictions(predictions)
    rows: list[Outcome] = []
    ids: list[str] = []
    texts: list[str] = []
    faults: list[DataError] = []
    extent, given = BoxExtent(), (True, True)
    with ShardReader(shards, split) as reader:
        for record, expression, prediction in align_predictions(file, reader):
            ids.append(expression.id)
            texts.append(expression.text)
            extent.add(prediction)
            given = prediction.boxes is not None, prediction.mask is not None
            if len(ids) % _PROGRESS_STEP == 0:
                report_progress(len(ids), reader.index.num_expressions)
            try:
                rows.append(evaluate_prediction(record, expression, prediction, resolution))
            except DataError as error:
                faults.append(error)
    if faults:
        shown = join_first([error.what for error in faults], _SHOWN, "; ")
        raise DataError(shown, file=file, remedy=faults[0].remedy)
    return SplitOutcomes(
        dataset=name_dataset(ids, shards, split),
        ids=ids,
        texts=texts,
        outcomes=stack_outcomes(rows),
        has_boxes=given[0],
        has_masks=given[1],
        warnings=tuple(extent.warn(file)),
    )


def evaluate_prediction(
    record: ImageRecord, expression: Expression, prediction: Prediction, resolution: int = 0
) -> Outcome:
    """Compare one prediction with the truth: its boxes with all targets, its mask with those that have a mask truth.

    Where it gives no mask or no boxes, what these decide is 0 or false.

    Raises:
        DataError: its mask has another size than the picture.
    """
    check_mask_size(record, prediction)
    instances, masked = record.targets(expression), record.mask_targets(expression)
    # Drawing a blank mask for each empty target would take a quarter of the time of scoring.
    target = merge_rles([instance.mask for instance in masked], record.height, record.width) if masked else None
    predicted_px, target_px, intersection_px = count_mask_pixels(prediction.mask, target, resolution)
    matches = BoxMatches(iou=False, giou=False, best=False)
    if prediction.boxes is not None:
        matches = evaluate_boxes(prediction.boxes, prediction.scores, [instance.box for instance in instances])
    return Outcome(
        ref_id=expression.ref_id,
        targets=len(instances),
        predicted_empty=prediction.no_target,
        predicted_px=predicted_px,
        target_px=target_px,
        intersection_px=intersection_px,
        boxes_match=matches.iou,
        boxes_match_giou=matches.giou,
        best_box_hits=matches.best,
        image_id=record.image_id,
        image_px=resolution**2 or record.height * record.width,
        crowds=len(instances) - len(masked),
    )


def evaluate_boxes(boxes: ArrayLike, scores: Sequence[float] | None, targets: ArrayLike) -> BoxMatches:
    """Compare predicted boxes (P, 4) and their scores (P,) with the targets' boxes (T, 4), all xyxy in pixels."""
    found, wanted = (np.asarray(some, dtype=np.float64).reshape(-1, 4) for some in (boxes, targets))
    hits = False
    if len(found) and len(wanted):
        best = int(np.argmax(scores)) if scores else 0
        hits = bool(pairwise_box_overlap(found[best : best + 1], wanted[:1], "iou")[0, 0] >= OVERLAP)
    return BoxMatches(match_boxes(found, wanted, "iou"), match_boxes(found, wanted, "giou"), hits)


def name_dataset(ids: list[str], shards: Path, split: str) -> str:
    """The data set that all ids begin with.

    Raises:
        DataError: they name several, or one that has no metrics; or there are no ids.
    """
    names = sorted({expression_id.split("/")[0] for expression_id in ids})
    if len(names) != 1 or names[0] not in METRICS:
        found = ", ".join(names) or "no expressions"
        what = f"split '{split}' holds {found}; scores are defined for one of {', '.join(METRICS)}"
        raise DataError(what, file=shards)
    return names[0]
