"""The network's output for one expression, before post-processing, in NumPy. Importing this module loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shards.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.model.igvg import IGVGOutput

FLOAT_FIELDS = ("class_logits", "boxes", "points", "existence_logits")
"""The fields that are stored in float32."""
MASK_FLOOR = 0.1
"""Masks of queries whose object probability is not above this are dropped, unless the score threshold of the prediction
is lower: sweeps can vary the score threshold from here on."""
# Larger logits would become infinite in float16, and bilinear interpolation between infinities is NaN.
_MAX_LOGIT = 60000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOutput:
    """The network's output for one expression; letters as in `IGVGOutput`."""

    id: str
    original_size: tuple[int, int]
    """Height and width of the original image in pixels."""
    image_size: int
    """Side in pixels of the square image that the network saw."""
    class_logits: NDArray[np.float32]
    """(Q, 2): target, no object."""
    boxes: NDArray[np.float32]
    """(Q, 4) cx, cy, w, h in [0, 1]."""
    points: NDArray[np.float32]
    """(Q, 2) x, y in [0, 1]."""
    existence_logits: NDArray[np.float32]
    """(2,): a target exists, none does."""
    global_mask_logits: NDArray[np.float16]
    """(H, W)."""
    instance_mask_logits: NDArray[np.float16]
    """(K, H, W) masks of `mask_queries`."""
    mask_queries: NDArray[np.int64]
    """(K,) the queries whose masks are kept, ascending."""
    attention_map: NDArray[np.uint8] | None = None
    """(h, w) for each patch the largest attention of a selected token, as `normalize_attention` gives it; None: outputs
    that an earlier igvg stored."""


def unpack_output(
    output: IGVGOutput,
    ids: Sequence[str],
    original_sizes: Sequence[Sequence[int]] | Tensor,
    *,
    image_size: int,
    mask_floor: float = MASK_FLOOR,
) -> list[RawOutput]:
    """Split a batch's output into one `RawOutput` per expression, on the CPU.

    Args:
        output: of B expressions.
        ids: (B,) of the expressions.
        original_sizes: (B, 2) height, width of the original images in pixels.
        image_size: side in pixels of the square image that the network saw.
        mask_floor: masks of queries whose object probability is not above this are dropped.

    Raises:
        NonFiniteError: an output is not finite; names it.
    """
    floats = {name: _to_numpy(getattr(output, name), name) for name in FLOAT_FIELDS}
    global_masks, instance_masks = (
        _to_numpy(getattr(output, name), name).clip(-_MAX_LOGIT, _MAX_LOGIT).astype(np.float16)
        for name in ("global_mask_logits", "instance_mask_logits")
    )
    attention_maps = normalize_attention(_to_numpy(output.attention_map, "attention_map"))
    outputs = []
    for row, (expression_id, size) in enumerate(zip(ids, original_sizes, strict=True)):
        kept = np.flatnonzero(object_probabilities(floats["class_logits"][row]) > mask_floor)
        outputs.append(
            RawOutput(
                id=expression_id,
                original_size=(int(size[0]), int(size[1])),
                image_size=image_size,
                **{name: array[row] for name, array in floats.items()},
                global_mask_logits=global_masks[row, 0],
                instance_mask_logits=instance_masks[row, kept],
                mask_queries=kept,
                attention_map=attention_maps[row],
            )
        )
    return outputs


def normalize_attention(attention_maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Attention maps (B, h, w) in [0, 1] in steps of 1/255 of each map's highest value, from 0 to 255."""
    highest = attention_maps.max(axis=(1, 2), keepdims=True)
    fractions = np.divide(attention_maps, highest, out=np.zeros_like(attention_maps), where=highest > 0)
    normalized: NDArray[np.uint8] = np.rint(255 * fractions).astype(np.uint8)
    return normalized


def effective_mask_floor(score_threshold: float) -> float:
    """The object probability up to which masks are dropped, so that no query above the score threshold loses its."""
    return min(MASK_FLOOR, score_threshold)


def object_probabilities(class_logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Object probabilities (…,) of logits (…, 2): softmax over target and no object."""
    difference = class_logits[..., 1].astype(np.float64) - class_logits[..., 0]
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(difference.clip(-80, 80)))
    return probabilities


def _to_numpy(tensor: Tensor, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    if not np.isfinite(array).all():
        raise NonFiniteError(f"the network's {name} are not finite; its weights are damaged, or training diverged")
    return array
