"""95 % intervals, against statistics with a known interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.evaluation.metrics.benchmarks import METRICS
from pipelines.evaluation.metrics.bootstrap import estimate_intervals
from pipelines.evaluation.metrics.outcomes import Outcome, Ratio, stack_outcomes, summarize
from tests.support.drawn_predictions import make_outcome


def make(targets: int, intersection: int = 0, *, image_id: int) -> Outcome:
    """An outcome of a target of 10 pixels in a given image."""
    outcome = make_outcome(targets=targets, predicted=intersection, target=10, intersection=intersection, ref=image_id)
    return outcome._replace(image_id=image_id)


@pytest.mark.parametrize("dataset", METRICS)
def test_a_split_in_which_all_images_agree_has_no_spread(dataset: str) -> None:
    outcomes = stack_outcomes([*(make(1, 5, image_id=number) for number in range(4))])
    ratios = METRICS[dataset](outcomes)
    intervals = estimate_intervals(ratios, outcomes.image_id, samples=50, seed=1)
    for name, value in summarize(ratios).items():
        assert intervals[name] == (None if value is None else [pytest.approx(value)] * 2)


def test_a_refs_expressions_are_drawn_with_their_image() -> None:
    # Refs of one image are apart in the split, and their expressions are drawn with it.
    def draw(ref: int, image: int, targets: int, intersection: int) -> Outcome:
        return make(targets, intersection, image_id=image)._replace(ref_id=ref)

    outcomes = stack_outcomes([
        draw(1, 7, 1, 5), draw(2, 3, 1, 10), draw(1, 7, 0, 4), draw(3, 7, 1, 0), draw(2, 3, 0, 0),
        draw(3, 7, 1, 8),
    ])  # fmt: skip
    ratios = METRICS["rrefcoco"](outcomes)
    images = np.unique(outcomes.image_id)
    random = np.random.default_rng(5)
    drawn = random.multinomial(len(images), [1 / len(images)] * len(images), size=60)
    for name, (low, high) in estimate_intervals(ratios, outcomes.image_id, samples=60, seed=5).items():
        scores = []
        for counts in drawn:
            parts = [
                outcomes.select(outcomes.image_id == image)
                for image, count in zip(images, counts, strict=True)
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


def test_the_interval_of_a_fraction_is_that_of_the_binomial() -> None:
    hits = np.arange(2500) % 5 == 0
    ratios = {"fraction": Ratio(hits, np.ones(2500))}
    bounds = estimate_intervals(ratios, np.arange(2500), samples=4000, seed=0)["fraction"]
    spread = 1.96 * 100 * math.sqrt(0.2 * 0.8 / 2500)
    assert bounds == pytest.approx([20 - spread, 20 + spread], abs=0.1)


def test_expressions_of_one_image_are_drawn_together() -> None:
    hits = np.repeat(np.arange(100) % 2 == 0, 25)
    ratios = {"fraction": Ratio(hits, np.ones(2500))}
    low, high = estimate_intervals(ratios, np.repeat(np.arange(100), 25), samples=2000, seed=0)["fraction"] or (0, 0)
    assert high - low == pytest.approx(2 * 1.96 * 5, abs=1)


def test_one_seed_gives_one_interval() -> None:
    outcomes = stack_outcomes([*(make(1, number, image_id=number) for number in range(10))])
    ratios = METRICS["grefcoco"](outcomes)
    first, again, other = (
        estimate_intervals(ratios, outcomes.image_id, samples=100, seed=seed)["gIoU"] for seed in (3, 3, 4)
    )
    assert first == again != other


def test_a_single_image_has_no_interval() -> None:
    outcomes = stack_outcomes([make(1, 5, image_id=3), make(1, 8, image_id=3)])
    intervals = estimate_intervals(METRICS["refcoco"](outcomes), outcomes.image_id, samples=5, seed=0)
    assert set(intervals.values()) == {None}


def test_nothing_has_no_interval() -> None:
    outcomes = stack_outcomes([])
    assert set(estimate_intervals(METRICS["refcoco"](outcomes), outcomes.image_id, samples=5, seed=0).values()) == {
        None
    }
