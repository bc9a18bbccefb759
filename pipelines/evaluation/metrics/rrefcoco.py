"""R-RefCOCO/+/g: every ref has phrases that fit its object and phrases that fit nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, divide, summarize


def rrefcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """mIoU, oIoU, mRR and rIoU, each ref weighing the same (RefSegformer, utils/validation.py).

    Of ref r with intersections I and unions U over the phrases that fit: mIoU is the mean of its phrases' IoU, mRR the
    share of its other phrases that are flagged, rIoU is I ÷ (U + pixels predicted for those that are not flagged); then
    the mean over refs. oIoU is the ratio of sums over all phrases that fit. A ref without the phrases that an average
    needs is left out of it. What belongs to a ref stands at its first expression.
    """
    refs, first, which = np.unique(outcomes.ref_id, return_index=True, return_inverse=True)
    empty = outcomes.empty

    def total(values: NDArray[np.generic], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(which, np.where(chosen, values, 0), len(refs)).astype(np.float64)

    ones = np.ones(len(outcomes))
    fitting, others = total(ones, ~empty), total(ones, empty)
    shared, union = total(outcomes.intersection_px, ~empty), total(outcomes.union_px, ~empty)
    ious = total(divide(outcomes.intersection_px, outcomes.union_px), ~empty)
    refused = total(ones, empty & outcomes.predicted_empty)
    mistaken = total(outcomes.predicted_px, empty & ~outcomes.predicted_empty)
    with_target, with_empty = fitting > 0, others > 0
    robust = _divide_where(shared, union + mistaken)

    def place(values: NDArray[np.generic]) -> NDArray[np.float64]:
        placed = np.zeros(len(outcomes))
        placed[first] = values
        return placed

    return {
        "mIoU": Ratio(place(_divide_where(ious, fitting)), place(with_target)),
        "oIoU": Ratio(place(shared), place(union)),
        "mRR": Ratio(place(_divide_where(refused, others)), place(with_empty)),
        "rIoU": Ratio(place(np.where(with_target, robust, 0)), place(with_target)),
    }


def score_rrefcoco(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `rrefcoco_ratios` in percent."""
    return summarize(rrefcoco_ratios(outcomes))


def count_left_out(outcomes: Outcomes) -> dict[str, int]:
    """Refs that some average leaves out: those without a fitting phrase, and those without another."""
    refs = np.unique(outcomes.ref_id)
    with_target = np.unique(outcomes.ref_id[~outcomes.empty])
    with_empty = np.unique(outcomes.ref_id[outcomes.empty])
    return {
        "refs_without_positives": len(refs) - len(with_target),
        "refs_without_negatives": len(refs) - len(with_empty),
    }


def _divide_where(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return ratio
