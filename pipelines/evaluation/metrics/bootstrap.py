"""How far chance alone could move a metric: intervals from a bootstrap over images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics.outcomes import Ratio

_FEWEST_PICTURES = 2


_CHUNK = 100


def estimate_intervals(
    terms: Mapping[str, Ratio], image_ids: NDArray[np.int64], *, samples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % intervals of metrics in percent: the 2.5th and 97.5th percentile of a bootstrap over pictures.

    Pictures are drawn, not expressions, because expressions about one picture succeed and fail together.

    Args:
        terms: what each expression (N,) adds to each metric.
        image_ids: (N,) the expressions' pictures.
        samples: how many splits are drawn.
        seed: of the draws.

    Returns:
        Low and high for each metric; None where there is nothing to measure, or a single picture, which says nothing
        of others.
    """
    return _bound(terms, _draw_scores(terms, image_ids, samples, seed))


def estimate_differences(
    before: Mapping[str, Ratio], after: Mapping[str, Ratio], image_ids: NDArray[np.int64], *, samples: int, seed: int
) -> dict[str, list[float] | None]:
    """95 % intervals of `after` less `before`, in percent, paired: both are measured on the same drawn pictures.

    What makes a picture hard moves both alike and cancels, so the interval is narrower than those of the two scores.

    Args:
        before: what each expression (N,) adds to each metric, in one set of answers.
        after: likewise in another, with the same metrics.
        image_ids: (N,) the expressions' pictures.
        samples: how many splits are drawn.
        seed: of the draws.
    """
    drawn = [_draw_scores(terms, image_ids, samples, seed) for terms in (before, after)]
    return _bound(before, drawn[1] - drawn[0])


def _draw_scores(
    terms: Mapping[str, Ratio], image_ids: NDArray[np.int64], samples: int, seed: int
) -> NDArray[np.float64]:
    """Metrics in percent (samples, metrics) of splits drawn over pictures; NaN where there is nothing to measure."""
    pictures, which = np.unique(image_ids, return_inverse=True)
    if len(pictures) < _FEWEST_PICTURES:
        return np.full((samples, len(terms)), np.nan)
    sums = np.stack([
        np.bincount(which, values, len(pictures)) for term in terms.values() for values in (term.part, term.whole)
    ], axis=1)  # fmt: skip
    random = np.random.default_rng(seed)
    even = np.full(len(pictures), 1 / len(pictures))
    drawn = np.concatenate([
        random.multinomial(len(pictures), even, size=min(_CHUNK, samples - start)) @ sums
        for start in range(0, samples, _CHUNK)
    ])  # fmt: skip
    part, whole = drawn[:, 0::2], drawn[:, 1::2]
    percent: NDArray[np.float64] = 100 * np.divide(part, whole, out=np.full_like(part, np.nan), where=whole != 0)
    return percent


def _bound(names: Iterable[str], drawn: NDArray[np.float64]) -> dict[str, list[float] | None]:
    intervals: dict[str, list[float] | None] = {}
    for name, column in zip(names, drawn.T, strict=True):
        values = column[~np.isnan(column)]
        intervals[name] = np.percentile(values, [2.5, 97.5]).tolist() if len(values) else None
    return intervals
