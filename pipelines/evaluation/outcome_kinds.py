"""What kind of success or error the prediction for one expression is, and its IoU.

An expression has one kind. With P predicted boxes and T > 0 targets, boxes and targets are paired one to one, the pair
with the highest IoU first, while it is at least `BACKGROUND_IOU`; the kinds are tried in this order:

| kind | targets | definition |
| --- | --- | --- |
| missed empty | 0 | a target is predicted |
| false empty | > 0 | no target is predicted |
| wrong object | > 0 | no pair, and the region's IoU is below `BACKGROUND_IOU` |
| lost instance | > 0 | a target is in no pair |
| extra instance | > 0 | a predicted box is in no pair |
| loose mask | > 0 | the IoU of the region, or of a pair, is below `FOREGROUND_IOU` |
| correct | any | all others |

The region is the predicted mask, compared with the union of the targets' masks. Of predictions without masks, and where
only the box of a target is known, it is the area that the boxes cover. Predictions without boxes have no pairs: a
target is lost if less than `BACKGROUND_IOU` of its pixels are in the mask, and an extra instance does not show.

So with boxes and masks a target is correct if its boxes match as F1score demands and its mask has IoU ≥ 0.5. The two
thresholds are those of TIDE (Bolya et al. 2020, section 2.2): foreground and background.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipelines.evaluation.metrics.box_matching import IOU_THRESHOLD, match_greedily
from pipelines.evaluation.metrics.outcomes import count_mask_pixels
from pipelines.prediction.box_iou import box_iou
from pipelines.prediction.prediction import Prediction
from shards.datasets import find_family
from shards.masks import box_to_rle, intersect_rles, merge_target_masks, rle_area, rle_to_box
from shards.record import Expression, ImageRecord, Instance, Rle

FOREGROUND_IOU = IOU_THRESHOLD
BACKGROUND_IOU = 0.1


class OutcomeKind(StrEnum):
    """The kinds, best first."""

    CORRECT = "correct"
    LOOSE_MASK = "loose mask"
    EXTRA_INSTANCE = "extra instance"
    LOST_INSTANCE = "lost instance"
    WRONG_OBJECT = "wrong object"
    FALSE_EMPTY = "false empty"
    MISSED_EMPTY = "missed empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionResult:
    """The kind of the prediction for one expression, and its IoU."""

    kind: OutcomeKind
    iou: float
    """In [0, 1], of the regions, as the benchmark counts it: 1 for an empty target that is predicted empty, 0 for any
    other empty target, and in gRefCOCO 0 for a target that is predicted empty."""


def classify_prediction(
    record: ImageRecord, expression: Expression, prediction: Prediction, resolution: int = 0
) -> ExpressionResult:
    """The result of one prediction, whose mask has the image's size.

    Args:
        record: the image.
        expression: one of the record's.
        prediction: for the expression.
        resolution: side in pixels to which masks are resized first, as in scoring; 0: the image's own size.
    """
    targets = record.targets(expression)
    if not targets:
        kind = OutcomeKind.CORRECT if prediction.no_target else OutcomeKind.MISSED_EMPTY
        return ExpressionResult(kind=kind, iou=float(prediction.no_target))
    boxes = [instance.box for instance in targets]
    target_mask = merge_target_masks(record, expression)
    if prediction.mask is None or target_mask is None:
        iou = region_iou(_list_boxes(prediction), boxes)
    else:
        iou = mask_iou(prediction.mask, target_mask, resolution)
    if prediction.no_target:
        counted = 0.0 if find_family(expression.id.partition("/")[0]) == "grefcoco" else iou
        return ExpressionResult(kind=OutcomeKind.FALSE_EMPTY, iou=counted)
    if prediction.boxes is None:
        lost = count_uncovered(prediction.mask, targets)
        return ExpressionResult(kind=_name_kind(iou, paired=lost < len(targets), lost=lost, extra=0), iou=iou)
    overlaps = box_iou(_stack(prediction.boxes), _stack(boxes))
    pairs = match_greedily(overlaps, BACKGROUND_IOU)
    kind = _name_kind(
        min([iou, *pairs]) if pairs else iou,
        paired=bool(pairs) or iou >= BACKGROUND_IOU,
        lost=len(targets) - len(pairs),
        extra=len(prediction.boxes) - len(pairs),
    )
    return ExpressionResult(kind=kind, iou=iou)


def mask_iou(predicted: Rle, target: Rle, resolution: int = 0) -> float:
    """IoU of two masks of one size; 0 if both are empty, as in the benchmarks' code."""
    predicted_px, target_px, intersection_px = count_mask_pixels(predicted, target, resolution)
    union_px = predicted_px + target_px - intersection_px
    return intersection_px / union_px if union_px else 0.0


def region_iou(boxes: ArrayLike, targets: ArrayLike) -> float:
    """IoU of the regions that two sets of boxes xyxy (P, 4) and (T, 4) cover; 0 if neither covers any."""
    first, second = _stack(boxes), _stack(targets)
    corners = np.concatenate((first, second))
    xs, ys = np.unique(corners[:, 0::2]), np.unique(corners[:, 1::2])
    # The cells between the edges of all boxes are each inside or outside of every box.
    cells = np.diff(ys)[:, None] * np.diff(xs)
    covered = np.stack([_cover(group, xs, ys) for group in (first, second)])
    union = float(cells[covered.any(axis=0)].sum())
    return float(cells[covered.all(axis=0)].sum()) / union if union else 0.0


def _cover(boxes: NDArray[np.float64], xs: NDArray[np.float64], ys: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which cells between the coordinates `ys` and `xs` lie in a box (P, 4) whose corners are among them."""
    columns, rows = np.searchsorted(xs, boxes[:, 0::2]), np.searchsorted(ys, boxes[:, 1::2])
    # The number of boxes around a cell is the sum of the corners above and to the left of it, with their signs.
    corners = np.zeros((len(ys), len(xs)), dtype=np.int64)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        np.add.at(corners, (rows[:, row], columns[:, column]), 1 if row == column else -1)
    inside: NDArray[np.bool_] = corners.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0
    return inside


def _list_boxes(prediction: Prediction) -> list[list[float]]:
    """The predicted boxes; of a mask alone, the box around it."""
    if prediction.boxes is None and prediction.mask is not None and rle_area(prediction.mask):
        return [list(rle_to_box(prediction.mask))]
    return prediction.boxes or []


def count_uncovered(mask: Rle | None, targets: tuple[Instance, ...]) -> int:
    """The targets of which a mask has less than `BACKGROUND_IOU` of the pixels, or else of the box."""
    if mask is None:
        return len(targets)
    height, width = mask["size"]
    regions = [target.mask or box_to_rle(target.box, height, width) for target in targets]
    return sum(rle_area(intersect_rles([mask, region])) < BACKGROUND_IOU * rle_area(region) for region in regions)


def _name_kind(lowest_iou: float, *, paired: bool, lost: int, extra: int) -> OutcomeKind:
    if not paired:
        return OutcomeKind.WRONG_OBJECT
    if lost:
        return OutcomeKind.LOST_INSTANCE
    if extra:
        return OutcomeKind.EXTRA_INSTANCE
    return OutcomeKind.CORRECT if lowest_iou >= FOREGROUND_IOU else OutcomeKind.LOOSE_MASK


def _stack(boxes: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
