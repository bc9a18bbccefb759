"""What training minimises: classes and boxes of every decoder layer, masks, attention, existence (paper, equation 6).

Everything is computed for the whole batch at once, and every head stays in the graph whatever the batch holds: without
any target the terms of matched pairs are sums over nothing, zero with zero gradients.

NOTE: every term is a mean over the whole step, so that averaging the gradients of its parts (the shares of processes,
cut into micro-batches) gives those of the whole batch at once. In the published code only the box terms are; its other
terms are means over what one process sees, so that a matched mask counts more where there are few.

Letters: N decoder layers, B batch, Q queries, P matched pairs, H = W side of target masks, h = w cells of the encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.settings import LossSettings, MatchingSettings
from pipelines.data.batch import Targets
from pipelines.model.box_ops import box_cxcywh_to_xyxy, generalized_box_iou
from pipelines.model.igvg import IGVGOutput
from pipelines.training.matcher import Matches, hungarian_match

_TINY = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCounts:
    """What the losses of a step are divided by: counts over all processes and micro-batches of the step."""

    boxes: Tensor
    """Target boxes; scalar."""
    matched: Tensor
    """Pairs of a query and a target in one decoder layer; scalar."""
    existing: Tensor
    """Expressions with a target; scalar."""
    pictures: int
    """Expressions."""
    parts: int
    """Parts whose gradients are averaged: processes × micro-batches, all of one size."""


def count_targets(targets: Targets, num_queries: int) -> Tensor:
    """Boxes, pairs and expressions with a target (3,), float, on the device of the targets."""
    counts = [len(boxes) for boxes in targets.boxes]
    matched = sum(min(count, num_queries) for count in counts)
    totals = [float(total) for total in (sum(counts), matched, sum(count > 0 for count in counts))]
    return torch.tensor(totals, device=targets.exists.device)


def count_step(
    targets: Targets,
    num_queries: int,
    *,
    total: Callable[[Tensor], Tensor] | None = None,
    processes: int = 1,
    micro_batches: int = 1,
) -> StepCounts:
    """The counts of a step of which `targets` are one process's share.

    Args:
        targets: of all micro-batches of this process.
        num_queries: queries of a picture.
        total: sums a tensor over all processes.
        processes: how many there are; each has as many expressions.
        micro_batches: parts that each process cuts its share into.
    """
    counts = count_targets(targets, num_queries)
    boxes, matched, existing = (counts if total is None else total(counts)).unbind()
    return StepCounts(
        boxes=boxes,
        matched=matched,
        existing=existing,
        pictures=len(targets.boxes) * processes,
        parts=processes * micro_batches,
    )


def compute_losses(
    output: IGVGOutput,
    targets: Targets,
    matching: MatchingSettings,
    settings: LossSettings,
    counts: StepCounts | None = None,
) -> dict[str, Tensor]:
    """All terms of the objective, and their weighted sum `total`.

    Args:
        output: of the network.
        targets: of the same pictures; masks at any resolution, to which mask logits are upsampled.
        matching: weights of the matching costs.
        settings: weights of the terms.
        counts: of the whole step, which `targets` are a part of; None: they are all of it.

    Returns:
        Scalars without their weights: `classes`, `boxes`, `giou` of the last decoder layer and `classes_layer1` … of
        earlier ones; `instance_dice`, `instance_bce` (matched masks), `negative_…` (unmatched masks), `global_…`,
        `attention_…`; `existence`; and `total`.

    Raises:
        DivergenceError: the outputs are not finite.
        NonFiniteError: target boxes are not finite.
    """
    class_logits = torch.stack((*output.aux_class_logits, output.class_logits)).float()
    boxes = torch.stack((*output.aux_boxes, output.boxes)).float()
    num_queries = boxes.shape[2]
    counts = counts or count_step(targets, num_queries)
    matches = hungarian_match(class_logits, boxes, output.points, targets.boxes, matching)
    unmatched = counts.pictures * num_queries - counts.matched
    detection = {
        "classes": loss_labels(
            class_logits, matches, settings.no_object, (counts.matched + settings.no_object * unmatched) / counts.parts
        ),
        **loss_boxes(boxes, torch.cat(targets.boxes), matches, counts.boxes.clamp(min=1) / counts.parts),
    }
    terms = {name: layers[-1] for name, layers in detection.items()}
    for name, layers in detection.items():
        terms |= {f"{name}_layer{number}": value for number, value in enumerate(layers[:-1].unbind(), start=1)}
    masks_of_part = (counts.matched.clamp(min=1) / counts.parts, unmatched.clamp(min=1) / counts.parts)
    terms |= loss_instance_masks(output.instance_mask_logits, targets, matches, masks_of_part)
    terms |= loss_global_masks(output, targets)
    for_target, for_none = settings.existence_balance
    weights = for_target * counts.existing + for_none * (counts.pictures - counts.existing)
    terms["existence"] = loss_existence(
        output.existence_logits, targets.exists, settings.existence_balance, weights / counts.parts
    )
    terms["total"] = weighted_sum(terms, settings)
    return terms


def weighted_sum(terms: dict[str, Tensor], settings: LossSettings) -> Tensor:
    """The weighted sum of the terms of `compute_losses` (paper, equation 6).

    NOTE: the published training looks the weights of earlier layers up under names it does not have, so that they
    count by 1; igvg gives them the last layer's unless asked for "published".
    """
    detection = {"classes": settings.classes, "boxes": settings.boxes, "giou": settings.giou}
    masks = {
        "instance": settings.instance,
        "negative": settings.negative,
        "global": settings.global_mask,
        "attention": settings.attention,
    }
    total = settings.existence * terms["existence"]
    for name, value in terms.items():
        kind, _, suffix = name.partition("_")
        if kind in detection:
            weight = 1.0 if suffix and settings.auxiliary_boxes == "published" else detection[kind]
            total = total + settings.detection * weight * value
        elif kind in masks:
            total = total + masks[kind] * value
    return total


def loss_labels(class_logits: Tensor, matches: Matches, no_object: float, total: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy (N,) of logits (N, B, Q, 2): class 0 where a target is matched, else class 1.

    Args:
        class_logits: (N, B, Q, 2).
        matches: the pairs.
        no_object: weight of class 1.
        total: what the weighted sum is divided by; None: the sum of these weights.
    """
    logits = class_logits.flatten(1, 2)
    labels = torch.ones(logits.shape[:2], dtype=torch.int64, device=logits.device).scatter(1, matches.queries, 0)
    weights = torch.ones_like(labels, dtype=logits.dtype).masked_fill(labels == 1, no_object)
    entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    total = weights.sum(dim=1) if total is None else total
    return (weights * entropy).sum(dim=1) / total.clamp(min=_TINY)


def loss_boxes(boxes: Tensor, target_boxes: Tensor, matches: Matches, num_boxes: Tensor | float) -> dict[str, Tensor]:
    """L1 distance and 1 - generalized IoU of matched boxes, summed over pairs, ÷ `num_boxes`; each (N,).

    Args:
        boxes: (N, B, Q, 4) cxcywh in [0, 1].
        target_boxes: all targets of the batch (ΣT, 4) cxcywh in [0, 1].
        matches: the pairs.
        num_boxes: the normaliser.
    """
    picked = boxes.flatten(1, 2).gather(1, matches.queries[..., None].expand(-1, -1, 4))
    wanted = target_boxes.float()[matches.targets]
    distance = (picked - wanted).abs().sum(dim=(1, 2))
    giou = generalized_box_iou(box_cxcywh_to_xyxy(picked), box_cxcywh_to_xyxy(wanted))
    return {"boxes": distance / num_boxes, "giou": (1 - giou).sum(dim=1) / num_boxes}


def loss_instance_masks(
    logits: Tensor, targets: Targets, matches: Matches, counts: tuple[Tensor | None, Tensor | None] = (None, None)
) -> dict[str, Tensor]:
    """Mask terms of the last layer's matched queries, and of its unmatched ones, whose masks should be empty.

    Each is a mean over its own queries, of which a batch may have none.

    Args:
        logits: (B, Q, h', w').
        targets: instance masks of each picture.
        matches: the pairs; the last layer's are used.
        counts: what the sums over matched and over unmatched queries are divided by; None: their own numbers.
    """
    size = targets.global_masks.shape[-2:]
    per_query = logits.flatten(0, 1)
    matched = upsample_logits(per_query[matches.queries[-1]], size)
    unmatched = upsample_logits(per_query[matches.unmatched[-1]], size)
    wanted = torch.cat(targets.instance_masks)[matches.targets[-1]]
    return {
        **_name_terms("instance", *loss_masks(matched, wanted.to(matched.dtype), counts[0])),
        **_name_terms("negative", *loss_masks(unmatched, unmatched.new_zeros(()).expand_as(unmatched), counts[1])),
    }


def loss_global_masks(output: IGVGOutput, targets: Targets) -> dict[str, Tensor]:
    """Mask terms of the global mask, and of the attention map against the same mask at the encoder's cells.

    NOTE: the attention map holds probabilities; as published they are taken for logits and squashed again, so its
    cross-entropy stays near ln 2 and the term mostly asks for contrast.
    """
    wanted = targets.global_masks.float()
    logits = upsample_logits(output.global_mask_logits[:, 0], wanted.shape[-2:])
    attention = output.attention_map.float()
    cells = F.interpolate(wanted[:, None], size=attention.shape[-2:], mode="nearest")[:, 0]
    return {
        **_name_terms("global", *loss_masks(logits, wanted)),
        **_name_terms("attention", *loss_masks(attention, cells)),
    }


def loss_existence(logits: Tensor, exists: Tensor, balance: tuple[float, float], total: Tensor | None = None) -> Tensor:
    """Weighted mean cross-entropy of logits (B, 2): class 0 where a target exists, else class 1.

    Args:
        logits: (B, 2).
        exists: (B,).
        balance: weights of the two classes.
        total: what the weighted sum is divided by; None: the sum of these weights.
    """
    entropy = F.cross_entropy(logits.float(), (~exists).long(), reduction="none")
    weights = torch.where(exists, balance[0], balance[1])
    total = weights.sum() if total is None else total
    return (weights * entropy).sum() / total.clamp(min=_TINY)


def loss_masks(logits: Tensor, wanted: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Dice loss and binary cross-entropy, means over masks: zero over none, never NaN.

    Args:
        logits: (P, H, W).
        wanted: (P, H, W) in {0, 1}.
        count: what the sums over masks are divided by; None: P, or 1 if there are none.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * wanted).sum(dim=(1, 2))
    sizes = probabilities.sum(dim=(1, 2)) + wanted.sum(dim=(1, 2))
    dice = 1 - (2 * overlap + 1) / (sizes + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=(1, 2))
    divisor = max(1, len(logits)) if count is None else count
    return dice.sum() / divisor, entropy.sum() / divisor


def upsample_logits(logits: Tensor, size: torch.Size) -> Tensor:
    """Mask logits (P, h', w') as float32 (P, H, W): bilinear between aligned corners, unless they have that size."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def _name_terms(name: str, dice: Tensor, entropy: Tensor) -> dict[str, Tensor]:
    return {f"{name}_dice": dice, f"{name}_bce": entropy}
