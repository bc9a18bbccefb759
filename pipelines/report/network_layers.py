"""What the network's raw output shows beside a prediction: single masks, points, attention, existence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import (
    existence_probability,
    logits_to_mask,
    scale_boxes,
    score_queries,
    select_mask_logits,
    select_queries,
)
from pipelines.prediction.raw_output import RawOutput
from pipelines.report.gallery import NetworkLayers
from pipelines.report.shown_frame import ShownFrame
from shards.errors import SettingsError
from shards.record import Rle

# Pixels by which boxes may differ from those of the prediction: another machine may round differently.
_TOLERANCE = 0.01


def derive_layers(
    raw: RawOutput, boxes: Sequence[Sequence[float]] | None, settings: PostprocessSettings, frame: ShownFrame
) -> NetworkLayers | None:
    """The layers of one prediction, in pixels of the shown image.

    Args:
        raw: the network's output.
        boxes: the predicted boxes, xyxy in pixels of the original.
        settings: those of the prediction.
        frame: of the image.

    Returns:
        None if post-processing the raw output gives other boxes: it is not what the prediction was made from.
    """
    height, width = raw.original_size
    scaled = scale_boxes(raw.boxes, height, width)
    scores = score_queries(raw, existence_weighting=settings.existence_weighting)
    queries = select_queries(scaled, scores, settings)
    given = np.asarray([] if boxes is None else boxes, dtype=np.float64).reshape(-1, 4)
    if given.shape != scaled[queries].shape or not np.allclose(given, scaled[queries], rtol=0, atol=_TOLERANCE):
        return None
    points = raw.points.astype(np.float64) * (width, height)
    threshold = settings.mask_threshold
    return NetworkLayers(
        instance_masks=_encode_instances(raw, queries, threshold, frame),
        global_mask=frame.encode_square(logits_to_mask(raw.global_mask_logits, raw.image_size, threshold)),
        points=frame.scale_coordinates(points[queries]),
        all_points=frame.scale_coordinates(points),
        attention_map=raw.attention_map,
        existence=existence_probability(raw),
    )


def _encode_instances(
    raw: RawOutput, queries: NDArray[np.int64], threshold: float, frame: ShownFrame
) -> list[Rle] | None:
    """The masks of selected queries; None where raw outputs of the global mask alone did not keep them."""
    try:
        logits = select_mask_logits(raw, queries)
    except SettingsError:
        return None
    return [frame.encode_square(logits_to_mask(each, raw.image_size, threshold)) for each in logits]
