"""Every expression once per epoch, whatever the processes, the workers and the shards: read from real shards."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.datasets import GroundingDataset, read_texts
from pipelines.data.loader import load_batches
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from shards.sampling import epoch_permutation, sample_batch
from shards.writer import write_split
from tests.support.drawn_shards import HEIGHT, REFERENCES, WIDTH, make_record, return_record

SEED, BATCH_SIZE, IMAGES = 11, 24, 11
# Five steps are four epochs, whose ends are inside of steps.
TOTAL, STEPS, EPOCHS = 30, 5, 4


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} shards")
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GroundingDataset:
    """The same 30 expressions in 1, 2 or 4 shards, of which the last one is shorter."""
    home = tmp_path_factory.mktemp("epochs")
    return write_data(home, records_per_shard={1: IMAGES, 2: 6, 4: 3}[request.param])


def write_data(home: Path, *, records_per_shard: int) -> GroundingDataset:
    items = []
    for image_id in range(1, IMAGES + 1):
        file = home / f"{image_id}.png"
        Image.new("RGB", (WIDTH, HEIGHT), (image_id, 0, 0)).save(file)
        # Two to four expressions, and one image without any.
        references = () if image_id == 5 else REFERENCES[: 2 + image_id % 3]
        items.append((make_record("grefcoco", image_id, file.name, references), file))
    write_split(home / "shards", "val", items, return_record, records_per_shard=records_per_shard)
    parts = [(home / "shards", "val")]
    processor = Processor(tokenizer=train_tokenizer(read_texts(parts), 64), max_tokens=8, image_size=16)
    return GroundingDataset(parts, processor, mask_size=0)


def read_rank(data: GroundingDataset, rank: int, world_size: int, *, workers: int, first: int = 0) -> list[list[str]]:
    """The ids of a rank's part of every step from `first` on."""
    steps = (
        sample_batch(
            len(data), seed=SEED, start=step * BATCH_SIZE, batch_size=BATCH_SIZE, rank=rank, world_size=world_size
        )
        for step in range(first, STEPS)
    )
    return [batch.ids for batch in load_batches(data, steps, workers=workers)]


def join_ranks(ranks: list[list[list[str]]]) -> Iterator[str]:
    """The ids in the order in which one process sees them: the ranks take turns."""
    for shares in zip(*ranks, strict=True):
        for turn in zip(*shares, strict=True):
            yield from turn


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_every_expression_comes_once_per_epoch(data: GroundingDataset, world_size: int, workers: int) -> None:
    seen = list(join_ranks([read_rank(data, rank, world_size, workers=workers) for rank in range(world_size)]))
    assert len(data) == TOTAL
    assert len(seen) == STEPS * BATCH_SIZE == EPOCHS * TOTAL
    for epoch in range(EPOCHS):
        expected = [data.find_expression(int(index))[1].id for index in epoch_permutation(TOTAL, SEED, epoch)]
        assert seen[epoch * TOTAL : (epoch + 1) * TOTAL] == expected
        assert len(set(expected)) == TOTAL


@pytest.mark.parametrize("workers", [0, 4])
@pytest.mark.parametrize("first", [1, 3])
def test_a_training_that_is_resumed_reads_what_would_have_come(
    data: GroundingDataset, first: int, workers: int
) -> None:
    whole = read_rank(data, 0, 1, workers=0)
    three = [read_rank(data, rank, 3, workers=workers, first=first) for rank in range(3)]
    assert list(join_ranks(three)) == list(chain(*whole[first:]))


def test_the_order_is_that_of_seed_and_epoch_however_many_shards_there_are(tmp_path: Path) -> None:
    orders = []
    for count in (1, 3, 11):
        home = tmp_path / str(count)
        home.mkdir()
        orders.append(read_rank(write_data(home, records_per_shard=-(-IMAGES // count)), 0, 1, workers=0))
    assert orders[0] == orders[1] == orders[2]
