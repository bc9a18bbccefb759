"""The point-guided Hungarian matcher of queries and targets (paper, equation 4).

Letters: N decoder layers, B batch, Q queries, T largest number of targets of an image, P matched pairs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipelines.config.settings import MatchingSettings
from pipelines.model.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from shards.errors import NonFiniteError


@dataclass(frozen=True, slots=True)
class Matches:
    """The matched pairs of every decoder layer as indices into flattened tensors; int64, on the queries' device.

    Every layer has the same number of pairs, sorted by image and query.
    """

    queries: Tensor
    """(N, P) indices of queries, flattened to B·Q."""
    targets: Tensor
    """(N, P) indices of targets, concatenated over the images."""
    unmatched: Tensor
    """(N, B·Q - P) indices of all other queries."""
    finite: bool = True
    """Whether all costs were finite numbers; otherwise the pairs mean nothing."""


@torch.no_grad()
def hungarian_match(
    class_logits: Tensor, boxes: Tensor, points: Tensor, target_boxes: Sequence[Tensor], settings: MatchingSettings
) -> Matches:
    """Match queries to targets with the least total cost, separately for each layer and image.

    All costs are moved to the CPU in one transfer, and all pairs back in one. If an image has more targets than
    queries, some targets stay unmatched.

    Args:
        class_logits: (N, B, Q, 2) target, no object.
        boxes: (N, B, Q, 4) cxcywh in [0, 1].
        points: (B, Q, 2) the queries' points, x, y in [0, 1].
        target_boxes: for each image (T_i, 4) cxcywh in [0, 1].
        settings: weights of the costs.

    Raises:
        NonFiniteError: a target box is not finite.
    """
    targets = pad_sequence(list(target_boxes), batch_first=True)
    costs, finite = np.zeros((*boxes.shape[:3], 0), dtype=np.float32), True
    if targets.shape[1]:
        costs = compute_costs(class_logits, boxes, points, targets, settings).cpu().numpy()
        finite = bool(np.isfinite(costs).all())
        if not finite:
            if not torch.isfinite(targets).all():
                raise NonFiniteError("target boxes are not finite: the data is damaged")
            # This rank goes on like all others, so that none waits for it; the step will be skipped.
            costs = np.zeros_like(costs)
    pairs = _assign(costs, [len(boxes) for boxes in target_boxes])
    packed = torch.from_numpy(np.concatenate(pairs, axis=1)).to(boxes.device)
    queries, matched, unmatched = torch.split(packed, [part.shape[1] for part in pairs], dim=1)
    return Matches(queries, matched, unmatched, finite)


def compute_costs(
    class_logits: Tensor, boxes: Tensor, points: Tensor, target_boxes: Tensor, settings: MatchingSettings
) -> Tensor:
    """The cost (N, B, Q, T) of each pair of a query and a target of its image (paper, equation 4).

    Arguments as of `hungarian_match`, but target boxes (B, T, 4) are padded.
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
    """Matched queries, matched targets (N, P) and unmatched queries (N, B·Q - P) of costs (N, B, Q, T).

    `counts` are the numbers of targets of the images.
    """
    num_layers, num_images, num_queries, _ = costs.shape
    starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    queries, targets, unmatched = [], [], []
    for layer in range(num_layers):
        rows, columns = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
        for image, count in enumerate(counts):
            if count:
                row, column = linear_sum_assignment(costs[layer, image, :, :count])
                rows.append(row + image * num_queries)
                columns.append(column + starts[image])
        queries.append(np.concatenate(rows))
        targets.append(np.concatenate(columns))
        unmatched.append(np.delete(np.arange(num_images * num_queries), queries[-1]))
    return np.stack(queries), np.stack(targets), np.stack(unmatched)
