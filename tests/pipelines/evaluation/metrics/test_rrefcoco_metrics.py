"""R-RefCOCO's metrics, worked out by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.evaluation.metrics.rrefcoco import count_left_out, rrefcoco_ratios
from tests.support.drawn_predictions import DrawnPrediction, make_outcome, percent, prediction_lists


def score(*outcomes: Outcome) -> dict[str, float | None]:
    return summarize(rrefcoco_ratios(stack_outcomes(outcomes)))


def positive(ref: int, predicted: int, target: int, intersection: int, *, predicted_empty: bool = False) -> Outcome:
    """An expression about the object of its ref."""
    return make_outcome(
        ref=ref, predicted_empty=predicted_empty, predicted=predicted, target=target, intersection=intersection
    )


def negative(ref: int, *, predicted_empty: bool, predicted: int = 0) -> Outcome:
    """An expression of a ref that refers to nothing."""
    return make_outcome(ref=ref, targets=0, predicted_empty=predicted_empty, predicted=predicted)


def test_the_keys_are_those_of_the_contract() -> None:
    assert list(score(positive(1, 4, 4, 4))) == ["mIoU", "oIoU", "mRR", "rIoU"]


def test_miou_is_the_mean_of_the_refs_means() -> None:
    outcomes = [positive(1, 10, 5, 5), positive(1, 4, 4, 4), positive(1, 4, 4, 0), positive(2, 10, 2, 2)]
    assert score(*outcomes)["mIoU"] == pytest.approx(100 * ((0.5 + 1 + 0) / 3 + 0.2) / 2)


def test_oiou_is_the_ratio_of_sums_over_all_positives() -> None:
    outcomes = [
        positive(1, 10, 5, 5),
        positive(1, 4, 4, 0),
        positive(2, 10, 2, 2),
        negative(2, predicted_empty=False, predicted=90),
    ]
    assert score(*outcomes)["oIoU"] == pytest.approx(100 * (5 + 2) / (10 + 8 + 10))


def test_mrr_is_the_mean_of_the_refs_fractions() -> None:
    first = [
        negative(1, predicted_empty=True),
        negative(1, predicted_empty=False),
        negative(1, predicted_empty=False),
        negative(1, predicted_empty=False),
    ]
    assert score(*first, negative(2, predicted_empty=True))["mRR"] == pytest.approx(100 * (0.25 + 1) / 2)


def test_mrr_depends_on_no_target_and_not_on_the_pixels() -> None:
    assert score(negative(1, predicted_empty=True, predicted=9))["mRR"] == 100
    assert score(negative(1, predicted_empty=False, predicted=0))["mRR"] == 0


def test_riou_is_a_ratio_of_sums_inside_a_ref_and_a_mean_over_refs() -> None:
    first = [positive(1, 10, 5, 5), positive(1, 4, 4, 4), negative(1, predicted_empty=False, predicted=6)]
    second = [positive(2, 10, 2, 2), negative(2, predicted_empty=True)]
    assert score(*first, *second)["rIoU"] == pytest.approx(100 * (9 / (10 + 4 + 6) + 2 / 10) / 2)


def test_pixels_of_a_negative_that_is_predicted_empty_do_not_lower_riou() -> None:
    assert score(positive(1, 10, 5, 5), negative(1, predicted_empty=True, predicted=90))["rIoU"] == 50


def test_a_positive_that_is_predicted_empty_is_scored_by_its_mask() -> None:
    predicted_empty, plain = (score(positive(1, 10, 5, 5, predicted_empty=flag)) for flag in (True, False))
    assert predicted_empty == plain


def test_empty_masks_of_a_positive_score_zero() -> None:
    scores = score(positive(1, 0, 0, 0), positive(2, 4, 4, 4))
    assert (scores["mIoU"], scores["oIoU"], scores["rIoU"]) == (50, 100, 50)


def test_expressions_of_a_ref_may_be_apart() -> None:
    together = [
        positive(1, 10, 5, 5),
        negative(1, predicted_empty=True),
        positive(2, 4, 4, 1),
        negative(2, predicted_empty=False, predicted=3),
    ]
    assert score(*together) == score(*together[::-1])


def test_a_ref_without_positives_is_left_out_of_the_ious_and_counted() -> None:
    negatives = negative(1, predicted_empty=True), negative(2, predicted_empty=False, predicted=50)
    outcomes = [positive(1, 10, 5, 5), *negatives]
    assert score(*outcomes) == {"mIoU": 50, "oIoU": 50, "mRR": 50, "rIoU": 50}
    assert count_left_out(stack_outcomes(outcomes)) == {"refs_without_positives": 1, "refs_without_negatives": 0}


def test_a_ref_without_negatives_is_left_out_of_mrr_and_counted() -> None:
    outcomes = [positive(1, 10, 5, 5), negative(1, predicted_empty=True), positive(2, 4, 4, 4)]
    assert score(*outcomes) == {
        "mIoU": 75,
        "oIoU": pytest.approx(100 * 9 / 14),
        "mRR": 100,
        "rIoU": 75,
    }
    assert count_left_out(stack_outcomes(outcomes)) == {"refs_without_positives": 0, "refs_without_negatives": 1}


def test_without_positives_only_mrr_is_measured() -> None:
    scores = score(negative(1, predicted_empty=True, predicted=3))
    assert scores == {"mIoU": None, "oIoU": None, "mRR": 100, "rIoU": None}


def test_without_expressions_every_score_is_none() -> None:
    assert set(score().values()) == {None}
    assert count_left_out(stack_outcomes([])) == {"refs_without_positives": 0, "refs_without_negatives": 0}


@given(prediction_lists)
def test_scores_agree_with_the_published_validation_on_pixels(predictions: list[DrawnPrediction]) -> None:
    ious: list[float] = []
    robust: list[float] = []
    rates: list[float] = []
    intersection_total = union_total = 0
    for ref in {prediction.ref for prediction in predictions}:
        positives = [prediction for prediction in predictions if prediction.ref == ref and prediction.targets]
        negatives = [prediction for prediction in predictions if prediction.ref == ref and not prediction.targets]
        intersection, union = (
            sum(prediction.intersection for prediction in positives),
            sum(prediction.union for prediction in positives),
        )
        false_positive_px = sum(
            int(prediction.mask.sum()) for prediction in negatives if not prediction.predicted_empty
        )
        intersection_total, union_total = intersection_total + intersection, union_total + union
        if positives:
            ious.append(float(np.mean([prediction.iou for prediction in positives])))
            robust.append(intersection / (union + false_positive_px) if union + false_positive_px else 0)
        if negatives:
            rates.append(float(np.mean([prediction.predicted_empty for prediction in negatives])))
    assert score(*(each.evaluate() for each in predictions)) == {
        "mIoU": pytest.approx(100 * np.mean(ious) if ious else None),
        "oIoU": pytest.approx(percent(intersection_total, union_total)),
        "mRR": pytest.approx(100 * np.mean(rates) if rates else None),
        "rIoU": pytest.approx(100 * np.mean(robust) if robust else None),
    }
