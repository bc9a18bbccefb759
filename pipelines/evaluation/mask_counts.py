"""Pixel counts of predicted masks in the original image, without resizing a mask to it.

Nearest-neighbor resizing turns each pixel of the network's square image into a known number of pixels of the original
image, of which a known number belong to the target. So the pixel counts of a resized mask are exact weighted sums over
the square. Each mask of an expression is upsampled once, binarized once per threshold, and merged once per set.

Letters: S side of the network's image; H, W size at which masks are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import PostprocessSettings
from pipelines.evaluation.metrics.outcomes import UNKNOWN_PX
from pipelines.prediction.postprocess import binarize, resize_bilinear, select_mask_logits
from pipelines.prediction.raw_output import RawOutput
from shards.masks import decode_mask, merge_rles, merge_target_masks, nearest_indices
from shards.record import Expression, ImageRecord

# Stands for the global mask among the indices of queries.
_GLOBAL = -1


class MaskCounter:
    """Counts the pixels of one expression's predicted masks, and of their intersection with the target.

    Args:
        record: the image.
        expression: one of the record's.
        raw: the network's output for the expression.
        resolution: side length in pixels at which masks are scored; 0: the image's own size.
    """

    def __init__(self, record: ImageRecord, expression: Expression, raw: RawOutput, resolution: int = 0) -> None:
        self.raw, self.side = raw, raw.image_size
        target_mask = merge_target_masks(record, expression)
        target = decode_mask(target_mask or merge_rles([], record.height, record.width))
        rows, columns = (nearest_indices(self.side, length) for length in target.shape)
        if resolution:
            kept_rows, kept_columns = (nearest_indices(length, resolution) for length in target.shape)
            rows, columns, target = rows[kept_rows], columns[kept_columns], target[kept_rows][:, kept_columns]
        self._rows, self._columns, self._target = rows, columns, target
        self.image_px = target.size
        """H × W."""
        self.target_px = int(target.sum()) if target_mask else UNKNOWN_PX
        """`UNKNOWN_PX` if a target has no mask."""
        self._upsampled: dict[int, NDArray[np.float32]] = {}
        self._binarized: dict[tuple[int, float], NDArray[np.bool_]] = {}
        self._counts: dict[tuple[float, tuple[int, ...]], tuple[int, int]] = {}

    def count(self, queries: Sequence[int], settings: PostprocessSettings) -> tuple[int, int]:
        """Pixels of the predicted mask of the selected queries, and of its intersection with the target.

        Raises:
            SettingsError: the raw outputs do not hold a query's mask.
        """
        sources = () if settings.mask_source == "global" else tuple(sorted(queries))
        sources = sources if settings.mask_source == "instance" else (_GLOBAL, *sources)
        key = (settings.mask_threshold, sources)
        if key not in self._counts:
            self._counts[key] = self._count(sources, settings.mask_threshold)
        return self._counts[key]

    def _count(self, sources: Sequence[int], threshold: float) -> tuple[int, int]:
        if not sources:
            return 0, 0
        mask = np.logical_or.reduce([self._binarize(source, threshold) for source in sources]).astype(np.float64)
        row_weights, column_weights = self._weights
        return int(row_weights @ mask @ column_weights), int(np.vdot(mask, self._target_weights))

    def _binarize(self, source: int, threshold: float) -> NDArray[np.bool_]:
        if (source, threshold) not in self._binarized:
            if source not in self._upsampled:
                logits = self.raw.global_mask_logits if source == _GLOBAL else select_mask_logits(self.raw, [source])[0]
                self._upsampled[source] = resize_bilinear(logits.astype(np.float32), self.side)
            self._binarized[source, threshold] = binarize(self._upsampled[source], threshold)
        return self._binarized[source, threshold]

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(S,) number of rows among the H that each row of the square becomes; (S,) likewise for columns."""
        rows, columns = (
            np.bincount(indices, minlength=self.side).astype(np.float64) for indices in (self._rows, self._columns)
        )
        return rows, columns

    @cached_property
    def _target_weights(self) -> NDArray[np.float64]:
        """(S, S) number of target pixels among those that each pixel of the square becomes."""
        indices = (self._rows[:, None] * self.side + self._columns)[self._target]
        counts = np.bincount(indices, minlength=self.side**2).astype(np.float64)
        return counts.reshape(self.side, self.side)
