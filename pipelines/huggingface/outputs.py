"""From the network's outputs in a batch to the results and dictionaries of post-processing.

Letters: B rows of the batch, one expression each; N instances; H, W the size of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.config.settings import PostprocessSettings
from pipelines.prediction.postprocess import scale_boxes, score_queries, select_queries
from pipelines.prediction.raw_output import RawOutput, effective_mask_floor, unpack_output
from shards.errors import SettingsError

TargetSizes = Tensor | Sequence[Sequence[int]]
"""(B, 2) height, width of each row's image in pixels, or one for all rows."""
_BACKGROUND = -1


def unpack_rows(outputs: Any, target_sizes: TargetSizes, image_size: int, threshold: float) -> list[RawOutput]:
    """The raw output of each row.

    Args:
        outputs: an `IGVGOutput`, or transformers' output with the same attributes.
        target_sizes: of the rows' images.
        image_size: side in pixels of the square image that the network saw.
        threshold: masks of queries that score above it are kept.

    Raises:
        SettingsError: there are other sizes than rows.
    """
    rows = len(outputs.class_logits)
    sizes = list_sizes(target_sizes, rows)
    floor = effective_mask_floor(threshold)
    return unpack_output(outputs, [""] * rows, sizes, image_size=image_size, mask_floor=floor)


def detect_objects(outputs: Any, threshold: float, target_sizes: TargetSizes | None) -> list[dict[str, Tensor]]:
    """Scores, labels and boxes of each row in float32; without target sizes boxes are fractions of the image."""
    settings = PostprocessSettings(score_threshold=float(threshold))
    sizes = [(1, 1)] if target_sizes is None else target_sizes
    results = []
    for raw in unpack_rows(outputs, sizes, 1, 1.0):
        boxes, scores = scale_boxes(raw.boxes, *raw.original_size), score_queries(raw, existence_weighting=True)
        queries = select_queries(boxes, scores, settings)
        results.append({
            "scores": torch.from_numpy(scores[queries].astype(np.float32)),
            "labels": torch.zeros(len(queries), dtype=torch.int64),
            "boxes": torch.from_numpy(boxes[queries].astype(np.float32)),
        })  # fmt: skip
    return results


def merge_segments(masks: Tensor, scores: Tensor, *, binary_maps: bool) -> dict[str, Any]:
    """Instances as one map of segment ids, as Mask2Former's processor returns them.

    Args:
        masks: (N, H, W) bool.
        scores: (N,).
        binary_maps: keep one map for each segment.

    Returns:
        `segmentation` (H, W) int32, -1 where no instance is and the later instance where two are, or (N, H, W) with
        `binary_maps`; and `segments_info`, the id, label and score of each.
    """
    kept = [index for index in range(len(masks)) if masks[index].any()]
    segmentation = torch.full(masks.shape[1:], _BACKGROUND, dtype=torch.int32)
    for segment, index in enumerate(kept):
        segmentation[masks[index]] = segment
    info = [
        {"id": segment, "label_id": 0, "was_fused": False, "score": round(float(scores[index]), 6)}
        for segment, index in enumerate(kept)
    ]
    return {"segmentation": masks[kept] if binary_maps and kept else segmentation, "segments_info": info}


def list_sizes(target_sizes: TargetSizes, rows: int) -> list[tuple[int, int]]:
    """Height and width of each row's image in pixels.

    Raises:
        SettingsError: there are other sizes than rows, or one is none.
    """
    try:
        sizes = [(int(height), int(width)) for height, width in target_sizes]
    except (TypeError, ValueError) as error:
        raise SettingsError(f"target_sizes is {target_sizes}; give a list with (height, width) of each row") from error
    if len(sizes) == 1:
        sizes *= rows
    if len(sizes) != rows:
        raise SettingsError(f"{len(sizes)} target_sizes for {rows} rows of outputs; give (height, width) of each")
    if any(side < 1 for size in sizes for side in size):
        raise SettingsError(f"target_sizes holds {min(sizes)}; give (height, width) in pixels")
    return sizes
