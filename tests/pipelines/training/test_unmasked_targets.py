"""Targets of which only the box is known: boxes train, masks do not, and everything else is as without them."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.config.settings import LossSettings, MatchingSettings
from pipelines.data.batch import Batch, Example, KnownMasks, Targets, collate
from pipelines.training.losses import compute_losses, count_step
from tests.pipelines.training.test_losses import QUERIES, list_leaves, make_output, make_targets, select_images

MASK_TERMS = ("instance_dice", "instance_bce", "negative_dice", "negative_bce", "global_dice", "global_bce",
              "attention_dice", "attention_bce")  # fmt: skip


def hide_masks(targets: Targets, hidden: dict[int, list[int]]) -> Targets:
    """The targets without the masks of some targets, by expression."""
    known = [torch.ones(len(boxes)) for boxes in targets.boxes]
    masks = [each.clone() for each in targets.instance_masks]
    for row, indices in hidden.items():
        known[row][indices] = 0
        masks[row][indices] = False
    complete = torch.tensor([float(row not in hidden) for row in range(len(known))])
    return dataclasses.replace(
        targets,
        instance_masks=masks,
        global_masks=torch.stack([each.any(dim=0) for each in masks]),
        known=KnownMasks(known, complete, [int(row.sum()) for row in known]),
    )


def measure(output: Any, targets: Targets, counts: Any = None) -> dict[str, Tensor]:
    return compute_losses(output, targets, MatchingSettings(), LossSettings(), counts)


def make_example(count: int, unmasked: tuple[int, ...], seed: int) -> Example:
    source = np.random.default_rng(seed)
    return Example(
        id=f"mine/{seed}/0", image=np.zeros((8, 8, 3), dtype=np.uint8), input_ids=[0, 5, 2], original_size=(8, 8),
        boxes=source.random((count, 4), dtype=np.float32), masks=source.random((count, 6, 6)) > 0.5, unmasked=unmasked,
    )  # fmt: skip


def test_known_masks_of_all_targets_give_the_same_losses_to_the_bit() -> None:
    output, targets = make_output(3), make_targets([2, 0, QUERIES + 1])
    first, second = measure(output, targets), measure(output, hide_masks(targets, {}))
    assert {name: value.item() for name, value in first.items()} == {n: v.item() for n, v in second.items()}


def test_mask_terms_are_those_of_the_other_expressions_alone() -> None:
    output, targets = make_output(3), make_targets([2, 1, 0])
    found = measure(output, hide_masks(targets, {0: [0, 1]}))
    others = measure(select_images(output, slice(1, 3)), targets.select(slice(1, 3)))
    everything = measure(output, targets)
    for name in found:
        if name in MASK_TERMS:
            assert found[name].item() == pytest.approx(others[name].item(), rel=1e-5), name
        elif name != "total":
            assert found[name].item() == everything[name].item(), name


def test_a_known_mask_beside_an_unknown_one_still_trains_its_query() -> None:
    output, targets = make_output(1), make_targets([2])
    found = measure(output, hide_masks(targets, {0: [1]}))
    assert found["instance_dice"].item() > 0
    assert all(found[name].item() == 0 for name in MASK_TERMS if not name.startswith("instance"))


def test_the_graph_stays_connected_where_no_mask_is_known() -> None:
    output, targets = make_output(2), hide_masks(make_targets([2, 1]), {0: [0, 1], 1: [0]})
    terms = measure(output, targets)
    assert all(terms[name].item() == 0 for name in MASK_TERMS)
    terms["total"].backward()
    for name, leaf in list_leaves(output).items():
        assert leaf.grad is not None, name
        assert torch.isfinite(leaf.grad).all(), name
    assert not output.instance_mask_logits.grad.any()
    assert output.boxes.grad.any()


@pytest.mark.parametrize("hidden", [{0: [0]}, {0: [0, 1, 2], 3: [0]}, {3: [0]}])
def test_terms_of_two_parts_of_a_step_average_to_those_of_the_whole(hidden: dict[int, list[int]]) -> None:
    output, targets = make_output(4), hide_masks(make_targets([3, 0, 0, 1]), hidden)
    whole, step = measure(output, targets), dataclasses.replace(count_step(targets, QUERIES), parts=2)
    parts = [measure(select_images(output, part), targets.select(part), step) for part in (slice(0, 2), slice(2, 4))]
    for name, value in whole.items():
        assert sum(part[name].item() for part in parts) / 2 == pytest.approx(value.item(), rel=1e-5, abs=1e-7), name


def test_a_batch_says_which_masks_are_known_and_keeps_it_through_workers_devices_and_parts() -> None:
    batch = collate([make_example(2, (1,), 0), make_example(0, (), 1), make_example(1, (), 2)], pad_id=1)
    for each in (batch, pickle.loads(pickle.dumps(batch)), batch.to("cpu")):
        assert isinstance(each, Batch)
        assert each.targets is not None
        assert each.targets.known is not None
        assert [row.tolist() for row in each.targets.known.instances] == [[1, 0], [], [1]]
        assert each.targets.known.global_masks.tolist() == [0, 1, 1]
        assert each.targets.known.counts == [1, 0, 1]
    last = batch.split(3)[2].targets
    assert last is not None
    assert last.known is not None
    assert (last.known.counts, last.known.global_masks.tolist()) == ([1], [1])


def test_a_batch_of_masks_alone_says_nothing_about_them() -> None:
    targets = collate([make_example(2, (), 0)], pad_id=1).targets
    assert targets is not None
    assert targets.known is None
