"""RefCOCO/+/g: one object for each expression, as a mask and as a box."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, divide, precision_ratios, summarize

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def refcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """mIoU, oIoU, Pr@0.5 … 0.9 and Acc@0.5 (boxes), over expressions with a target."""
    found = ~outcomes.empty
    shared, union = np.where(found, outcomes.intersection_px, 0), np.where(found, outcomes.union_px, 0)
    iou = divide(shared, union)
    return {
        "mIoU": Ratio(iou, found),
        "oIoU": Ratio(shared, union),
        **precision_ratios(iou, found, THRESHOLDS),
        "Acc@0.5": Ratio(found & outcomes.best_box_hits, found),
    }


def score_refcoco(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `refcoco_ratios` in percent."""
    return summarize(refcoco_ratios(outcomes))
