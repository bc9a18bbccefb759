"""Ref-ZOM's metrics, worked out by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.metrics.outcomes import Outcome, stack_outcomes, summarize
from pipelines.evaluation.metrics.refzom import refzom_ratios
from tests.support.drawn_predictions import DrawnPrediction, make_outcome, percent, prediction_lists

PRECISIONS = [f"Pr@0.{n}" for n in (5, 6, 7, 8, 9)]
HALF = make_outcome(predicted=10, target=5, intersection=5)
FULL = make_outcome(predicted=8, target=8, intersection=8)


def score(*outcomes: Outcome) -> dict[str, float | None]:
    return summarize(refzom_ratios(stack_outcomes(outcomes)))


def test_the_keys_are_those_of_the_contract() -> None:
    assert list(score(HALF)) == ["oIoU", "mIoU", "Acc", *PRECISIONS]


def test_oiou_is_the_ratio_of_sums_and_miou_the_mean() -> None:
    scores = score(HALF, FULL)
    assert scores["oIoU"] == pytest.approx(100 * 13 / 18)
    assert scores["mIoU"] == pytest.approx(75)


@pytest.mark.parametrize("predicted_empty", [False, True])
def test_empty_targets_enter_neither_iou_nor_precision_whatever_was_predicted(predicted_empty: bool) -> None:
    empty = make_outcome(targets=0, predicted_empty=predicted_empty, predicted=50)
    scores, without = score(empty, HALF, FULL), score(HALF, FULL)
    assert {name: score for name, score in scores.items() if name != "Acc"} == {
        name: score for name, score in without.items() if name != "Acc"
    }


def test_a_target_predicted_empty_is_scored_by_its_mask() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=10, target=5, intersection=5)
    assert score(predicted_empty) == score(HALF)


def test_a_target_without_a_predicted_pixel_scores_zero_and_adds_its_union() -> None:
    scores = score(make_outcome(target=9), FULL)
    assert scores["mIoU"] == pytest.approx(50)
    assert scores["oIoU"] == pytest.approx(100 * 8 / 17)


def test_a_target_without_pixels_on_either_side_scores_zero() -> None:
    assert score(make_outcome(), FULL)["mIoU"] == 50


def test_acc_depends_on_no_target_and_not_by_the_pixels() -> None:
    predicted_empty = make_outcome(targets=0, predicted_empty=True, predicted=9)
    unflagged = make_outcome(targets=0, predicted_empty=False, predicted=0)
    assert score(predicted_empty, unflagged, unflagged, HALF)["Acc"] == pytest.approx(100 / 3)


def test_acc_does_not_count_targets_predicted_empty() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=8, target=8, intersection=8)
    assert score(predicted_empty, make_outcome(targets=0))["Acc"] == 0


def test_precision_counts_an_iou_that_just_reaches_the_threshold() -> None:
    outcomes = [make_outcome(predicted=10, target=pixels, intersection=pixels) for pixels in (4, 5, 6, 7, 8)]
    scores = score(*outcomes)
    assert [scores[name] for name in PRECISIONS] == [80, 60, 40, 20, 0]


def test_without_empty_targets_acc_is_none() -> None:
    assert score(HALF)["Acc"] is None


def test_without_targets_all_but_acc_is_none() -> None:
    scores = score(make_outcome(targets=0, predicted_empty=True, predicted=3))
    assert scores.pop("Acc") == 100
    assert set(scores.values()) == {None}


def test_without_expressions_every_score_is_none() -> None:
    assert set(score().values()) == {None}


@given(prediction_lists)
def test_scores_agree_with_the_published_evaluation_on_pixels(predictions: list[DrawnPrediction]) -> None:
    scores = score(*(each.evaluate() for each in predictions))
    counted = [prediction for prediction in predictions if prediction.targets]
    empty = [prediction for prediction in predictions if not prediction.targets]
    assert scores["Acc"] == pytest.approx(percent(sum(prediction.predicted_empty for prediction in empty), len(empty)))
    intersection, union = (
        sum(prediction.intersection for prediction in counted),
        sum(prediction.union for prediction in counted),
    )
    assert scores["oIoU"] == pytest.approx(percent(intersection, union))
    assert scores["mIoU"] == pytest.approx(
        100 * np.mean([prediction.iou for prediction in counted]) if counted else None
    )
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        expected = percent(sum(prediction.iou >= threshold for prediction in counted), len(counted))
        assert scores[f"Pr@{threshold}"] == pytest.approx(expected)
