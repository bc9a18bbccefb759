"""RefCOCO/+/g: one object for each expression, as a mask and as a box."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Term, divide, divide_precisions, summarize

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def divide_classic(outcomes: Outcomes) -> dict[str, Term]:
    """mIoU, oIoU, Pr@0.5 … 0.9 and Acc@0.5 (boxes), over expressions with a target."""
    found = ~outcomes.empty
    shared, union = np.where(found, outcomes.shared_px, 0), np.where(found, outcomes.union_px, 0)
    iou = divide(shared, union)
    return {
        "mIoU": Term(iou, found),
        "oIoU": Term(shared, union),
        **divide_precisions(iou, found, THRESHOLDS),
        "Acc@0.5": Term(found & outcomes.best_box_hits, found),
    }


def score_classic(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `divide_classic` in percent."""
    return summarize(divide_classic(outcomes))
