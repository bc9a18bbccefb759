"""The objective: the published numbers term by term, and what must hold for any batch."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.config.settings import LossSettings, MatchingSettings
from pipelines.data.batch import Targets
from pipelines.model.box_ops import box_xyxy_to_cxcywh
from pipelines.model.igvg import IGVGOutput
from pipelines.training.losses import (
    StepCounts,
    compute_losses,
    count_step,
    loss_existence,
    loss_instance_masks,
    loss_labels,
    loss_masks,
    upsample_logits,
)
from pipelines.training.matcher import Matches, hungarian_match
from tests.support.paths import GOLDENS

needs_goldens = pytest.mark.skipif(not GOLDENS.is_dir(), reason="the reference numbers are not beside the repository")
QUERIES, SIDE = 4, 12


def make_output(images: int, seed: int = 0) -> IGVGOutput:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    def draw_boxes() -> Tensor:
        return (0.2 + 0.3 * torch.rand(images, QUERIES, 4, generator=generator)).requires_grad_()

    return IGVGOutput(
        class_logits=draw(images, QUERIES, 2),
        boxes=draw_boxes(),
        points=torch.rand(images, QUERIES, 2, generator=generator),
        instance_mask_logits=draw(images, QUERIES, SIDE // 2, SIDE // 2),
        global_mask_logits=draw(images, 1, SIDE // 2, SIDE // 2),
        existence_logits=draw(images, 2),
        attention_map=draw(images, 3, 3),
        aux_class_logits=[draw(images, QUERIES, 2), draw(images, QUERIES, 2)],
        aux_boxes=[draw_boxes(), draw_boxes()],
    )


def list_leaves(output: IGVGOutput) -> dict[str, Tensor]:
    leaves = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    for name in ("aux_class_logits", "aux_boxes"):
        leaves |= {f"{name}.{layer}": value for layer, value in enumerate(leaves.pop(name))}
    return {name: value for name, value in leaves.items() if name != "points"}


def make_targets(counts: list[int], side: int = SIDE, seed: int = 0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(count, side, side, generator=generator) > 0.6 for count in counts]
    return Targets(
        [0.2 + 0.3 * torch.rand(count, 4, generator=generator) for count in counts],
        masks,
        torch.stack([mask.any(dim=0) for mask in masks]),
        torch.tensor([count > 0 for count in counts]),
    )


def measure(
    output: IGVGOutput, targets: Targets, counts: StepCounts | None = None, **settings: Any
) -> dict[str, Tensor]:
    return compute_losses(output, targets, MatchingSettings(), LossSettings(**settings), counts)


def select_images(output: IGVGOutput, part: slice) -> IGVGOutput:
    values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    return IGVGOutput(
        **{n: [layer[part] for layer in v] if isinstance(v, list) else v[part] for n, v in values.items()}
    )


# --- the published numbers ---------------------------------------------------------------------------------------


def read_golden() -> tuple[IGVGOutput, Targets, dict[str, Any]]:
    arrays = {name: torch.from_numpy(v) for name, v in np.load(GOLDENS / "forward_sharp_l2.npz").items()}
    inputs = np.load(GOLDENS / "training_inputs.npz")
    logits, boxes = arrays["class_logits"], arrays["boxes_cxcywh"]
    output = IGVGOutput(
        class_logits=logits[-1],
        boxes=boxes[-1],
        points=arrays["aqsm_points_xy"].float(),
        instance_mask_logits=arrays["inst_mask_logits_low"],
        global_mask_logits=arrays["global_mask_logits_low"],
        existence_logits=arrays["nt_logits"],
        attention_map=arrays["aqsm_global_attn_map"],
        aux_class_logits=list(logits[:-1]),
        aux_boxes=list(boxes[:-1]),
    )
    masks = torch.from_numpy(inputs["masks"]).bool()
    targets = Targets(
        [box_xyxy_to_cxcywh(torch.from_numpy(inputs["boxes_xyxy"]).float() / 320), torch.zeros(0, 4)],
        [masks, masks[:0]],
        torch.stack([masks.any(dim=0), torch.zeros(320, 320, dtype=torch.bool)]),
        torch.tensor([True, False]),
    )
    return output, targets, json.loads((GOLDENS / "training.json").read_text())["sharp_eval_l2select"]


@needs_goldens
def test_every_term_of_the_published_training_step_is_reproduced() -> None:
    output, targets, golden = read_golden()
    terms = {n: v.item() for n, v in measure(output, targets, auxiliary_boxes="published").items()}
    expected = {"existence": golden["nt_ce_raw"][0], "total": golden["total"]}
    for ours, theirs in (
        ("instance", "part_pos"),
        ("negative", "part_neg"),
        ("global", "global"),
        ("attention", "attn_map"),
    ):
        expected |= {f"{ours}_{kind}": golden["seg_terms_raw"][theirs][kind] for kind in ("dice", "bce")}
    for suffix, theirs in (("", ""), ("_layer1", "_0"), ("_layer2", "_1")):
        for ours, name, weight in (("classes", "class", 1), ("boxes", "bbox", 5), ("giou", "giou", 2)):
            weighted = golden["det_terms_after_weighting"][f"loss_{name}{theirs}"]
            expected[ours + suffix] = weighted if suffix else weighted / weight
    assert terms == pytest.approx(expected, rel=1e-6)


@needs_goldens
def test_earlier_layers_count_five_and_two_fold_in_the_papers_objective() -> None:
    output, targets, golden = read_golden()
    totals = {kind: measure(output, targets, auxiliary_boxes=kind)["total"].item() for kind in ("paper", "published")}
    theirs = golden["det_terms_after_weighting"]
    difference = sum(4 * theirs[f"loss_bbox_{layer}"] + theirs[f"loss_giou_{layer}"] for layer in (0, 1))
    assert totals["paper"] - totals["published"] == pytest.approx(0.1 * difference, rel=1e-5)


@needs_goldens
@pytest.mark.parametrize("run", ["sharp_eval_l2select", "sharp_bntrain_mean"])
def test_the_published_matches_are_reproduced_in_every_layer(run: str) -> None:
    inputs = np.load(GOLDENS / "training_inputs.npz")
    logits, boxes, points = (torch.from_numpy(inputs[f"{run}__{n}"]) for n in ("class_logits", "boxes", "points"))
    targets = [box_xyxy_to_cxcywh(torch.from_numpy(inputs["boxes_xyxy"]).float() / 320), torch.zeros(0, 4)]
    matches = hungarian_match(logits, boxes, points, targets, MatchingSettings())
    golden = json.loads((GOLDENS / "training.json").read_text())[run]["hungarian_indices_per_layer_then_batch"]
    for layer, (first, second) in enumerate(golden):
        assert [matches.queries[layer].tolist(), matches.targets[layer].tolist()] == first
        assert second == [[], []]


# --- by hand -----------------------------------------------------------------------------------------------------


def test_dice_and_cross_entropy_of_two_pixels() -> None:
    logits, target = torch.tensor([[[math.log(3.0), 0.0]]]), torch.tensor([[[1.0, 0.0]]])
    dice, entropy = loss_masks(logits, target, 1)
    assert dice.item() == pytest.approx(1 - (2 * 0.75 + 1) / (0.75 + 0.5 + 1 + 1))
    assert entropy.item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)


def test_mask_terms_of_no_masks_are_zero() -> None:
    logits = torch.zeros(0, 5, 5, requires_grad=True)
    dice, entropy = loss_masks(logits, torch.zeros(0, 5, 5), 1)
    assert (dice.item(), entropy.item()) == (0.0, 0.0)
    (dice + entropy).backward()
    assert logits.grad is not None


def test_the_class_term_is_torchs_weighted_cross_entropy() -> None:
    logits = torch.randn(2, 3, QUERIES, 2, generator=torch.Generator().manual_seed(1))
    matches = Matches(torch.tensor([[1, 7], [0, 11]]), torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 10))
    for layer, loss in enumerate(loss_labels(logits, matches, 0.1, torch.tensor(2 + 0.1 * (3 * QUERIES - 2)))):
        labels = torch.ones(3 * QUERIES, dtype=torch.int64)
        labels[matches.queries[layer]] = 0
        expected = F.cross_entropy(logits[layer].flatten(0, 1), labels, weight=torch.tensor([1.0, 0.1]))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_existence_term_is_torchs_weighted_cross_entropy() -> None:
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(2))
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 1, 0]), weight=torch.tensor([0.9, 1.1]))
    loss = loss_existence(logits, torch.tensor([True, False, False, True]), (0.9, 1.1), torch.tensor(4.0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_without_weights_the_class_and_existence_terms_are_zero_and_not_nan() -> None:
    unmatched = Matches(torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1, 4))
    assert loss_labels(torch.randn(1, 1, QUERIES, 2), unmatched, 0.0, torch.tensor(0.0)).item() == 0.0
    assert loss_existence(torch.randn(1, 2), torch.tensor([True]), (0.0, 1.0), torch.tensor(0.0)).item() == 0.0


def test_the_total_is_the_weighted_sum_of_the_named_terms() -> None:
    terms = {name: value.item() for name, value in measure(make_output(3), make_targets([2, 0, 1])).items()}
    detection = sum(
        terms[f"classes{layer}"] + 5 * terms[f"boxes{layer}"] + 2 * terms[f"giou{layer}"]
        for layer in ("", "_layer1", "_layer2")
    )
    masks = {
        name: terms[f"{name}_dice"] + terms[f"{name}_bce"] for name in ("instance", "negative", "global", "attention")
    }
    weighted = masks["instance"] + 0.2 * masks["negative"] + masks["global"] + 0.1 * masks["attention"]
    assert terms["total"] == pytest.approx(0.1 * detection + weighted + 0.2 * terms["existence"], rel=1e-6)
    assert len(terms) == 9 + 8 + 2


def test_earlier_layers_count_by_one_in_the_published_objective() -> None:
    output, targets = make_output(3), make_targets([2, 0, 1])
    terms = {name: value.item() for name, value in measure(output, targets, auxiliary_boxes="published").items()}
    paper = measure(output, targets)["total"].item()
    # Boxes count 5 and 2 in the paper's: 4 and 1 too many.
    less = sum(4 * terms[f"boxes_layer{layer}"] + terms[f"giou_layer{layer}"] for layer in (1, 2))
    assert terms["total"] == pytest.approx(paper - 0.1 * less, rel=1e-5)
    assert less > 1


def test_the_instance_masks_are_those_of_the_last_layers_pairs_and_all_others_should_be_empty() -> None:
    generator = torch.Generator().manual_seed(3)
    logits, targets = torch.randn(2, 2, SIDE, SIDE, generator=generator), make_targets([1, 1])
    matches = Matches(
        queries=torch.tensor([[0, 2], [1, 2]]),
        targets=torch.tensor([[0, 1], [0, 1]]),
        unmatched=torch.tensor([[1, 3], [0, 3]]),
    )
    terms = loss_instance_masks(logits, targets, matches, (torch.tensor(2), torch.tensor(2)))
    flat, target = logits.flatten(0, 1), torch.cat(targets.instance_masks).float()
    entropy = F.binary_cross_entropy_with_logits
    assert terms["instance_bce"].item() == pytest.approx(entropy(flat[[1, 2]], target).item(), rel=1e-5)
    assert terms["negative_bce"].item() == pytest.approx(
        entropy(flat[[0, 3]], torch.zeros(2, SIDE, SIDE)).item(), rel=1e-5
    )


def test_mask_logits_are_enlarged_between_aligned_corners() -> None:
    enlarged = upsample_logits(torch.tensor([[[0.0, 3.0]]]), torch.Size((1, 4)))
    torch.testing.assert_close(enlarged, torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]))


def test_the_attention_map_is_compared_with_the_first_pixel_of_each_cell() -> None:
    output, targets = make_output(1), make_targets([1])
    cells = targets.global_masks[:, ::4, ::4].float()
    expected = F.binary_cross_entropy_with_logits(output.attention_map, cells)
    assert measure(output, targets)["attention_bce"].item() == pytest.approx(expected.item(), rel=1e-6)


# --- for any batch -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [[0, 0, 0], [0], [2, 0, 1], [6, 1]])
def test_every_head_gets_a_finite_gradient_whatever_the_batch_holds(counts: list[int]) -> None:
    output = make_output(len(counts))
    terms = measure(output, make_targets(counts))
    terms["total"].backward()
    assert all(torch.isfinite(value) for value in terms.values())
    for name, leaf in list_leaves(output).items():
        assert leaf.grad is not None, name
        assert torch.isfinite(leaf.grad).all(), name


def test_in_a_batch_of_empty_targets_the_terms_of_pairs_are_zero_and_the_others_are_not() -> None:
    terms = measure(make_output(2), make_targets([0, 0]))
    assert all(terms[n].item() == 0 for n in ("boxes", "giou", "boxes_layer1", "instance_dice", "instance_bce"))
    assert all(terms[n].item() > 0 for n in ("classes", "negative_bce", "global_bce", "attention_dice", "existence"))


def test_permuted_targets_give_the_same_losses() -> None:
    targets = make_targets([3, 0, 2])
    orders = [[2, 0, 1], [], [1, 0]]
    permuted = Targets(
        [boxes[order] for boxes, order in zip(targets.boxes, orders, strict=True)],
        [masks[order] for masks, order in zip(targets.instance_masks, orders, strict=True)],
        targets.global_masks,
        targets.exists,
    )
    first, second = measure(make_output(3), targets), measure(make_output(3), permuted)
    assert {n: v.item() for n, v in first.items()} == pytest.approx({n: v.item() for n, v in second.items()}, rel=1e-6)


@pytest.mark.parametrize("counts", [[3, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [QUERIES + 2, 1, 0, 0]])
def test_terms_of_two_parts_of_a_step_average_to_those_of_the_whole(counts: list[int]) -> None:
    output, targets = make_output(4), make_targets(counts)
    whole, step = measure(output, targets), dataclasses.replace(count_step(targets, QUERIES), parts=2)
    parts = [
        measure(select_images(output, part), targets.select(part), counts=step) for part in (slice(0, 2), slice(2, 4))
    ]
    for name, value in whole.items():
        assert sum(part[name].item() for part in parts) / 2 == pytest.approx(value.item(), rel=1e-5), name


def test_losses_do_not_depend_on_the_order_of_the_images() -> None:
    output, targets = make_output(3), make_targets([2, 0, 1])
    turned = select_images(output, [2, 0, 1])  # type: ignore[arg-type]
    reordered = Targets(
        [targets.boxes[i] for i in (2, 0, 1)],
        [targets.instance_masks[i] for i in (2, 0, 1)],
        targets.global_masks[[2, 0, 1]],
        targets.exists[[2, 0, 1]],
    )
    first, second = measure(output, targets), measure(turned, reordered)
    assert {n: v.item() for n, v in first.items()} == pytest.approx({n: v.item() for n, v in second.items()}, rel=1e-5)


def test_targets_at_the_decoders_resolution_are_compared_without_upsampling() -> None:
    output, targets = make_output(2), make_targets([1, 0], side=SIDE // 2)
    expected = F.binary_cross_entropy_with_logits(output.global_mask_logits[:, 0], targets.global_masks.float())
    assert measure(output, targets)["global_bce"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_half_precision_outputs_are_measured_in_single_precision() -> None:
    output, targets = make_output(2), make_targets([2, 0])
    values = {field.name: getattr(output, field.name) for field in dataclasses.fields(output)}
    halves = IGVGOutput(
        **{n: [t.bfloat16() for t in v] if isinstance(v, list) else v.bfloat16() for n, v in values.items()}
    )
    terms = measure(halves, targets)
    assert {value.dtype for value in terms.values()} == {torch.float32}
    assert terms["total"].item() == pytest.approx(measure(output, targets)["total"].item(), rel=2e-2)


def test_of_outputs_that_are_not_finite_the_total_is_no_number_and_has_a_gradient_for_every_head() -> None:
    output = make_output(1)
    with torch.no_grad():
        output.points[0, 0] = torch.inf
    terms = measure(output, make_targets([1]))
    assert terms["boxes"].isfinite()
    assert terms["total"].isnan()
    assert terms["total"].requires_grad
