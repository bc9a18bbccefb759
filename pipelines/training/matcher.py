"""Which query answers for which target: the point-guided matcher (paper, equation 4).

Letters: N decoder layers, B batch, Q queries, T most targets of one picture, P matched pairs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipelines.config.settings import MatchingSettings
from pipelines.model.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from pipelines.training.divergence import DivergenceError
from shards.errors import NonFiniteError


@dataclass(frozen=True, slots=True)
class Matches:
    """The pairs of every decoder layer, as positions in flattened tensors; int64, on the queries' device.

    Every layer has the same number of pairs, and each picture's come together, in the order of its queries.
    """

    queries: Tensor
    """(N, P) positions in the batch's queries (B·Q)."""
    targets: Tensor
    """(N, P) positions in the batch's targets, one picture's after the other's."""
    unmatched: Tensor
    """(N, B·Q - P) positions of all other queries."""


@torch.no_grad()
def hungarian_match(
    class_logits: Tensor, boxes: Tensor, points: Tensor, target_boxes: Sequence[Tensor], settings: MatchingSettings
) -> Matches:
    """Match queries to targets at the least total cost, for each layer and picture on its own.

    All costs travel to the CPU at once, and all pairs back at once. If a picture has more targets than there are
    queries, some targets go without.

    Args:
        class_logits: (N, B, Q, 2) target, no object.
        boxes: (N, B, Q, 4) cxcywh in [0, 1].
        points: (B, Q, 2) the queries' points, x, y in [0, 1].
        target_boxes: for each picture (T_i, 4) cxcywh in [0, 1].
        settings: weights of the costs.

    Raises:
        DivergenceError: an output is not finite; says which.
        NonFiniteError: a target box is not finite.
    """
    targets = pad_sequence(list(target_boxes), batch_first=True)
    costs = np.zeros((*boxes.shape[:3], 0), dtype=np.float32)
    if targets.shape[1]:
        costs = compute_costs(class_logits, boxes, points, targets, settings).cpu().numpy()
        if not np.isfinite(costs).all():
            suspects = {"class logits": class_logits, "boxes": boxes, "points": points, "target boxes": targets}
            raise _describe_fault(suspects)
    pairs = _assign(costs, [len(boxes) for boxes in target_boxes])
    packed = torch.from_numpy(np.concatenate(pairs, axis=1)).to(boxes.device)
    return Matches(*torch.split(packed, [part.shape[1] for part in pairs], dim=1))


def compute_costs(
    class_logits: Tensor, boxes: Tensor, points: Tensor, target_boxes: Tensor, settings: MatchingSettings
) -> Tensor:
    """The cost (N, B, Q, T) of giving each query each target of its picture (paper, equation 4).

    Args:
        class_logits: (N, B, Q, 2).
        boxes: (N, B, Q, 4) cxcywh in [0, 1].
        points: (B, Q, 2) in [0, 1]; the same for all layers.
        target_boxes: (B, T, 4) cxcywh in [0, 1], padded.
        settings: weights of the costs.
    """
    objectness = class_logits.float().softmax(dim=-1)[..., :1]
    boxes, target_boxes = boxes.float()[..., :, None, :], target_boxes.float()[..., None, :, :]
    distance = (boxes - target_boxes).abs().sum(dim=-1)
    giou = generalized_box_iou(box_cxcywh_to_xyxy(boxes), box_cxcywh_to_xyxy(target_boxes))
    point_distance = (points.float()[..., :, None, :] - target_boxes[..., :2]).abs().sum(dim=-1)
    return (
        -settings.class_cost * objectness
        + settings.box_cost * distance
        - settings.giou_cost * giou
        + settings.point_cost * point_distance
    )


def _assign(
    costs: NDArray[np.float32], counts: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Costs (N, B, Q, T) and targets a picture to matched queries, matched targets and unmatched queries, (N, …)."""
    layers, pictures, num_queries, _ = costs.shape
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    queries, targets, unmatched = [], [], []
    for layer in range(layers):
        rows, columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for picture, count in enumerate(counts):
            if count:
                row, column = linear_sum_assignment(costs[layer, picture, :, :count])
                rows.append(row + picture * num_queries)
                columns.append(column + starts[picture])
        queries.append(np.concatenate(rows))
        targets.append(np.concatenate(columns))
        unmatched.append(np.delete(np.arange(pictures * num_queries), queries[-1]))
    return np.stack(queries), np.stack(targets), np.stack(unmatched)


def _describe_fault(suspects: Mapping[str, Tensor]) -> NonFiniteError:
    guilty = [name for name, tensor in suspects.items() if not torch.isfinite(tensor).all()]
    if guilty == ["target boxes"]:
        return NonFiniteError("target boxes are not finite: the data is damaged")
    what = " and ".join(guilty) or "matching costs"
    return DivergenceError(f"{what} are not finite: training has diverged")
