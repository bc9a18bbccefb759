"""Masks of generalized referring segmentation, worked out by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.metrics.grefcoco import score_grefcoco
from tests.support.drawn_predictions import GroundingResult, collect, drawn, judge_all, make_outcome, percent

CAUGHT = make_outcome(targets=0, predicted_empty=True)
MISSED = make_outcome(targets=0, predicted_empty=False)
HALF = make_outcome(predicted=10, target=5, shared=5)
FULL = make_outcome(predicted=8, target=8, shared=8)


def test_the_keys_are_those_of_the_contract() -> None:
    keys = "gIoU cIoU Pr@0.7 Pr@0.8 Pr@0.9 N-acc T-acc F1score F1score-gIoU"
    assert list(score_grefcoco(collect(HALF))) == keys.split()


def test_giou_is_the_mean_over_expressions() -> None:
    assert score_grefcoco(collect(HALF, FULL, FULL))["gIoU"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)


def test_ciou_is_the_ratio_of_sums() -> None:
    assert score_grefcoco(collect(HALF, FULL))["cIoU"] == pytest.approx(100 * (5 + 8) / (10 + 8))


def test_an_empty_target_that_is_flagged_scores_one() -> None:
    assert score_grefcoco(collect(CAUGHT, HALF))["gIoU"] == pytest.approx(100 * 1.5 / 2)


def test_an_empty_target_that_is_flagged_scores_one_whatever_its_mask_holds() -> None:
    caught = make_outcome(targets=0, predicted_empty=True, predicted=7)
    scores = score_grefcoco(collect(caught, HALF))
    assert scores["gIoU"] == pytest.approx(100 * 1.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / 10)


def test_an_empty_target_that_is_not_flagged_scores_zero_although_its_mask_is_empty() -> None:
    scores = score_grefcoco(collect(MISSED, HALF))
    assert scores["gIoU"] == pytest.approx(100 * 0.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / 10)
    assert scores["N-acc"] == 0


def test_an_empty_target_that_is_not_flagged_adds_its_pixels_to_the_unions() -> None:
    missed = make_outcome(targets=0, predicted=6)
    assert score_grefcoco(collect(missed, HALF))["cIoU"] == pytest.approx(100 * 5 / (10 + 6))


def test_a_target_that_is_flagged_scores_zero_and_adds_its_union_with_the_mask_as_predicted() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=6, target=4, shared=3)
    scores = score_grefcoco(collect(predicted_empty, HALF))
    assert scores["gIoU"] == pytest.approx(100 * 0.5 / 2)
    assert scores["cIoU"] == pytest.approx(100 * 5 / (7 + 10))
    assert scores["Pr@0.7"] == 0


def test_a_target_without_pixels_on_either_side_scores_zero() -> None:
    scores = score_grefcoco(collect(make_outcome(), HALF))
    assert scores["gIoU"] == pytest.approx(25)
    assert scores["cIoU"] == pytest.approx(50)


def test_precision_counts_targets_alone() -> None:
    assert score_grefcoco(collect(CAUGHT, MISSED, HALF, FULL))["Pr@0.7"] == 50


@pytest.mark.parametrize(
    ("shared", "reached"), [(6, []), (7, ["0.7"]), (8, ["0.7", "0.8"]), (9, ["0.7", "0.8", "0.9"])]
)
def test_precision_counts_an_iou_that_just_reaches_the_threshold(shared: int, reached: list[str]) -> None:
    scores = score_grefcoco(collect(make_outcome(predicted=10, target=shared, shared=shared)))
    assert [threshold for threshold in ("0.7", "0.8", "0.9") if scores[f"Pr@{threshold}"] == 100] == reached


def test_a_target_that_is_flagged_misses_every_precision() -> None:
    predicted_empty = make_outcome(predicted_empty=True, predicted=8, target=8, shared=8)
    assert score_grefcoco(collect(predicted_empty, FULL))["Pr@0.9"] == 50


def test_n_acc_is_the_share_of_empty_targets_that_are_flagged() -> None:
    predicted_empty = make_outcome(predicted_empty=True)
    assert score_grefcoco(collect(CAUGHT, MISSED, MISSED, predicted_empty, FULL))["N-acc"] == pytest.approx(100 / 3)


def test_t_acc_is_the_share_of_targets_that_are_not_flagged() -> None:
    predicted_empty = make_outcome(predicted_empty=True)
    assert score_grefcoco(collect(CAUGHT, MISSED, predicted_empty, HALF, FULL))["T-acc"] == pytest.approx(200 / 3)


def test_f1_scores_are_shares_of_all_expressions() -> None:
    both = make_outcome(targets=0, match=True, match_giou=True)
    one = make_outcome(targets=2, match=True)
    scores = score_grefcoco(collect(both, one, MISSED, HALF))
    assert (scores["F1score"], scores["F1score-gIoU"]) == (50, 25)


def test_without_empty_targets_n_acc_is_none() -> None:
    assert score_grefcoco(collect(HALF))["N-acc"] is None


def test_without_targets_precision_and_t_acc_are_none() -> None:
    scores = score_grefcoco(collect(CAUGHT, MISSED))
    assert [scores[name] for name in ("Pr@0.7", "Pr@0.8", "Pr@0.9", "T-acc")] == [None] * 4
    assert (scores["gIoU"], scores["N-acc"]) == (50, 50)


def test_without_any_pixel_ciou_is_none() -> None:
    assert score_grefcoco(collect(CAUGHT))["cIoU"] is None


def test_without_expressions_every_score_is_none() -> None:
    assert set(score_grefcoco(collect()).values()) == {None}


def test_sums_of_pixels_do_not_overflow() -> None:
    whole = make_outcome(predicted=1 << 30, target=1 << 30, shared=1 << 30)
    assert score_grefcoco(collect(*[whole] * 8))["cIoU"] == 100


@given(drawn)
def test_scores_agree_with_the_published_evaluator_on_pixels(answers: list[GroundingResult]) -> None:
    ious: list[float] = []
    of_targets: list[float] = []
    shared = union = caught = kept = 0
    for answer in answers:
        if not answer.targets and answer.predicted_empty:
            ious.append(1)
            caught += 1
        elif not answer.targets:
            ious.append(0)
            union += int(answer.mask.sum())
        else:
            ious.append(0 if answer.predicted_empty else answer.iou)
            of_targets.append(ious[-1])
            shared += 0 if answer.predicted_empty else answer.shared
            union += answer.union
            kept += not answer.predicted_empty
    scores = score_grefcoco(judge_all(answers))
    empty = len(answers) - len(of_targets)
    assert scores["gIoU"] == pytest.approx(100 * np.mean(ious))
    assert scores["cIoU"] == pytest.approx(percent(shared, union))
    for threshold in (0.7, 0.8, 0.9):
        expected = percent(sum(iou >= threshold for iou in of_targets), len(of_targets))
        assert scores[f"Pr@{threshold}"] == pytest.approx(expected)
    assert scores["N-acc"] == pytest.approx(percent(caught, empty))
    assert scores["T-acc"] == pytest.approx(percent(kept, len(of_targets)))
