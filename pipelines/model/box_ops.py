"""Boxes as the network sees them: cxcywh or xyxy, in fractions of the picture or in pixels, always (…, 4)."""

from __future__ import annotations

import torch
from torch import Tensor

# A reference may lie outside the picture; its logit is taken at least this far from 0 and 1 (as published).
_MARGIN = 1e-3
_AREA_MARGIN = 1e-6


def box_cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Boxes (…, 4) from centre and size to corners."""
    centre, size = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:]
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def box_xyxy_to_cxcywh(boxes_xyxy: Tensor) -> Tensor:
    """Boxes (…, 4) from corners to centre and size."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return torch.cat(((low + high) / 2, high - low), dim=-1)


def decode_boxes(deltas: Tensor, references: Tensor) -> Tensor:
    """Boxes from a prediction relative to reference points.

    Args:
        deltas: (…, 4) shifts of the centre in logits, then logits of width and height.
        references: (…, 2) x, y in fractions of the picture.

    Returns:
        (…, 4) cxcywh in [0, 1].
    """
    inside = references.clamp(0, 1)
    logits = torch.log(inside.clamp(min=_MARGIN) / (1 - inside).clamp(min=_MARGIN))
    return torch.cat((deltas[..., :2] + logits, deltas[..., 2:]), dim=-1).sigmoid()


def generalized_box_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """Generalized IoU in [-1, 1] of boxes (…, 4) with boxes (…, 4), broadcast: (N, 1, 4) with (M, 4) gives (N, M).

    Denominators are enlarged by 1e-6 as published, so boxes without area give finite values and gradients.
    """
    low, high = torch.maximum(first_xyxy, second_xyxy), torch.minimum(first_xyxy, second_xyxy)
    overlap = _multiply_sides((high[..., 2:] - low[..., :2]).clamp(min=0))
    hull = _multiply_sides(low[..., 2:] - high[..., :2])
    areas = [_multiply_sides(boxes[..., 2:] - boxes[..., :2]) for boxes in (first_xyxy, second_xyxy)]
    union = areas[0] + areas[1] - overlap
    return overlap / (union + _AREA_MARGIN) - (hull - union) / (hull + _AREA_MARGIN)


def _multiply_sides(sides: Tensor) -> Tensor:
    """Areas (…) of (…, 2). `Tensor.prod` would do, but its gradient looks for zeros and waits for the device."""
    return sides[..., 0] * sides[..., 1]
