"""gRefCOCO: masks (GRES, as ReLA's evaluator computes them) and boxes (GREC)."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Ratio, divide, precision_ratios, summarize

THRESHOLDS = (0.7, 0.8, 0.9)


def grefcoco_ratios(outcomes: Outcomes) -> dict[str, Ratio]:
    """gIoU, cIoU, Pr@0.7/0.8/0.9, N-acc, T-acc, F1score and F1score-gIoU.

    The flag alone decides emptiness, the mask does not (ReLA, gres_model/evaluation/refer_evaluation.py):

    - an empty target that is flagged scores 1 and adds nothing to the sums, whatever its mask holds;
    - one that is not scores 0 and adds its predicted pixels to the unions;
    - a target that is flagged scores 0 and adds its union, with the mask as it was predicted;
    - else the IoU counts, which is 0 where both masks are empty.

    NOTE: of crowd regions, only the boxes are truth (`shards.record`). An expression about crowd regions alone is a
    target with an empty mask: by the rules above its IoU is 0, it stays in every average, and adds the predicted
    pixels to the unions of cIoU. ReLA's loader has no rule for it: it stops at an assertion.
    """
    empty, predicted_empty = outcomes.empty, outcomes.predicted_empty
    answered = ~empty & ~predicted_empty
    shared = np.where(answered, outcomes.intersection_px, 0)
    union = np.where(empty, np.where(predicted_empty, 0, outcomes.predicted_px), outcomes.union_px)
    iou = np.where(empty, predicted_empty.astype(float), divide(shared, union))
    every = np.ones(len(outcomes), dtype=np.int64)
    return {
        "gIoU": Ratio(iou, every),
        "cIoU": Ratio(shared, union),
        **precision_ratios(iou, ~empty, THRESHOLDS),
        "N-acc": Ratio(empty & predicted_empty, empty),
        "T-acc": Ratio(answered, ~empty),
        "F1score": Ratio(outcomes.boxes_match, every),
        "F1score-gIoU": Ratio(outcomes.boxes_match_giou, every),
    }


def score_grefcoco(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `grefcoco_ratios` in percent."""
    return summarize(grefcoco_ratios(outcomes))
