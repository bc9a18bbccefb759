"""Records show the same image if its files have the same bytes, or the same id in COCO."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.errors import DataError
from shards.image_identity import SplitImages, held_out_splits, is_coco_name, label_images, read_images
from shards.index import read_index, write_index
from tests.support.overlapping_sets import write_images


def list_labels(images: list[SplitImages], *, full: bool = False) -> list[int]:
    return np.concatenate(label_images(images, full=full).by_id_or_bytes).tolist()


def group(labels: list[int]) -> list[list[int]]:
    """The rows of each label, in order."""
    return [[row for row, each in enumerate(labels) if each == label] for label in dict.fromkeys(labels)]


def test_images_of_coco_are_the_same_by_id_whatever_their_bytes(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", "train", {9: 10, 25: 20})
    two = write_images(tmp_path / "two", "val", {25: 99, 30: 30})
    images = read_images([(one, "train"), (two, "val")])
    assert [each.from_coco for each in images] == [True, True]
    assert group(list_labels(images)) == [[0], [1, 2], [3]]
    assert len(set(np.concatenate(label_images(images).by_bytes).tolist())) == 4


def test_ids_of_own_images_mean_nothing_elsewhere_and_their_bytes_do(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", "train", {1: 10, 2: 20}, coco=False)
    two = write_images(tmp_path / "two", "val", {1: 20, 2: 30}, coco=False)
    images = read_images([(one, "train"), (two, "val")])
    assert [each.from_coco for each in images] == [False, False]
    assert group(list_labels(images)) == [[0], [1, 2], [3]]


def test_what_is_the_same_by_bytes_and_by_id_is_one_image(tmp_path: Path) -> None:
    """Row 0 has the bytes of row 1, row 1 the id of row 2."""
    one = write_images(tmp_path / "one", "train", {9: 10})
    two = write_images(tmp_path / "two", "train", {25: 10})
    three = write_images(tmp_path / "three", "train", {25: 77, 9000: 78})
    images = read_images([(one, "train"), (two, "train"), (three, "train")])
    assert group(list_labels(images)) == [[0, 1, 2], [3]]


def test_own_images_in_a_published_layout_are_not_those_of_coco(tmp_path: Path) -> None:
    """`igvg convert --to grefcoco` and `igvg prepare grefcoco` make such a folder of any images."""
    folder = write_images(tmp_path / "one", "train", {1: 10}, coco=False)
    (folder / "artifact.json").write_text(json.dumps({"options": {"dataset": "grefcoco"}}))
    published = write_images(tmp_path / "two", "val", {1: 99})
    images = read_images([(folder, "train"), (published, "val")])
    assert [each.from_coco for each in images] == [False, True]
    assert group(list_labels(images)) == [[0], [1]]


def test_names_of_coco_tell_ids_where_images_are_counted(tmp_path: Path) -> None:
    """As in JSON lines about images of COCO that were compressed again."""
    names = ["train2017/000000000025.jpg", "own.jpg", "COCO_val2014_000000000009.jpg"]
    one = write_images(tmp_path / "one", "train", {1: 10, 2: 20, 3: 30}, names=names)
    two = write_images(tmp_path / "two", "val", {2: 97, 9: 98, 25: 99})
    images = read_images([(one, "train"), (two, "val")])
    assert [each.from_coco for each in images] == [False, True]
    assert group(list_labels(images)) == [[0, 5], [1], [2, 4], [3]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COCO_train2014_000000000009.jpg", True), ("COCO_val2014_000000000009.jpg", True), ("000000000009.jpg", True),
        ("train2017/000000000009.jpg", True), ("9.jpg", False), ("000000000010.jpg", False),
        ("000000000009.png", False),
    ],
)  # fmt: skip
def test_names_of_coco_are_those_of_its_releases(name: str, expected: bool) -> None:
    assert is_coco_name(name, 9) is expected


def test_full_compares_the_bytes_of_files_that_have_one_size_and_crc32(tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", "train", {1: 10, 2: 20, 3: 30}, coco=False)
    two = write_images(tmp_path / "two", "val", {1: 20}, coco=False)
    assert group(list_labels(read_images([(one, "train"), (two, "val")]), full=True)) == [[0], [1, 3], [2]]
    images = read_images([(one, "train"), (two, "val")])
    # As if another file had the same size and CRC-32; only these are read.
    index = images[0].index
    crc32s = np.array([*index.images.crc32s[:2], index.images.crc32s[0]])
    forged = replace(images[0], index=replace(index, images=replace(index.images, crc32s=crc32s)))
    assert group(list_labels([forged, images[1]])) == [[0, 2], [1, 3]]


def test_no_splits_and_empty_splits_have_no_images(tmp_path: Path) -> None:
    assert label_images([]).by_bytes == ()
    folder = write_images(tmp_path / "one", "train", {})
    assert [label.tolist() for label in label_images(read_images([(folder, "train")])).by_id_or_bytes] == [[]]


def test_folders_are_named_apart(tmp_path: Path) -> None:
    folders = [write_images(tmp_path / home / "shards", "val", {1: 1}) for home in ("a", "b")]
    other = write_images(tmp_path / "other", "val", {1: 1})
    images = read_images([(folder, "val") for folder in (*folders, other)])
    assert [each.name for each in images] == [f"{folders[0]}/val", f"{folders[1]}/val", "other/val"]


def test_held_out_splits_are_those_that_are_not_trained_on() -> None:
    found = ["test", "testA", "train", "train2", "val"]
    assert held_out_splits(found, ("train",)) == ["test", "testA", "val"]
    assert held_out_splits(found, ("train", "val")) == ["test", "testA"]


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "one", "train", {1: 10}, coco=False)
    index = read_index(folder, "train")
    documents = replace(index.documents, crc32s=index.documents.crc32s + 1)
    write_index(folder, replace(index, documents=documents))
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        read_images([(folder, "train")])
