"""Ref-ZOM: masks of expressions with a target, and whether empty ones are recognised."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Term, divide, divide_precisions, summarize

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def divide_refzom(outcomes: Outcomes) -> dict[str, Term]:
    """oIoU, mIoU, Acc and Pr@0.5 … 0.9.

    Targets are scored by their mask alone, flagged or not; empty ones by the flag alone (DMMI, test.py, which reads the
    flag off an empty mask).
    """
    empty = outcomes.empty
    shared, union = np.where(empty, 0, outcomes.shared_px), np.where(empty, 0, outcomes.union_px)
    iou = divide(shared, union)
    return {
        "oIoU": Term(shared, union),
        "mIoU": Term(iou, ~empty),
        "Acc": Term(empty & outcomes.flagged, empty),
        **divide_precisions(iou, ~empty, THRESHOLDS),
    }


def score_refzom(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `divide_refzom` in percent."""
    return summarize(divide_refzom(outcomes))
