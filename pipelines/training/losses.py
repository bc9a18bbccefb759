"""The training objective: classes and boxes of every decoder layer, masks, attention, existence (paper, equation 6).

Every head stays in the graph for every batch: without targets the terms of matched pairs are sums over nothing, zero
with zero gradients.

NOTE: every term is a mean over the whole step, so that averaging the gradients of its parts (the micro-batches of all
ranks) gives the gradients of the whole batch. In the published code this holds for the box terms only; its other terms
are means over the batch of one process, so that a matched mask has more weight where there are few.

Letters: N decoder layers, B batch, Q queries, P matched pairs, H = W side of the target masks.
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

_EPS = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCounts:
    """The divisors of the losses: counts over all ranks and micro-batches of a step."""

    boxes: Tensor
    """Target boxes; scalar."""
    matched: Tensor
    """Pairs of a query and a target in one decoder layer; scalar."""
    existing: Tensor
    """Expressions with a target; scalar."""
    matched_masks: Tensor
    """Matched pairs whose target has a mask; scalar. Where an expression has more targets than there are queries, and
    only some have masks, the most that there may be."""
    unmatched_masks: Tensor
    """Queries that are in no pair, of expressions whose targets all have masks; scalar."""
    global_masks: Tensor
    """Expressions whose targets all have masks; scalar."""
    expressions: int
    parts: int
    """Parts whose gradients are averaged: world size × micro-batches, all of one size."""


def count_targets(targets: Targets, num_queries: int) -> Tensor:
    """The first six fields of `StepCounts` (6,), float, on the device of the targets."""
    counts = [len(boxes) for boxes in targets.boxes]
    masked = targets.known.counts if targets.known else counts
    matched = [min(count, num_queries) for count in counts]
    complete = [count == known for count, known in zip(counts, masked, strict=True)]
    totals = [
        sum(counts),
        sum(matched),
        sum(count > 0 for count in counts),
        sum(min(known, num_queries) for known in masked),
        sum(num_queries - pairs for pairs, each in zip(matched, complete, strict=True) if each),
        sum(complete),
    ]
    # Filled on the device: a copy from the CPU would wait for it.
    return torch.stack([torch.full((), float(total), device=targets.exists.device) for total in totals])


def count_step(
    targets: Targets,
    num_queries: int,
    *,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
    world_size: int = 1,
    micro_batches: int = 1,
) -> StepCounts:
    """The counts of a step.

    Args:
        targets: of all micro-batches of this rank.
        num_queries: queries of an image.
        all_reduce: sums a tensor over all ranks.
        world_size: number of ranks, all with the same number of expressions.
        micro_batches: of each rank.
    """
    counts = count_targets(targets, num_queries)
    boxes, matched, existing, *masks = (counts if all_reduce is None else all_reduce(counts)).unbind()
    return StepCounts(
        boxes=boxes,
        matched=matched,
        existing=existing,
        matched_masks=masks[0],
        unmatched_masks=masks[1],
        global_masks=masks[2],
        expressions=len(targets.boxes) * world_size,
        parts=world_size * micro_batches,
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
        targets: of the same expressions; mask logits are upsampled to the size of their masks.
        matching: weights of the matching costs.
        settings: weights of the terms.
        counts: of the whole step; None: `targets` are the whole step.

    Returns:
        Scalars without their weights: `classes`, `boxes`, `giou` of the last decoder layer and `classes_layer1` … of
        earlier ones; `instance_dice`, `instance_bce` (matched masks), `negative_…` (unmatched masks), `global_…`,
        `attention_…`; `existence`; and `total`, which is not a number if the matching costs are not finite.

    Raises:
        NonFiniteError: target boxes are not finite.
    """
    class_logits = torch.stack((*output.aux_class_logits, output.class_logits)).float()
    boxes = torch.stack((*output.aux_boxes, output.boxes)).float()
    num_queries = boxes.shape[2]
    counts = counts or count_step(targets, num_queries)
    matches = hungarian_match(class_logits, boxes, output.points, targets.boxes, matching)
    unmatched = counts.expressions * num_queries - counts.matched
    detection = {
        "classes": loss_labels(
            class_logits, matches, settings.no_object, (counts.matched + settings.no_object * unmatched) / counts.parts
        ),
        **loss_boxes(boxes, torch.cat(targets.boxes), matches, counts.boxes.clamp(min=1) / counts.parts),
    }
    terms = {name: layers[-1] for name, layers in detection.items()}
    for name, layers in detection.items():
        terms |= {f"{name}_layer{layer}": value for layer, value in enumerate(layers[:-1].unbind(), start=1)}
    num_masks = (counts.matched_masks.clamp(min=1) / counts.parts, counts.unmatched_masks.clamp(min=1) / counts.parts)
    terms |= loss_instance_masks(output.instance_mask_logits, targets, matches, num_masks)
    terms |= loss_global_masks(output, targets, counts.expressions / counts.global_masks.clamp(min=1))
    target_weight, no_target_weight = settings.existence_balance
    weights = target_weight * counts.existing + no_target_weight * (counts.expressions - counts.existing)
    terms["existence"] = loss_existence(
        output.existence_logits, targets.exists, settings.existence_balance, weights / counts.parts
    )
    terms["total"] = weighted_sum(terms, settings)
    if not matches.finite:
        terms["total"] = terms["total"] * torch.nan
    return terms


def weighted_sum(terms: dict[str, Tensor], settings: LossSettings) -> Tensor:
    """The weighted sum of the terms of `compute_losses` (paper, equation 6).

    NOTE: the published training looks the weights of earlier layers up under names that do not exist, so that they
    have weight 1; igvg gives them the last layer's weights unless `auxiliary_boxes` is "published".
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


def loss_labels(class_logits: Tensor, matches: Matches, no_object: float, total: Tensor) -> Tensor:
    """Weighted mean cross-entropy (N,) of logits (N, B, Q, 2): class 0 where a target is matched, else class 1.

    `no_object` is the weight of class 1; `total`, the divisor, is the sum of the weights over the step.
    """
    logits = class_logits.flatten(1, 2)
    labels = torch.ones(logits.shape[:2], dtype=torch.int64, device=logits.device).scatter(1, matches.queries, 0)
    weights = torch.ones_like(labels, dtype=logits.dtype).masked_fill(labels == 1, no_object)
    entropy = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return (weights * entropy).sum(dim=1) / total.clamp(min=_EPS)


def loss_boxes(boxes: Tensor, target_boxes: Tensor, matches: Matches, num_boxes: Tensor) -> dict[str, Tensor]:
    """L1 distance and 1 - generalized IoU of matched boxes, summed over pairs, ÷ `num_boxes`; each (N,).

    Args:
        boxes: (N, B, Q, 4) cxcywh in [0, 1].
        target_boxes: all targets of the batch (ΣT, 4) cxcywh in [0, 1].
        matches: the matched pairs.
        num_boxes: the divisor.
    """
    predicted = boxes.flatten(1, 2).gather(1, matches.queries[..., None].expand(-1, -1, 4))
    target = target_boxes.float()[matches.targets]
    distance = (predicted - target).abs().sum(dim=(1, 2))
    giou = generalized_box_iou(box_cxcywh_to_xyxy(predicted), box_cxcywh_to_xyxy(target))
    return {"boxes": distance / num_boxes, "giou": (1 - giou).sum(dim=1) / num_boxes}


def loss_instance_masks(
    logits: Tensor, targets: Targets, matches: Matches, num_masks: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Mask terms of matched queries, and of unmatched queries with an empty target mask.

    Args:
        logits: (B, Q, h', w').
        targets: their instance masks are used.
        matches: the pairs of the last layer are used.
        num_masks: the divisors of the sums over matched and over unmatched queries.

    Targets of which only the box is known add nothing, nor do unmatched queries of their expressions.
    """
    size = targets.global_masks.shape[-2:]
    per_query = logits.flatten(0, 1)
    matched = upsample_logits(per_query[matches.queries[-1]], size)
    unmatched = upsample_logits(per_query[matches.unmatched[-1]], size)
    target = torch.cat(targets.instance_masks)[matches.targets[-1]].to(matched.dtype)
    no_target = unmatched.new_zeros(()).expand_as(unmatched)
    weights: tuple[Tensor | None, Tensor | None] = (None, None)
    if targets.known:
        expressions = matches.unmatched[-1] // logits.shape[1]
        weights = torch.cat(targets.known.instances)[matches.targets[-1]], targets.known.global_masks[expressions]
    return {
        **_name_terms("instance", *loss_masks(matched, target, num_masks[0], weights[0])),
        **_name_terms("negative", *loss_masks(unmatched, no_target, num_masks[1], weights[1])),
    }


def loss_global_masks(output: IGVGOutput, targets: Targets, scale: Tensor) -> dict[str, Tensor]:
    """Mask terms of the global mask, and of the attention map with the same target at the size of the patch grid.

    Expressions with a target of which only the box is known add nothing; `scale` is the number of expressions of the
    step ÷ that of the others.

    NOTE: the attention map holds probabilities. As in the published code they are used as logits, so the cross-entropy
    stays near ln 2 and the gradient mostly increases contrast.
    """
    target = targets.global_masks.float()
    logits = upsample_logits(output.global_mask_logits[:, 0], target.shape[-2:])
    attention = output.attention_map.float()
    patch_target = F.interpolate(target[:, None], size=attention.shape[-2:], mode="nearest")[:, 0]
    weights = (targets.known.global_masks if targets.known else torch.ones_like(target[:, 0, 0])) * scale
    return {
        **_name_terms("global", *loss_masks(logits, target, len(target), weights)),
        **_name_terms("attention", *loss_masks(attention, patch_target, len(target), weights)),
    }


def loss_existence(logits: Tensor, exists: Tensor, balance: tuple[float, float], total: Tensor) -> Tensor:
    """Weighted mean cross-entropy of logits (B, 2): class 0 where a target exists (B,), else class 1.

    `balance` holds the weights of the two classes; `total`, the divisor, is the sum of the weights over the step.
    """
    entropy = F.cross_entropy(logits.float(), (~exists).long(), reduction="none")
    weights = torch.where(exists, balance[0], balance[1])
    return (weights * entropy).sum() / total.clamp(min=_EPS)


def loss_masks(
    logits: Tensor, target: Tensor, num_masks: Tensor | int, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Dice loss and binary cross-entropy of logits (P, H, W) and targets (P, H, W) in {0, 1}, summed, ÷ `num_masks`.

    `weights` (P,) are those of the masks in the sums; None: 1.
    """
    probabilities = logits.sigmoid()
    intersection = (probabilities * target).sum(dim=(1, 2))
    areas = probabilities.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    dice = 1 - (2 * intersection + 1) / (areas + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2))
    if weights is not None:
        dice, entropy = dice * weights, entropy * weights
    return dice.sum() / num_masks, entropy.sum() / num_masks


def upsample_logits(logits: Tensor, size: torch.Size) -> Tensor:
    """Mask logits (P, h', w') as float32 (P, H, W), bilinear with aligned corners."""
    logits = logits.float()
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def _name_terms(name: str, dice: Tensor, entropy: Tensor) -> dict[str, Tensor]:
    return {f"{name}_dice": dice, f"{name}_bce": entropy}
