"""Differences between two ways of training that share their seeds, with 95 % intervals over seeds and images.

The difference of a metric is taken for each seed, on the same expressions, and averaged. What it would be with other
seeds and other images varies for two reasons, whose variances add up:

- seeds: s² / n, with s² the variance of the n differences;
- images: the variance of the mean difference over bootstrap samples of images, the same ones for all seeds.

The interval is mean ± t √(s² / n + images), with t of Student's distribution and the degrees of freedom of Welch and
Satterthwaite: n - 1 where seeds are all that varies, more where images vary more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.bootstrap import draw_bootstrap
from pipelines.evaluation.metrics.outcomes import Ratio, summarize

_LEVEL = 0.975
_MAX_FREEDOM = 1e6

Ratios = Mapping[str, Ratio]


@dataclass(frozen=True, kw_only=True)
class SeedDifference:
    """The difference of a metric, in percent points."""

    mean: float
    interval: list[float] | None
    """Low and high; None with a single seed, or fewer than two images."""
    by_seed: list[float]


def compare_seeds(
    before: Sequence[Ratios], after: Sequence[Ratios], image_ids: NDArray[np.int64], *, samples: int, seed: int
) -> dict[str, SeedDifference | None]:
    """The differences `after` less `before` of each metric, None where a seed has nothing to measure.

    Args:
        before: the metrics of each seed as ratios of sums over the same N expressions.
        after: likewise, with the same seeds in the same order.
        image_ids: (N,) the images that the expressions are about.
        samples: bootstrap samples of images.
        seed: of these samples.
    """
    # (seeds, samples, metrics)
    drawn = np.stack([
        draw_bootstrap(b, image_ids, samples, seed) - draw_bootstrap(a, image_ids, samples, seed)
        for a, b in zip(before, after, strict=True)
    ])  # fmt: skip
    totals = [(summarize(a), summarize(b)) for a, b in zip(before, after, strict=True)]
    differences: dict[str, SeedDifference | None] = {}
    for column, name in enumerate(before[0]):
        values = [_subtract(b[name], a[name]) for a, b in totals]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            differences[name] = None
            continue
        means = drawn[:, :, column].mean(axis=0)
        means = means[~np.isnan(means)]
        by_images = float(np.var(means, ddof=1)) if len(means) > 1 else None
        interval = None if by_images is None else estimate_interval(known, by_images)
        differences[name] = SeedDifference(mean=math.fsum(known) / len(known), interval=interval, by_seed=known)
    return differences


def estimate_interval(by_seed: Sequence[float], image_variance: float) -> list[float] | None:
    """Low and high of the mean of the differences of n seeds; None with a single one.

    Args:
        by_seed: a difference for each seed.
        image_variance: variance of their mean over bootstrap samples of images.
    """
    from scipy.special import stdtrit

    count = len(by_seed)
    if count < 2:
        return None
    mean, seed_variance = float(np.mean(by_seed)), float(np.var(by_seed, ddof=1)) / count
    variance = seed_variance + image_variance
    freedom = _MAX_FREEDOM
    if seed_variance:
        freedom = min(_MAX_FREEDOM, (count - 1) * (variance / seed_variance) ** 2)
    half = float(stdtrit(freedom, _LEVEL)) * math.sqrt(variance)
    return [mean - half, mean + half]


def _subtract(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
