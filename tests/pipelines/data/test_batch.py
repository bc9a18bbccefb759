"""Examples become padded, stacked batches that keep what belongs together."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from pipelines.data.batch import Batch, Example, collate

PAD = 1


def make_example(number: int, targets: int, tokens: int = 4, side: int = 8) -> Example:
    rng = np.random.default_rng(number)
    return Example(
        id=f"shapes/{number}/0",
        image=rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
        input_ids=[0, *range(5, 3 + tokens), 2],
        original_size=(20 + number, 30),
        boxes=rng.uniform(0.2, 0.4, (targets, 4)).astype(np.float32),
        masks=rng.random((targets, side, side)) > 0.7,
    )


@pytest.fixture
def batch() -> Batch:
    return collate(
        [make_example(0, 2, tokens=3), make_example(1, 0, tokens=6), make_example(2, 1), make_example(3, 3)], PAD
    )


def test_expressions_are_padded_to_the_longest_and_the_mask_marks_their_tokens(batch: Batch) -> None:
    assert batch.input_ids.tolist()[:2] == [[0, 5, 2, PAD, PAD, PAD], [0, 5, 6, 7, 8, 2]]
    assert batch.attention_mask.sum(dim=1).tolist() == [3, 6, 4, 4]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64


def test_images_stay_8_bit_until_they_reach_the_device(batch: Batch) -> None:
    assert batch.pixel_values.dtype == torch.uint8
    assert batch.pixel_values.shape == (4, 16, 16, 3)
    assert np.array_equal(batch.pixel_values[2].numpy(), make_example(2, 1).image)


def test_an_expression_without_a_target_has_empty_tensors_of_the_usual_shape(batch: Batch) -> None:
    targets = batch.targets
    assert targets is not None
    assert targets.boxes[1].shape == (0, 4)
    assert targets.instance_masks[1].shape == (0, 8, 8)
    assert not targets.global_masks[1].any()
    assert targets.exists.tolist() == [True, False, True, True]


def test_the_global_mask_is_the_union_of_the_instance_masks(batch: Batch) -> None:
    targets = batch.targets
    assert targets is not None
    for masks, whole in zip(targets.instance_masks, targets.global_masks, strict=True):
        assert torch.equal(masks.any(dim=0), whole)


def test_examples_without_target_masks_make_a_batch_without_targets() -> None:
    batch = collate([make_example(0, 0, side=0), make_example(1, 2, side=0)], PAD)
    assert batch.targets is None
    assert batch.to("cpu").targets is None
    assert [part.targets for part in batch.split(2)] == [None, None]


def test_a_batch_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no examples"):
        collate([], PAD)


def test_parts_put_together_are_the_batch(batch: Batch) -> None:
    parts = batch.split(2)
    assert [part.ids for part in parts] == [["shapes/0/0", "shapes/1/0"], ["shapes/2/0", "shapes/3/0"]]
    for name in ("pixel_values", "input_ids", "attention_mask", "original_sizes"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert batch.targets is not None
    assert [len(boxes) for part in parts if part.targets for boxes in part.targets.boxes] == [2, 0, 1, 3]
    assert torch.equal(
        torch.cat([part.targets.global_masks for part in parts if part.targets]), batch.targets.global_masks
    )


@pytest.mark.parametrize("parts", [0, 3, 5])
def test_a_batch_is_split_only_into_equal_parts(batch: Batch, parts: int) -> None:
    with pytest.raises(ValueError, match=rf"4 expressions cannot be split into {parts} equal parts"):
        batch.split(parts)


def test_moving_a_batch_keeps_its_content_and_its_ids(batch: Batch) -> None:
    moved = batch.to("meta")
    assert moved.pixel_values.device.type == moved.input_ids.device.type == "meta"
    assert moved.targets is not None
    assert {
        tensor.device.type for tensor in (*moved.targets.boxes, *moved.targets.instance_masks, moved.targets.exists)
    } == {"meta"}
    assert moved.ids == batch.ids
    assert moved.original_sizes.tolist() == [[20, 30], [21, 30], [22, 30], [23, 30]]
    assert len(moved) == 4


def test_a_batch_survives_pickling_and_its_targets_share_one_piece_of_memory(batch: Batch) -> None:
    again = pickle.loads(pickle.dumps(batch))
    assert batch.targets is not None
    assert again.targets is not None
    for name in ("boxes", "instance_masks"):
        found, sent = getattr(again.targets, name), getattr(batch.targets, name)
        assert [tensor.tolist() for tensor in found] == [tensor.tolist() for tensor in sent]
        assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == 1
    assert again.targets.global_masks.tolist() == batch.targets.global_masks.tolist()
    assert again.targets.exists.tolist() == batch.targets.exists.tolist()
    assert (again.ids, again.input_ids.tolist()) == (batch.ids, batch.input_ids.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a GPU")
def test_a_batch_can_be_pinned(batch: Batch) -> None:
    assert batch.pin_memory().pixel_values.is_pinned()
