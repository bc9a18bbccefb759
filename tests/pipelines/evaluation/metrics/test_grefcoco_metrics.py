"""Masks of generalized referring segmentation, worked out by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.metrics.grefcoco import grefcoco_ratios
from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from tests.support.drawn_predictions import DrawnPrediction, make_outcome, percent, prediction_lists

CAUGHT = make_outcome(targets=0, predicted_empty=True)
MISSED = make_outcome(targets=0, predicted_empty=False)
HALF = make_outcome(predicted=10, target=5, intersection=5)
FULL = make_outcome(predicted=8, target=8, intersection=8)


def score(*outcomes: Outcome) -> dict[str, float | None]:
    return summarize(grefcoco_ratios(stack_outcomes(outcomes)))


def test_the_keys_are_those_of_the_contract() -> None:
    keys = "gIoU cIoU Pr@0.7 Pr@0.8 Pr@0.9 N-acc T-acc F1score F1score-gIoU"
    assert list(score(HALF)) == keys.split()


def test_giou_is_the_mean_over_expressions() -> None:
    assert score(HALF, FULL, FULL)["gIoU"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)


def test_ciou_is_the_ratio_of_sums() -> None:
    assert score(HALF, FULL)["cIoU"] == pytest.approx(100 * (5 + 8) / (10 + 8))


def test_an_empty_target_predicted_empty_scores_one() -> None:
    assert score(CAUGHT, HALF)["gIoU"] == pytest.approx(100 * 1.5 / 2)


def test_an_empty_target_predicted_empty_scores_one_whatever_its_mask_holds() -> None:
    caught = make_outcome(targets=0, predicted_empty=True, predicted=7)
    scores = score(caught, HALF)
    assert scores["gIoU"] == pytest.approx(100 * 1.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / 10)


def test_an_empty_target_not_predicted_empty_scores_zero_although_its_mask_is_empty() -> None:
    scores = score(MISSED, HALF)
    assert scores["gIoU"] == pytest.approx(100 * 0.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / 10)
    assert scores["N-acc"] == 0


def test_an_empty_target_not_predicted_empty_adds_its_pixels_to_the_unions() -> None:
    missed = make_outcome(targets=0, predicted=6)
    assert score(missed, HALF)["cIoU"] == pytest.approx(100 * 5 / (10 + 6))


def test_a_target_predicted_empty_scores_zero_and_adds_its_union_with_the_mask_as_predicted() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=6, target=4, intersection=3)
    scores = score(predicted_empty, HALF)
    assert scores["gIoU"] == pytest.approx(100 * 0.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / (7 + 10))
    assert scores["Pr@0.7"] == 0


def test_a_target_without_pixels_on_either_side_scores_zero() -> None:
    scores = score(make_outcome(), HALF)
    assert scores["gIoU"] == pytest.approx(25)
    assert scores["cIoU"] == pytest.approx(50)


def test_precision_counts_targets_alone() -> None:
    assert score(CAUGHT, MISSED, HALF, FULL)["Pr@0.7"] == 50


@pytest.mark.parametrize(
    ("intersection", "reached"), [(6, []), (7, ["0.7"]), (8, ["0.7", "0.8"]), (9, ["0.7", "0.8", "0.9"])]
)
def test_precision_counts_an_iou_that_just_reaches_the_threshold(intersection: int, reached: list[str]) -> None:
    scores = score(make_outcome(predicted=10, target=intersection, intersection=intersection))
    assert [threshold for threshold in ("0.7", "0.8", "0.9") if scores[f"Pr@{threshold}"] == 100] == reached


def test_a_target_predicted_empty_misses_every_precision() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=8, target=8, intersection=8)
    assert score(predicted_empty, FULL)["Pr@0.9"] == 50


def test_n_acc_is_the_fraction_of_empty_targets_predicted_empty() -> None:
    predicted_empty = make_outcome(predicted_empty=True)
    assert score(CAUGHT, MISSED, MISSED, predicted_empty, FULL)["N-acc"] == pytest.approx(100 / 3)


def test_t_acc_is_the_fraction_of_targets_not_predicted_empty() -> None:
    predicted_empty = make_outcome(predicted_empty=True)
    assert score(CAUGHT, MISSED, predicted_empty, HALF, FULL)["T-acc"] == pytest.approx(200 / 3)


def test_f1_scores_are_fractions_of_all_expressions() -> None:
    both = make_outcome(targets=0, match=True, match_giou=True)
    one = make_outcome(targets=2, match=True)
    scores = score(both, one, MISSED, HALF)
    assert (scores["F1score"], scores["F1score-gIoU"]) == (50, 25)


def test_without_empty_targets_n_acc_is_none() -> None:
    assert score(HALF)["N-acc"] is None


def test_without_targets_precision_and_t_acc_are_none() -> None:
    scores = score(CAUGHT, MISSED)
    assert [scores[name] for name in ("Pr@0.7", "Pr@0.8", "Pr@0.9", "T-acc")] == [None] * 4
    assert (scores["gIoU"], scores["N-acc"]) == (50, 50)


def test_without_any_pixel_ciou_is_none() -> None:
    assert score(CAUGHT)["cIoU"] is None


def test_without_expressions_every_score_is_none() -> None:
    assert set(score().values()) == {None}


def test_sums_of_pixels_do_not_overflow() -> None:
    whole = make_outcome(predicted=1 << 30, target=1 << 30, intersection=1 << 30)
    assert score(*[whole] * 8)["cIoU"] == 100


@given(prediction_lists)
def test_scores_agree_with_the_published_evaluator_on_pixels(predictions: list[DrawnPrediction]) -> None:
    ious: list[float] = []
    of_targets: list[float] = []
    intersection = union = caught = kept = 0
    for prediction in predictions:
        if not prediction.targets and prediction.predicted_empty:
            ious.append(1)
            caught += 1
        elif not prediction.targets:
            ious.append(0)
            union += int(prediction.mask.sum())
        else:
            ious.append(0 if prediction.predicted_empty else prediction.iou)
            of_targets.append(ious[-1])
            intersection += 0 if prediction.predicted_empty else prediction.intersection
            union += prediction.union
            kept += not prediction.predicted_empty
    scores = score(*(each.evaluate() for each in predictions))
    empty = len(predictions) - len(of_targets)
    assert scores["gIoU"] == pytest.approx(100 * np.mean(ious))
    assert scores["cIoU"] == pytest.approx(percent(intersection, union))
    for threshold in (0.7, 0.8, 0.9):
        expected = percent(sum(iou >= threshold for iou in of_targets), len(of_targets))
        assert scores[f"Pr@{threshold}"] == pytest.approx(expected)
    assert scores["N-acc"] == pytest.approx(percent(caught, empty))
    assert scores["T-acc"] == pytest.approx(percent(kept, len(of_targets)))
