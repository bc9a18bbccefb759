"""gRefCOCO: masks (GRES, as ReLA's evaluator computes them) and boxes (GREC)."""

from __future__ import annotations

import numpy as np

from pipelines.evaluation.metrics.outcomes import Outcomes, Term, divide, divide_precisions, summarize

THRESHOLDS = (0.7, 0.8, 0.9)


def divide_grefcoco(outcomes: Outcomes) -> dict[str, Term]:
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
    empty, flagged = outcomes.empty, outcomes.flagged
    answered = ~empty & ~flagged
    shared = np.where(answered, outcomes.shared_px, 0)
    union = np.where(empty, np.where(flagged, 0, outcomes.predicted_px), outcomes.union_px)
    iou = np.where(empty, flagged.astype(float), divide(shared, union))
    every = np.ones(len(outcomes), dtype=np.int64)
    return {
        "gIoU": Term(iou, every),
        "cIoU": Term(shared, union),
        **divide_precisions(iou, ~empty, THRESHOLDS),
        "N-acc": Term(empty & flagged, empty),
        "T-acc": Term(answered, ~empty),
        "F1score": Term(outcomes.boxes_match, every),
        "F1score-gIoU": Term(outcomes.boxes_match_giou, every),
    }


def score_grefcoco(outcomes: Outcomes) -> dict[str, float | None]:
    """The metrics of `divide_grefcoco` in percent."""
    return summarize(divide_grefcoco(outcomes))
