"""Ref-ZOM: masks of expressions with a target, and whether empty ones are recognised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.metrics.overlap import divide, measure_precisions, to_percent

if TYPE_CHECKING:
    from pipelines.metrics.overlap import Outcomes

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def score_refzom(outcomes: Outcomes) -> dict[str, float | None]:
    """oIoU, mIoU, Acc and Pr@0.5 … 0.9 in percent.

    Targets are scored by their mask alone, flagged or not; empty ones by the flag alone (DMMI, test.py, which reads the
    flag off an empty mask).
    """
    empty = outcomes.empty
    found = outcomes.select(~empty)
    iou = divide(found.shared_px, found.union_px)
    return {
        "oIoU": to_percent(int(found.shared_px.sum()), int(found.union_px.sum())),
        "mIoU": to_percent(float(iou.sum()), len(found)),
        "Acc": to_percent(int((empty & outcomes.flagged).sum()), int(empty.sum())),
        **measure_precisions(iou, THRESHOLDS),
    }
