"""The network at work: batches in, one raw output for each expression out."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from pipelines.images import normalize_pictures
from pipelines.raw import RawOutput, lower_floor, unpack_output

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipelines.batch import Batch
    from pipelines.model import IGVGModel
    from pipelines.precision import Arithmetic


def open_autocast(device: torch.device, precision: Arithmetic) -> contextlib.AbstractContextManager[None]:
    """A context in which the network computes in bfloat16 where that is safe, or as it is."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def predict_batches(
    model: IGVGModel, batches: Iterable[Batch], precision: Arithmetic, score_threshold: float
) -> Iterator[list[RawOutput]]:
    """The raw outputs of each batch, in its order; the model is put into evaluation mode.

    Args:
        model: on the device where it shall run.
        batches: with or without targets.
        precision: arithmetic of the network.
        score_threshold: that of the answers; masks of queries that it may choose are kept.
    """
    device = next(model.parameters()).device
    model.eval()
    for batch in batches:
        moved = batch.to(device)
        with torch.inference_mode(), open_autocast(device, precision):
            output = model(normalize_pictures(moved.pixel_values), moved.input_ids, moved.attention_mask)
        yield unpack_output(
            output,
            batch.ids,
            batch.original_sizes,
            picture_size=model.config.image_size,
            mask_floor=lower_floor(score_threshold),
        )
