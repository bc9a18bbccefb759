"""gRefCOCO: masks (GRES, as in ReLA's evaluator) and boxes (GREC)."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, precision_ratios, safe_divide

THRESHOLDS = (0.7, 0.8, 0.9)


def grefcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """gIoU, cIoU, Pr@0.7/0.8/0.9, N-acc, T-acc, F1score and F1score-gIoU.

    `no_target` alone decides whether a prediction is empty, not its mask (ReLA,
    gres_model/evaluation/refer_evaluation.py):

    - empty target, predicted empty: IoU 1; it adds nothing to the sums of cIoU, whatever its mask holds;
    - empty target, not predicted empty: IoU 0; its predicted pixels are added to the unions;
    - target, predicted empty: IoU 0; the union with the predicted mask is added to the unions;
    - target, not predicted empty: the IoU of the masks, 0 if both are empty.

    NOTE: of crowd regions only the boxes are ground truth (`shards.record`). An expression about crowd regions alone is
    a target with an empty mask: by the rules above its IoU is 0, it stays in every average, and adds the predicted
    pixels to the unions of cIoU. ReLA's loader has no rule for it: it stops at an assertion.
    """
    empty, predicted_empty = outcomes.empty, outcomes.predicted_empty
    true_positive = ~empty & ~predicted_empty
    intersection = np.where(true_positive, outcomes.intersection_px, 0)
    union = np.where(empty, np.where(predicted_empty, 0, outcomes.predicted_px), outcomes.union_px)
    iou = np.where(empty, predicted_empty.astype(float), safe_divide(intersection, union))
    ones = np.ones(len(outcomes), dtype=np.int64)
    return {
        "gIoU": Ratio(iou, ones),
        "cIoU": Ratio(intersection, union),
        **precision_ratios(iou, ~empty, THRESHOLDS),
        "N-acc": Ratio(empty & predicted_empty, empty),
        "T-acc": Ratio(true_positive, ~empty),
        "F1score": Ratio(outcomes.boxes_match, ones),
        "F1score-gIoU": Ratio(outcomes.boxes_match_giou, ones),
    }
