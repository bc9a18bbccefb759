"""Own images: an example for every image and text."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.datasets import ImageFolderDataset
from pipelines.data.image_queries import check_images, query_images
from pipelines.data.processor import Processor
from pipelines.data.tokenizer import train_tokenizer
from shards.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> ImageFolderDataset:
    """Two images of 6 × 4 and 3 × 9 pixels and two texts."""
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "a.png")
    Image.new("L", (3, 9), 128).save(tmp_path / "b.png")
    processor = Processor(image_size=8, tokenizer=train_tokenizer(["the red car"] * 3, 40), max_tokens=5)
    return ImageFolderDataset(check_images(query_images([tmp_path], ["red", "the car"])), processor)


def test_ids_are_the_file_name_and_the_index_of_the_text(data: ImageFolderDataset) -> None:
    assert [data[index].id for index in range(len(data))] == ["a.png/0", "a.png/1", "b.png/0", "b.png/1"]


def test_an_image_is_resized_and_its_own_size_kept(data: ImageFolderDataset) -> None:
    example = data[2]
    assert example.image.shape[:2] == (8, 8)
    assert example.original_size == (9, 3)


def test_examples_do_not_depend_on_the_order_in_which_they_are_read(data: ImageFolderDataset) -> None:
    forward = [data[index].image.tobytes() for index in range(4)]
    backward = [data[index].image.tobytes() for index in reversed(range(4))]
    assert forward == backward[::-1]


def test_gray_images_become_rgb(data: ImageFolderDataset) -> None:
    assert (data[3].image == 128).all()
    assert data[3].image.shape == data[0].image.shape


def test_a_file_that_is_no_image_is_named(tmp_path: Path, data: ImageFolderDataset) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        data[0]
