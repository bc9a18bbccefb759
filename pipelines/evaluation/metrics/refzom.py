"""Ref-ZOM: masks of expressions with a target, and whether empty ones are recognised."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, divide, precision_ratios, summarize

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def refzom_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """oIoU, mIoU, Acc and Pr@0.5 … 0.9.

    Targets are scored by their mask alone, flagged or not; empty ones by the flag alone (DMMI, test.py, which reads the
    flag off an empty mask).
    """
    empty = outcomes.empty
    shared, union = np.where(empty, 0, outcomes.intersection_px), np.where(empty, 0, outcomes.union_px)
    iou = divide(shared, union)
    return {
        "oIoU": Ratio(shared, union),
        "mIoU": Ratio(iou, ~empty),
        "Acc": Ratio(empty & outcomes.predicted_empty, empty),
        **precision_ratios(iou, ~empty, THRESHOLDS),
    }


def score_refzom(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `refzom_ratios` in percent."""
    return summarize(refzom_ratios(outcomes))
