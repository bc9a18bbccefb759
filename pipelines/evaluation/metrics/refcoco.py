"""RefCOCO/+/g: one object per expression, as a mask and as a box."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, precision_ratios, safe_divide

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def refcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """mIoU, oIoU, Pr@0.5 … 0.9 and Acc@0.5 (boxes), over expressions with a target."""
    counted = ~outcomes.empty
    intersection, union = np.where(counted, outcomes.intersection_px, 0), np.where(counted, outcomes.union_px, 0)
    iou = safe_divide(intersection, union)
    return {
        "mIoU": Ratio(iou, counted),
        "oIoU": Ratio(intersection, union),
        **precision_ratios(iou, counted, THRESHOLDS),
        "Acc@0.5": Ratio(counted & outcomes.best_box_hits, counted),
    }
