"""Confidence intervals of metrics from a bootstrap over images.

Whole images are drawn, not single expressions, because expressions about one image succeed and fail together.

Letters: N expressions, M metrics, I images, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.outcomes import Ratio

_PERCENTILES = (2.5, 97.5)
_MIN_IMAGES = 2
# Samples that are drawn at once: (_CHUNK_SIZE, I) counts in memory.
_CHUNK_SIZE = 100


def estimate_intervals(
    ratios: Mapping[str, Ratio], image_ids: NDArray[np.int64], *, samples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % confidence intervals in percent of the metrics of N expressions, about the images `image_ids` (N,).

    Returns:
        Low and high for each metric; None where there is nothing to measure, or fewer than two images.
    """
    return _percentiles(ratios, draw_bootstrap(ratios, image_ids, samples, seed))


def estimate_differences(
    ratios_a: Mapping[str, Ratio], ratios_b: Mapping[str, Ratio], image_ids: NDArray[np.int64], *, samples: int,
    seed: int,
) -> dict[str, list[float] | None]:  # fmt: skip
    """95 % confidence intervals of the paired differences `b` minus `a` in percent.

    Both are measured on the same bootstrap samples: what makes an image hard affects both and cancels out.
    """
    scores_a, scores_b = (draw_bootstrap(ratios, image_ids, samples, seed) for ratios in (ratios_a, ratios_b))
    return _percentiles(ratios_a, scores_b - scores_a)


def draw_bootstrap(
    ratios: Mapping[str, Ratio], image_ids: NDArray[np.int64], samples: int, seed: int
) -> NDArray[np.float64]:
    """Metrics (S, M) in percent of the bootstrap samples; NaN where there is nothing to measure."""
    images, image_index = np.unique(image_ids, return_inverse=True)
    if len(images) < _MIN_IMAGES:
        return np.full((samples, len(ratios)), np.nan)
    sums = np.stack([
        np.bincount(image_index, values, len(images)) for ratio in ratios.values() for values in ratio
    ], axis=1)  # fmt: skip
    random = np.random.default_rng(seed)
    probabilities = np.full(len(images), 1 / len(images))
    totals = np.concatenate([
        random.multinomial(len(images), probabilities, size=min(_CHUNK_SIZE, samples - start)) @ sums
        for start in range(0, samples, _CHUNK_SIZE)
    ])  # fmt: skip
    numerator, denominator = totals[:, 0::2], totals[:, 1::2]
    nan = np.full_like(numerator, np.nan)
    percent: NDArray[np.float64] = 100 * np.divide(numerator, denominator, out=nan, where=denominator != 0)
    return percent


def _percentiles(names: Iterable[str], scores: NDArray[np.float64]) -> dict[str, list[float] | None]:
    intervals: dict[str, list[float] | None] = {}
    for name, column in zip(names, scores.T, strict=True):
        values = column[~np.isnan(column)]
        intervals[name] = np.percentile(values, _PERCENTILES).tolist() if len(values) else None
    return intervals
