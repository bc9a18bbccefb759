"""Runs the network: batches in, one raw output per expression out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from pipelines.data.batch import Batch
from pipelines.data.image_transforms import normalize_images
from pipelines.model import IGVGModel
from pipelines.prediction.raw_output import RawOutput, effective_mask_floor, unpack_output
from pipelines.runtime.precision import ComputeDtype, autocast_context


def predict_batches(
    model: IGVGModel, batches: Iterable[Batch], compute_dtype: ComputeDtype, score_threshold: float
) -> Iterator[list[RawOutput]]:
    """The raw outputs of each batch, in order; the model is put into evaluation mode.

    The masks of all queries that post-processing with this `score_threshold` may select are kept.
    """
    device = next(model.parameters()).device
    model.eval()
    for batch in batches:
        moved = batch.to(device)
        with torch.inference_mode(), autocast_context(device, compute_dtype):
            output = model(normalize_images(moved.pixel_values), moved.input_ids, moved.attention_mask)
        yield unpack_output(
            output,
            batch.ids,
            batch.original_sizes,
            image_size=model.config.image_size,
            mask_floor=effective_mask_floor(score_threshold),
        )
