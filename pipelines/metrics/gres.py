"""gRefCOCO: masks (GRES, as ReLA's evaluator computes them) and boxes (GREC)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipelines.metrics.overlap import divide, measure_precisions, to_percent

if TYPE_CHECKING:
    from pipelines.metrics.overlap import Outcomes

THRESHOLDS = (0.7, 0.8, 0.9)


def score_grefcoco(outcomes: Outcomes) -> dict[str, float | None]:
    """gIoU, cIoU, Pr@0.7/0.8/0.9, N-acc, T-acc, F1score and F1score-gIoU in percent.

    The flag alone decides emptiness, the mask does not (ReLA, gres_model/evaluation/refer_evaluation.py):

    - an empty target that is flagged scores 1 and adds nothing to the sums, whatever its mask holds;
    - one that is not scores 0 and adds its predicted pixels to the unions;
    - a target that is flagged scores 0 and adds its union, with the mask as it was predicted;
    - else the IoU counts, which is 0 where both masks are empty.
    """
    empty, flagged = outcomes.empty, outcomes.flagged
    answered = ~empty & ~flagged
    shared = np.where(answered, outcomes.shared_px, 0)
    union = np.where(empty, np.where(flagged, 0, outcomes.predicted_px), outcomes.union_px)
    iou = np.where(empty, flagged.astype(float), divide(shared, union))
    return {
        "gIoU": to_percent(float(iou.sum()), len(outcomes)),
        "cIoU": to_percent(int(shared.sum()), int(union.sum())),
        **measure_precisions(iou[~empty], THRESHOLDS),
        "N-acc": to_percent(int((empty & flagged).sum()), int(empty.sum())),
        "T-acc": to_percent(int(answered.sum()), int((~empty).sum())),
        "F1score": to_percent(int(outcomes.boxes_match.sum()), len(outcomes)),
        "F1score-gIoU": to_percent(int(outcomes.boxes_match_giou.sum()), len(outcomes)),
    }
