"""Parts of a split and 95 % intervals: hand-computed, and against statistics with a known answer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.evaluation.metrics.benchmarks import METRICS
from pipelines.evaluation.metrics.bootstrap import estimate_intervals
from pipelines.evaluation.metrics.breakdown import break_down
from pipelines.evaluation.metrics.outcomes import Outcome, Outcomes, Ratio, stack_outcomes, summarize


def make(
    targets: int, shared: int = 0, *, image_id: int = 0, target_px: int = 10, predicted_empty: bool = False
) -> Outcome:
    return Outcome(
        ref_id=image_id, targets=targets, predicted_empty=predicted_empty, predicted_px=shared,
        target_px=target_px if targets else 0, intersection_px=shared, boxes_match=False, boxes_match_giou=False,
        best_box_hits=False, image_id=image_id,
        image_px=100,
    )  # fmt: skip


def collect(*outcomes: Outcome) -> Outcomes:
    return stack_outcomes(outcomes)


def test_each_part_is_scored_as_a_split_of_its_own() -> None:
    outcomes = collect(make(0, predicted_empty=True), make(1, 5), make(2, 10), make(2, 0), make(7, 10))
    parts = break_down(outcomes, METRICS["grefcoco"])
    assert {name: part["expressions"] for name, part in parts["kind"].items()} == {
        "empty": 1, "single": 1, "multiple": 3
    }  # fmt: skip
    assert {name: part["metrics"]["gIoU"] for name, part in parts["kind"].items()} == {
        "empty": 100.0, "single": 50.0, "multiple": pytest.approx(200 / 3)
    }  # fmt: skip
    assert {name: part["expressions"] for name, part in parts["targets"].items()} == {"0": 1, "1": 1, "2": 2, "5+": 1}
    assert parts["kind"]["empty"]["metrics"]["T-acc"] is None


@pytest.mark.parametrize(("pixels", "name"), [(1, "small"), (2, "medium"), (14, "medium"), (15, "large")])
def test_a_targets_size_is_its_share_of_the_picture(pixels: int, name: str) -> None:
    parts = break_down(collect(make(1, target_px=pixels), make(0)), METRICS["refcoco"])
    assert {key: part["expressions"] for key, part in parts["size"].items()} == {name: 1}


@pytest.mark.parametrize("dataset", METRICS)
def test_a_split_in_which_all_pictures_agree_has_no_spread(dataset: str) -> None:
    outcomes = collect(*(make(1, 5, image_id=number) for number in range(4)))
    terms = METRICS[dataset](outcomes)
    intervals = estimate_intervals(terms, outcomes.image_id, samples=50, seed=1)
    expected = {name: None if value is None else [pytest.approx(value)] * 2 for name, value in summarize(terms).items()}
    assert intervals == expected


def test_robust_terms_are_drawn_with_their_own_pictures() -> None:
    # Refs of one picture stand apart in the split, and their phrases are drawn with it.
    def phrase(ref: int, picture: int, targets: int, shared: int) -> Outcome:
        return make(targets, shared, image_id=picture)._replace(ref_id=ref)

    outcomes = collect(
        phrase(1, 7, 1, 5), phrase(2, 3, 1, 10), phrase(1, 7, 0, 4), phrase(3, 7, 1, 0), phrase(2, 3, 0, 0),
        phrase(3, 7, 1, 8),
    )  # fmt: skip
    terms = METRICS["rrefcoco"](outcomes)
    pictures = np.unique(outcomes.image_id)
    random = np.random.default_rng(5)
    drawn = random.multinomial(len(pictures), [1 / len(pictures)] * len(pictures), size=60)
    for name, (low, high) in estimate_intervals(terms, outcomes.image_id, samples=60, seed=5).items():
        scores = []
        for counts in drawn:
            parts = [
                outcomes.select(outcomes.image_id == picture)
                for picture, count in zip(pictures, counts, strict=True)
                for _ in range(count)
            ]
            again = [
                Outcome(**{field: getattr(part, field)[row].item() for field in Outcome._fields})._replace(
                    ref_id=100 * number + int(part.ref_id[row])
                )
                for number, part in enumerate(parts)
                for row in range(len(part))
            ]
            scores.append(summarize(METRICS["rrefcoco"](stack_outcomes(again)))[name])
        assert [low, high] == pytest.approx(np.percentile(scores, [2.5, 97.5]).tolist()), name


def test_a_part_without_empty_phrases_has_no_robust_iou() -> None:
    outcomes = collect(make(0), make(1, 5), make(2, 5))
    parts = break_down(outcomes, METRICS["rrefcoco"])["kind"]
    assert parts["single"]["metrics"]["rIoU"] is None
    assert parts["single"]["metrics"]["mIoU"] == 50


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    hits = np.arange(2500) % 5 == 0
    terms = {"share": Ratio(hits, np.ones(2500))}
    bounds = estimate_intervals(terms, np.arange(2500), samples=4000, seed=0)["share"]
    spread = 1.96 * 100 * math.sqrt(0.2 * 0.8 / 2500)
    assert bounds == pytest.approx([20 - spread, 20 + spread], abs=0.1)


def test_expressions_of_one_picture_are_drawn_together() -> None:
    hits = np.repeat(np.arange(100) % 2 == 0, 25)
    terms = {"share": Ratio(hits, np.ones(2500))}
    low, high = estimate_intervals(terms, np.repeat(np.arange(100), 25), samples=2000, seed=0)["share"] or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * 5, abs=1)


def test_one_seed_gives_one_interval() -> None:
    outcomes = collect(*(make(1, number, image_id=number) for number in range(10)))
    terms = METRICS["grefcoco"](outcomes)
    first, again, other = (
        estimate_intervals(terms, outcomes.image_id, samples=100, seed=seed)["gIoU"] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_one_picture_says_nothing_of_others() -> None:
    outcomes = collect(make(1, 5, image_id=3), make(1, 8, image_id=3))
    intervals = estimate_intervals(METRICS["refcoco"](outcomes), outcomes.image_id, samples=5, seed=0)
    assert set(intervals.values()) == {None}


def test_nothing_has_no_interval() -> None:
    outcomes = collect()
    assert set(estimate_intervals(METRICS["refcoco"](outcomes), outcomes.image_id, samples=5, seed=0).values()) == {
        None
    }
