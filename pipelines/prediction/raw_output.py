"""The output of the network about one expression, before post-processing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.model.igvg import IGVGOutput


FLOAT_FIELDS = ("class_logits", "boxes", "points", "existence_logits")

MASK_FLOOR = 0.1
"""Masks of queries with an object probability up to this are not kept, unless the prediction was made with a lower
score threshold: the range of thresholds for sweeps begins here."""


# Larger logits would become infinite in float16, and infinity has no place between two pixels.
_LARGEST_LOGIT = 60000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOutput:
    """What the network says about one expression; letters as in `IGVGOutput`."""

    id: str
    original_size: tuple[int, int]
    """Height and width of the original picture in pixels."""
    image_size: int
    """S, side in pixels of the square that the network saw."""
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


def unpack_output(
    output: IGVGOutput,
    ids: Sequence[str],
    original_sizes: Sequence[Sequence[int]] | Tensor,
    *,
    image_size: int,
    mask_floor: float = MASK_FLOOR,
) -> list[RawOutput]:
    """A batch's output as one `RawOutput` for each expression, on the CPU.

    Args:
        output: of B expressions.
        ids: (B,) of the expressions.
        original_sizes: (B, 2) height, width of the original pictures in pixels.
        image_size: side in pixels of the square that the network saw.
        mask_floor: masks of queries with an object probability up to this are dropped.

    Raises:
        FloatingPointError: an output is not finite; says which.
    """
    arrays = {name: _to_numpy(getattr(output, name), name) for name in FLOAT_FIELDS}
    masks = {
        name: _to_numpy(getattr(output, name), name).clip(-_LARGEST_LOGIT, _LARGEST_LOGIT).astype(np.float16)
        for name in ("global_mask_logits", "instance_mask_logits")
    }
    outputs = []
    for row, (id_, size) in enumerate(zip(ids, original_sizes, strict=True)):
        kept = np.flatnonzero(object_probabilities(arrays["class_logits"][row]) > mask_floor)
        outputs.append(
            RawOutput(
                id=id_,
                original_size=(int(size[0]), int(size[1])),
                image_size=image_size,
                **{name: array[row] for name, array in arrays.items()},
                global_mask_logits=masks["global_mask_logits"][row, 0],
                instance_mask_logits=masks["instance_mask_logits"][row, kept],
                mask_queries=kept,
            )
        )
    return outputs


def effective_mask_floor(score_threshold: float) -> float:
    """The object probability up to which masks are dropped, so that a score threshold never misses one."""
    return min(MASK_FLOOR, score_threshold)


def object_probabilities(class_logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Object probabilities (…,) of logits (…, 2): softmax over target and no object."""
    gap = class_logits[..., 1].astype(np.float64) - class_logits[..., 0]
    scores: NDArray[np.float64] = 1 / (1 + np.exp(gap.clip(-80, 80)))
    return scores


def _to_numpy(tensor: Tensor, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().float().cpu().numpy()
    if not np.isfinite(array).all():
        raise FloatingPointError(f"the network's {name} are not finite; its weights are damaged, or training diverged")
    return array
