"""R-RefCOCO's metrics, worked out by hand and by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from pipelines.evaluation.metrics.outcomes import Outcome
from pipelines.evaluation.metrics.rrefcoco import count_left_out, score_rrefcoco
from tests.support.drawn_predictions import GroundingResult, collect, drawn, judge_all, make_outcome, percent


def fit(ref: int, predicted: int, target: int, shared: int, *, predicted_empty: bool = False) -> Outcome:
    """A phrase that fits the object of its ref."""
    return make_outcome(ref=ref, predicted_empty=predicted_empty, predicted=predicted, target=target, shared=shared)


def other(ref: int, *, predicted_empty: bool, predicted: int = 0) -> Outcome:
    """A phrase that fits nothing."""
    return make_outcome(ref=ref, targets=0, predicted_empty=predicted_empty, predicted=predicted)


def test_the_keys_are_those_of_the_contract() -> None:
    assert list(score_rrefcoco(collect(fit(1, 4, 4, 4)))) == ["mIoU", "oIoU", "mRR", "rIoU"]


def test_miou_is_the_mean_of_the_refs_means() -> None:
    outcomes = [fit(1, 10, 5, 5), fit(1, 4, 4, 4), fit(1, 4, 4, 0), fit(2, 10, 2, 2)]
    assert score_rrefcoco(collect(*outcomes))["mIoU"] == pytest.approx(100 * ((0.5 + 1 + 0) / 3 + 0.2) / 2)


def test_oiou_is_the_ratio_of_sums_over_all_phrases_that_fit() -> None:
    outcomes = [fit(1, 10, 5, 5), fit(1, 4, 4, 0), fit(2, 10, 2, 2), other(2, predicted_empty=False, predicted=90)]
    assert score_rrefcoco(collect(*outcomes))["oIoU"] == pytest.approx(100 * (5 + 2) / (10 + 8 + 10))


def test_mrr_is_the_mean_of_the_refs_shares() -> None:
    first = [
        other(1, predicted_empty=True),
        other(1, predicted_empty=False),
        other(1, predicted_empty=False),
        other(1, predicted_empty=False),
    ]
    assert score_rrefcoco(collect(*first, other(2, predicted_empty=True)))["mRR"] == pytest.approx(100 * (0.25 + 1) / 2)


def test_mrr_goes_by_the_flag_and_not_by_the_pixels() -> None:
    assert score_rrefcoco(collect(other(1, predicted_empty=True, predicted=9)))["mRR"] == 100
    assert score_rrefcoco(collect(other(1, predicted_empty=False, predicted=0)))["mRR"] == 0


def test_riou_is_a_ratio_of_sums_inside_a_ref_and_a_mean_over_refs() -> None:
    first = [fit(1, 10, 5, 5), fit(1, 4, 4, 4), other(1, predicted_empty=False, predicted=6)]
    second = [fit(2, 10, 2, 2), other(2, predicted_empty=True)]
    assert score_rrefcoco(collect(*first, *second))["rIoU"] == pytest.approx(100 * (9 / (10 + 4 + 6) + 2 / 10) / 2)


def test_pixels_of_a_flagged_phrase_do_not_lower_riou() -> None:
    assert score_rrefcoco(collect(fit(1, 10, 5, 5), other(1, predicted_empty=True, predicted=90)))["rIoU"] == 50


def test_a_phrase_that_fits_is_scored_by_its_mask_although_it_is_flagged() -> None:
    predicted_empty, plain = (score_rrefcoco(collect(fit(1, 10, 5, 5, predicted_empty=flag))) for flag in (True, False))
    assert predicted_empty == plain


def test_empty_masks_of_a_phrase_that_fits_score_zero() -> None:
    scores = score_rrefcoco(collect(fit(1, 0, 0, 0), fit(2, 4, 4, 4)))
    assert (scores["mIoU"], scores["oIoU"], scores["rIoU"]) == (50, 100, 50)


def test_phrases_of_a_ref_need_not_stand_together() -> None:
    together = [
        fit(1, 10, 5, 5),
        other(1, predicted_empty=True),
        fit(2, 4, 4, 1),
        other(2, predicted_empty=False, predicted=3),
    ]
    assert score_rrefcoco(collect(*together)) == score_rrefcoco(collect(*together[::-1]))


def test_a_ref_without_phrases_that_fit_is_left_out_of_the_ious_and_counted() -> None:
    outcomes = collect(fit(1, 10, 5, 5), other(1, predicted_empty=True), other(2, predicted_empty=False, predicted=50))
    assert score_rrefcoco(outcomes) == {"mIoU": 50, "oIoU": 50, "mRR": 50, "rIoU": 50}
    assert count_left_out(outcomes) == {"refs_without_positives": 1, "refs_without_negatives": 0}


def test_a_ref_without_other_phrases_is_left_out_of_mrr_and_counted() -> None:
    outcomes = collect(fit(1, 10, 5, 5), other(1, predicted_empty=True), fit(2, 4, 4, 4))
    assert score_rrefcoco(outcomes) == {"mIoU": 75, "oIoU": pytest.approx(100 * 9 / 14), "mRR": 100, "rIoU": 75}
    assert count_left_out(outcomes) == {"refs_without_positives": 0, "refs_without_negatives": 1}


def test_without_phrases_that_fit_only_mrr_is_measured() -> None:
    scores = score_rrefcoco(collect(other(1, predicted_empty=True, predicted=3)))
    assert scores == {"mIoU": None, "oIoU": None, "mRR": 100, "rIoU": None}


def test_without_expressions_every_score_is_none() -> None:
    assert set(score_rrefcoco(collect()).values()) == {None}
    assert count_left_out(collect()) == {"refs_without_positives": 0, "refs_without_negatives": 0}


@given(drawn)
def test_scores_agree_with_the_published_validation_on_pixels(answers: list[GroundingResult]) -> None:
    ious: list[float] = []
    robust: list[float] = []
    rates: list[float] = []
    shared_total = union_total = 0
    for ref in {answer.ref for answer in answers}:
        fitting = [answer for answer in answers if answer.ref == ref and answer.targets]
        others = [answer for answer in answers if answer.ref == ref and not answer.targets]
        shared, union = sum(answer.shared for answer in fitting), sum(answer.union for answer in fitting)
        wrong = sum(int(answer.mask.sum()) for answer in others if not answer.predicted_empty)
        shared_total, union_total = shared_total + shared, union_total + union
        if fitting:
            ious.append(float(np.mean([answer.iou for answer in fitting])))
            robust.append(shared / (union + wrong) if union + wrong else 0)
        if others:
            rates.append(float(np.mean([answer.predicted_empty for answer in others])))
    assert score_rrefcoco(judge_all(answers)) == {
        "mIoU": pytest.approx(100 * np.mean(ious) if ious else None),
        "oIoU": pytest.approx(percent(shared_total, union_total)),
        "mRR": pytest.approx(100 * np.mean(rates) if rates else None),
        "rIoU": pytest.approx(100 * np.mean(robust) if robust else None),
    }
