"""RefCOCO/+/g: one object for each expression, as a mask and as a box."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.metrics.overlap import divide, measure_precisions, to_percent

if TYPE_CHECKING:
    from pipelines.metrics.overlap import Outcomes

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def score_classic(outcomes: Outcomes) -> dict[str, float | None]:
    """mIoU, oIoU, Pr@0.5 … 0.9 and Acc@0.5 (boxes) in percent, over expressions with a target."""
    found = outcomes.select(~outcomes.empty)
    iou = divide(found.shared_px, found.union_px)
    return {
        "mIoU": to_percent(float(iou.sum()), len(found)),
        "oIoU": to_percent(int(found.shared_px.sum()), int(found.union_px.sum())),
        **measure_precisions(iou, THRESHOLDS),
        "Acc@0.5": to_percent(int(found.best_box_hits.sum()), len(found)),
    }
