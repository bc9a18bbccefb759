"""R-RefCOCO/+/g: every ref has positive expressions about its object and negative expressions about nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, safe_divide


def rrefcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """mIoU, oIoU, mRR and rIoU; all but oIoU give each ref the same weight (RefSegformer, utils/validation.py).

    For a ref with intersections I and unions U over its positive expressions: mIoU averages their IoU; mRR is the
    fraction of its negative expressions that are predicted empty; rIoU is I ÷ (U + predicted pixels of the negative
    expressions that are not predicted empty). The metric is the mean over refs; a ref without the expressions that it
    needs is left out. oIoU is the ratio of sums over all positive expressions. The values of a ref are stored at its
    first expression.
    """
    refs, first, ref_index = np.unique(outcomes.ref_id, return_index=True, return_inverse=True)
    positive, negative = ~outcomes.empty, outcomes.empty

    def sum_by_ref(values: NDArray[np.generic] | int, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(ref_index, np.where(counted, values, 0), len(refs)).astype(np.float64)

    def at_first(values: NDArray[np.generic]) -> NDArray[np.float64]:
        column = np.zeros(len(outcomes))
        column[first] = values
        return column

    positives, negatives = sum_by_ref(1, positive), sum_by_ref(1, negative)
    intersection, union = sum_by_ref(outcomes.intersection_px, positive), sum_by_ref(outcomes.union_px, positive)
    iou = sum_by_ref(safe_divide(outcomes.intersection_px, outcomes.union_px), positive)
    rejected = sum_by_ref(1, negative & outcomes.predicted_empty)
    false_positive_px = sum_by_ref(outcomes.predicted_px, negative & ~outcomes.predicted_empty)
    robust_iou = np.where(positives > 0, safe_divide(intersection, union + false_positive_px), 0)
    return {
        "mIoU": Ratio(at_first(safe_divide(iou, positives)), at_first(positives > 0)),
        "oIoU": Ratio(at_first(intersection), at_first(union)),
        "mRR": Ratio(at_first(safe_divide(rejected, negatives)), at_first(negatives > 0)),
        "rIoU": Ratio(at_first(robust_iou), at_first(positives > 0)),
    }


def count_left_out(outcomes: Outcomes) -> dict[str, int]:
    """Number of refs that an average leaves out: those without a positive and those without a negative expression."""
    refs = np.unique(outcomes.ref_id)
    with_positives = np.unique(outcomes.ref_id[~outcomes.empty])
    with_negatives = np.unique(outcomes.ref_id[outcomes.empty])
    return {
        "refs_without_positives": len(refs) - len(with_positives),
        "refs_without_negatives": len(refs) - len(with_negatives),
    }
