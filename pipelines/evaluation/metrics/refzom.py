"""Ref-ZOM: masks of expressions with a target, and recognition of empty targets."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, precision_ratios, safe_divide

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def refzom_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """oIoU, mIoU, Acc and Pr@0.5 … 0.9.

    Expressions with a target are scored by the mask alone, whatever `no_target` says; empty targets by `no_target`
    alone (DMMI, test.py, which derives it from an empty mask).
    """
    empty = outcomes.empty
    intersection, union = np.where(empty, 0, outcomes.intersection_px), np.where(empty, 0, outcomes.union_px)
    iou = safe_divide(intersection, union)
    return {
        "oIoU": Ratio(intersection, union),
        "mIoU": Ratio(iou, ~empty),
        "Acc": Ratio(empty & outcomes.predicted_empty, empty),
        **precision_ratios(iou, ~empty, THRESHOLDS),
    }
