"""Examples from shards: what an example holds, and in an order that does not depend on the workers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from shards.errors import DataError
from shards.index import write_index
from shards.indexing import index_split
from shards.sampling import sample_batch
from tests.support.drawn_shards import BOXES, HEIGHT, WIDTH, write_shards

SIDE = 16


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def data(shards: Path) -> GroundingDataset:
    """12 expressions, four about each of three pictures."""
    return open_data(shards)


def open_data(shards: Path, mask_size: int = SIDE) -> GroundingDataset:
    tokenizer = train_tokenizer(read_texts([(shards, "val")]), 64)
    return GroundingDataset(
        [(shards, "val")], Processor(tokenizer=tokenizer, max_tokens=8, image_size=SIDE), mask_size=mask_size
    )


def test_boxes_are_centers_and_sizes_as_fractions_of_the_image(data: GroundingDataset) -> None:
    x0, y0, x1, y1 = BOXES[1]
    expected = [(x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT]
    np.testing.assert_allclose(data[2].boxes, [expected], rtol=1e-6)


def test_an_empty_target_is_an_example_without_boxes_and_masks(data: GroundingDataset) -> None:
    assert data[0].boxes.shape == (0, 4)
    assert data[0].masks.shape == (0, SIDE, SIDE)


def test_masks_are_resized_to_the_network_s_image(data: GroundingDataset) -> None:
    rows, columns = np.arange(SIDE) * HEIGHT // SIDE, np.arange(SIDE) * WIDTH // SIDE
    x0, y0, x1, y1 = BOXES[0]
    inside = ((rows >= y0) & (rows < y1))[:, None] & ((columns >= x0) & (columns < x1))
    np.testing.assert_array_equal(data[1].masks, inside[None])


@pytest.mark.parametrize("size", [5, 7, 32])
def test_masks_are_resized_to_the_decoder_s_pixels(shards: Path, size: int) -> None:
    """Pixel i is pixel i × 15 / (size - 1) of the network's 16, and that a pixel of the 8 × 12 image."""
    pixels = [round(pixel * (SIDE - 1) / (size - 1)) for pixel in range(size)]
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x0, y0, x1, y1 = BOXES[1]
    mask[y0:y1, x0:x1] = True
    expected = [[mask[down * HEIGHT // SIDE, across * WIDTH // SIDE] for across in pixels] for down in pixels]
    found = open_data(shards, mask_size=size)[2].masks
    assert found.tolist() == [expected]
    assert not np.array_equal(found[0], found[0].T)


def test_several_sets_give_each_expression_the_image_and_targets_of_its_own_set(tmp_path: Path) -> None:
    first = write_shards(tmp_path / "first", images=2, green=10)
    second = write_shards(tmp_path / "second", "ref-zom", images=3, references=((1,), ()), green=20)
    third = write_shards(tmp_path / "third", "rrefcoco", images=1, green=30)
    parts = [(first, "val"), (second, "val"), (third, "val")]
    processor = Processor(tokenizer=train_tokenizer(read_texts(parts), 64), max_tokens=8, image_size=SIDE)
    data = GroundingDataset(parts, processor, mask_size=SIDE)
    assert len(data) == 8 + 6 + 4
    # Index of the expression → id, color, targets; neighbours are of different sets at the same position.
    expected = {
        1: ("grefcoco/1/1", (1, 10), 1), 8: ("ref-zom/1/0", (1, 20), 1), 14: ("rrefcoco/1/0", (1, 30), 0),
        0: ("grefcoco/1/0", (1, 10), 0), 9: ("ref-zom/1/1", (1, 20), 0), 17: ("rrefcoco/1/3", (1, 30), 2),
        7: ("grefcoco/2/3", (2, 10), 2), 10: ("ref-zom/2/0", (2, 20), 1), 4: ("grefcoco/2/0", (2, 10), 0),
        13: ("ref-zom/3/1", (3, 20), 0),
    }  # fmt: skip
    for index, (id_, color, targets) in expected.items():
        example = data[index]
        assert (example.id, tuple(example.image[0, 0, :2].tolist()), len(example.boxes)) == (id_, color, targets)
        record, expression = data.find_expression(index)
        assert (expression.id, record.image_id) == (id_, color[0])


def test_without_a_mask_size_no_mask_is_made(shards: Path) -> None:
    assert open_data(shards, mask_size=0)[3].masks.shape == (0, 0, 0)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_order_does_not_depend_on_the_number_of_workers(data: GroundingDataset, workers: int) -> None:
    shares = [sample_batch(len(data), seed=5, start=start, batch_size=4) for start in (0, 4, 8)]
    batches = list(load_batches(data, shares, workers=workers))
    assert [batch.ids for batch in batches] == [[data[int(index)].id for index in share] for share in shares]


def test_ranks_together_take_every_example_of_an_epoch_once(data: GroundingDataset) -> None:
    taken = [
        name
        for start in (0, 6)
        for rank in range(3)
        for batch in load_batches(
            data,
            [sample_batch(len(data), seed=5, start=start, batch_size=6, rank=rank, world_size=3)],
            workers=0,
        )
        for name in batch.ids
    ]
    assert sorted(taken) == sorted(data[index].id for index in range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_also_from_a_worker(tmp_path: Path, workers: int) -> None:
    shards = write_shards(tmp_path)
    data = open_data(shards)
    (tar,) = (shards / "val").glob("*.tar")
    tar.write_bytes(tar.read_bytes().replace(b"IHDR", b"IHDX"))
    with pytest.raises(DataError) as caught:
        list(load_batches(data, [np.arange(12)], workers=workers))
    assert "1.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_examples_read_together_are_those_read_one_by_one(data: GroundingDataset) -> None:
    indices = [7, 0, 3, 3, 11, 2]
    for index, example in zip(indices, data.read(indices), strict=True):
        alone = data[index]
        assert (example.id, example.input_ids, example.original_size) == (
            alone.id, alone.input_ids, alone.original_size,
        )  # fmt: skip
        for name in ("image", "boxes", "masks"):
            np.testing.assert_array_equal(getattr(example, name), getattr(alone, name))


def test_run_lengths_that_are_no_mask_are_one_line_that_names_shard_and_record(tmp_path: Path) -> None:
    shards = write_shards(tmp_path)
    (tar,) = (shards / "val").glob("*.tar")
    content = tar.read_bytes()
    counts = re.findall(rb'"counts": ?"([^"]+)"', content)[0]
    tar.write_bytes(content.replace(b'"' + counts + b'"', b'"' + counts[:-1] + b'!"'))
    write_index(shards, index_split(shards, "val"))
    with pytest.raises(DataError, match=r"run lengths.*") as caught:
        open_data(shards)[1]
    assert str(tar) in str(caught.value)
    assert "key 000000000001" in str(caught.value)
