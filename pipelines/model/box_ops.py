"""Boxes as tensors (…, 4): cxcywh or xyxy, in fractions of the image or in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

_AREA_EPS = 1e-6


def box_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Boxes (…, 4) from center and size to corners."""
    center, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((center - size / 2, center + size / 2), dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Boxes (…, 4) from corners to center and size."""
    top_left, bottom_right = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((top_left + bottom_right) / 2, bottom_right - top_left), dim=-1)


def inverse_sigmoid(values: Tensor, eps: float = 1e-3) -> Tensor:
    """Logits of values clamped to [0, 1], their numerators and denominators at least eps (Deformable DETR)."""
    values = values.clamp(0, 1)
    return torch.log(values.clamp(min=eps) / (1 - values).clamp(min=eps))


def decode_boxes(deltas: Tensor, reference_points: Tensor) -> Tensor:
    """Boxes from a prediction relative to reference points.

    Args:
        deltas: (…, 4) offsets of the center in logits, then logits of width and height.
        reference_points: (…, 2) x, y in fractions of the image.

    Returns:
        (…, 4) cxcywh in [0, 1].
    """
    center = deltas[..., :2] + inverse_sigmoid(reference_points)
    return torch.cat((center, deltas[..., 2:]), dim=-1).sigmoid()


def generalized_box_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Generalized IoU in [-1, 1] of boxes (…, 4) with boxes (…, 4), broadcast: (N, 1, 4) with (M, 4) gives (N, M).

    Denominators are enlarged by 1e-6 as published, so boxes without area give finite values and gradients.
    """
    low, high = torch.maximum(first_xyxy, second_xyxy), torch.minimum(first_xyxy, second_xyxy)
    intersection = _area((high[..., 2:] - low[..., :2]).clamp(min=0))
    hull = _area(low[..., 2:] - high[..., :2])
    areas = [_area(boxes[..., 2:] - boxes[..., :2]) for boxes in (first_xyxy, second_xyxy)]
    union = areas[0] + areas[1] - intersection
    return intersection / (union + _AREA_EPS) - (hull - union) / (hull + _AREA_EPS)


def _area(sizes: Tensor) -> Tensor:
    """Sizes (…, 2) to areas (…). The gradient of `Tensor.prod` would synchronize with the device."""
    return sizes[..., 0] * sizes[..., 1]
