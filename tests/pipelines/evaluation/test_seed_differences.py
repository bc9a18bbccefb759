"""Differences over seeds and images, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipelines.evaluation.metrics.outcomes import Ratio
from pipelines.evaluation.seed_differences import compare_seeds, estimate_interval

# Two-sided 95 % points of Student's t, as printed in tables.
T_2, T_8, NORMAL = 4.303, 2.306, 1.960


def share(*values: float) -> dict[str, Ratio]:
    """A metric that is the mean of the values of the expressions."""
    return {"share": Ratio(np.array(values), np.ones(len(values)))}


def test_without_variance_between_images_the_interval_is_that_of_student_s_t_over_seeds() -> None:
    # Mean 3, variance 4, so the mean's standard error is 2 / √3.
    low, high = estimate_interval([1.0, 3.0, 5.0], 0.0) or [0, 0]
    half = T_2 * 2 / math.sqrt(3)
    assert [low, high] == pytest.approx([3 - half, 3 + half], abs=2e-3)


def test_variance_between_images_adds_to_that_between_seeds_and_raises_the_degrees_of_freedom() -> None:
    # Seeds: 4 / 3. Images: 4 / 3 as well, so 2 × 2² = 8 degrees of freedom.
    low, high = estimate_interval([1.0, 3.0, 5.0], 4 / 3) or [0, 0]
    half = T_8 * math.sqrt(8 / 3)
    assert [low, high] == pytest.approx([3 - half, 3 + half], abs=2e-3)


def test_seeds_that_agree_leave_the_normal_interval_of_images() -> None:
    assert estimate_interval([3.0, 3.0, 3.0], 1.0) == pytest.approx([3 - NORMAL, 3 + NORMAL], abs=1e-3)


def test_a_single_seed_has_no_interval() -> None:
    assert estimate_interval([3.0], 1.0) is None


def test_differences_are_taken_seed_by_seed_on_images_drawn_for_all_seeds_together() -> None:
    images = np.array([1, 1, 2, 2])
    before = [share(1, 1, 0, 0), share(0, 0, 1, 1)]
    after = [share(1, 0, 0, 0), share(0, 0, 0, 1)]
    found = compare_seeds(before, after, images, samples=4000, seed=0)["share"]
    assert found is not None
    assert found.by_seed == [-25.0, -25.0]
    assert found.mean == -25
    # Seed 1 loses half of image 1, seed 2 half of image 2: however often each is drawn, the mean stays at -25.
    assert found.interval == pytest.approx([-25, -25])
    # Where both lose half of image 1, the mean of a sample that has it k of 2 times is -25 k: its variance is 312.5.
    both = compare_seeds([before[0]] * 2, [after[0]] * 2, images, samples=4000, seed=0)["share"]
    assert both is not None
    assert both.interval == pytest.approx([-25 - NORMAL * 312.5**0.5, -25 + NORMAL * 312.5**0.5], rel=0.03)


def test_a_metric_that_a_seed_cannot_measure_has_no_difference() -> None:
    nothing = {"share": Ratio(np.zeros(2), np.zeros(2))}
    images = np.array([1, 2])
    assert compare_seeds([share(1, 0)] * 2, [share(1, 1), nothing], images, samples=50, seed=0) == {"share": None}
