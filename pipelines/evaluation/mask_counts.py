"""The network's square laid over the scored picture: counts of pixels without ever stretching a mask.

Stretching by nearest neighbours turns each pixel of the square into a known number of the picture's pixels, of which a
known number are the target's. So the counts that scoring takes from a stretched mask are weighted sums over the square,
exactly. Masks of one expression are enlarged once, cut off once for each threshold, and united once for each set.

Letters: S side of the network's square, H, W size at which is scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import binarize, resize_bilinear, select_mask_logits
from pipelines.prediction.raw_output import RawOutput
from shards.masks import decode_mask, merge_rles
from shards.record import Expression, ImageRecord

# The global mask among the numbers of the queries.
_GLOBAL = -1


class MaskCounter:
    """One expression's masks in the network's square, and what each pixel there is worth in the scored picture."""

    def __init__(self, record: ImageRecord, expression: Expression, raw: RawOutput, resolution: int = 0) -> None:
        self.raw, self.side = raw, raw.image_size
        target = _draw_target(record, expression)
        rows, columns = (np.arange(length) * self.side // length for length in (record.height, record.width))
        if resolution:
            kept = [np.arange(resolution) * length // resolution for length in (record.height, record.width)]
            rows, columns = rows[kept[0]], columns[kept[1]]
            target = None if target is None else target[kept[0]][:, kept[1]]
        self._rows, self._columns, self._target = rows, columns, target
        self.image_px = len(rows) * len(columns)
        """Pixels of the scored picture."""
        self.target_px = 0 if target is None else int(target.sum())
        """Pixels of the target in the scored picture."""
        self._enlarged: dict[int, NDArray[np.float32]] = {}
        self._cut: dict[tuple[int, float], NDArray[np.bool_]] = {}
        self._counts: dict[tuple[float, tuple[int, ...]], tuple[int, int]] = {}

    def count(self, queries: Sequence[int], settings: PostprocessSettings) -> tuple[int, int]:
        """Pixels of the answer's mask in the scored picture, and those of them that are the target's.

        Args:
            queries: the chosen ones.
            settings: where the mask comes from, and its threshold.

        Raises:
            SettingsError: the raw outputs do not hold a query's mask.
        """
        parts = () if settings.mask_source == "global" else tuple(sorted(queries))
        sources = parts if settings.mask_source == "instance" else (_GLOBAL, *parts)
        key = (settings.mask_threshold, sources)
        if key not in self._counts:
            self._counts[key] = self._measure(sources, settings.mask_threshold)
        return self._counts[key]

    def _measure(self, sources: Sequence[int], threshold: float) -> tuple[int, int]:
        if not sources:
            return 0, 0
        pixels = np.logical_or.reduce([self._cut_source(source, threshold) for source in sources]).astype(np.float64)
        rows, columns = self._weights
        shared = 0.0 if self._target_weights is None else np.vdot(pixels, self._target_weights)
        return int(rows @ pixels @ columns), int(shared)

    def _cut_source(self, source: int, threshold: float) -> NDArray[np.bool_]:
        if (source, threshold) not in self._cut:
            if source not in self._enlarged:
                logits = self.raw.global_mask_logits if source == _GLOBAL else select_mask_logits(self.raw, [source])[0]
                self._enlarged[source] = resize_bilinear(logits.astype(np.float32), self.side)
            self._cut[source, threshold] = binarize(self._enlarged[source], threshold)
        return self._cut[source, threshold]

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(S,) twice: how many of the scored picture's rows come from each row of the square; likewise columns."""
        rows, columns = (
            np.bincount(places, minlength=self.side).astype(np.float64) for places in (self._rows, self._columns)
        )
        return rows, columns

    @cached_property
    def _target_weights(self) -> NDArray[np.float64] | None:
        """(S, S) how many of the target's pixels come from each pixel of the square; None without a mask truth."""
        if self._target is None:
            return None
        flat = (self._rows[:, None] * self.side + self._columns)[self._target]
        counts = np.bincount(flat, minlength=self.side**2).astype(np.float64)
        return counts.reshape(self.side, self.side)


def _draw_target(record: ImageRecord, expression: Expression) -> NDArray[np.bool_] | None:
    """The target's mask in the picture's own size; None for one without a mask truth."""
    masks = [instance.mask for instance in record.mask_targets(expression)]
    return decode_mask(merge_rles(masks, record.height, record.width)) if masks else None
