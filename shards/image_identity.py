"""Which records of several prepared sets show the same image.

Two records show the same image if its files have the same bytes (the same size and CRC-32, which the indexes hold), or
if both sets take their images from COCO and the records have the same image id. Only indexes are read, and the first
record of a set that is no published one.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shards.datasets import DatasetName
from shards.files import read_json
from shards.index import ShardIndex, read_index
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.remote_folders import find_remote

_RECORD = "artifact.json"
# In the releases of 2014 and of 2017.
_COCO_NAME = re.compile(r"(?:^|[/\\])(?:COCO_[a-z]+2014_)?(\d{12})\.jpg$")


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitImages:
    """The images of one split: N records."""

    folder: Path
    split: str
    folder_name: str
    """The folder's own name, or its path if another folder has that name."""
    index: ShardIndex
    from_coco: bool
    """Whether image ids are those of COCO."""

    @property
    def name(self) -> str:
        """The folder's name and the split."""
        return f"{self.folder_name}/{self.split}"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageLabels:
    """For each split a label of every record, (N,): equal labels stand for the same image."""

    by_id_or_bytes: tuple[NDArray[np.int64], ...]
    by_bytes: tuple[NDArray[np.int64], ...]


def read_images(parts: Sequence[tuple[Path, str]]) -> list[SplitImages]:
    """The images of splits, given by folder and name.

    Raises:
        DataError: no such folder or split, or a damaged index or first record.
    """
    names = _name_folders({folder for folder, _ in parts})
    images = []
    for folder, split in parts:
        index = read_index(folder, split)
        from_coco = _is_from_coco(folder, split, index)
        images.append(
            SplitImages(folder=folder, split=split, folder_name=names[folder], index=index, from_coco=from_coco)
        )
    return images


def held_out_splits(found: Sequence[str], training: Sequence[str]) -> list[str]:
    """The splits of a folder to be scored on: neither among the training splits, nor is `train` how they begin."""
    return [split for split in found if split not in training and not split.startswith("train")]


def label_images(splits: Sequence[SplitImages], *, full: bool = False) -> ImageLabels:
    """Labels of the records of several splits.

    Args:
        splits: the splits.
        full: also compare the SHA-256 of files that have the same size and CRC-32.

    Raises:
        DataError: a shard is damaged.
    """
    bounds = np.cumsum([0, *(len(images.index) for images in splits)])
    by_bytes = _label_bytes(splits)
    if full:
        by_bytes = _separate_digests(splits, by_bytes)
    # Ids of other sets than COCO's mean nothing elsewhere: there, each record has a number of its own, below 0.
    ids = [
        images.index.image_ids if images.from_coco else -1 - np.arange(first, first + len(images.index))
        for images, first in zip(splits, bounds, strict=False)
    ]
    _, by_id = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *ids]), return_inverse=True)
    nodes = by_bytes.max(initial=-1) + 1 + by_id.reshape(-1)
    size = int(nodes.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(nodes), dtype=np.int8), (by_bytes, nodes)), shape=(max(1, size), max(1, size)))
    _, components = connected_components(graph, directed=False)
    joined = components.astype(np.int64)[by_bytes]
    return ImageLabels(
        by_id_or_bytes=tuple(np.split(joined, bounds[1:-1]) if splits else ()),
        by_bytes=tuple(np.split(by_bytes, bounds[1:-1]) if splits else ()),
    )


def is_coco_name(file_name: str, image_id: int) -> bool:
    """Whether an image file has the name that COCO gives to the image of this id."""
    match = _COCO_NAME.search(file_name)
    return match is not None and int(match[1]) == image_id


def _label_bytes(splits: Sequence[SplitImages]) -> NDArray[np.int64]:
    members = [images.index.images for images in splits]
    empty = np.zeros(0, dtype=np.int64)
    contents = [np.concatenate([empty, *(getattr(each, name) for each in members)]) for name in ("sizes", "crc32s")]
    # Each CRC-32 has 32 bits.
    _, labels = np.unique((contents[0] << 32) | contents[1], return_inverse=True)
    return labels.reshape(-1).astype(np.int64)


def _separate_digests(splits: Sequence[SplitImages], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The labels, with other ones for files that have the same label and another SHA-256."""
    repeated = np.bincount(labels)[labels] > 1
    numbers: dict[tuple[int, bytes], int] = {}
    separated, row, done, total = labels.copy(), 0, 0, int(repeated.sum())
    for images in splits:
        with ShardReader(images.folder, images.split) as reader:
            for record in range(len(images.index)):
                if repeated[row]:
                    key = int(labels[row]), hashlib.sha256(reader.image(record)).digest()
                    separated[row] = numbers.setdefault(key, len(labels) + len(numbers))
                    done += 1
                    report_progress(done, total, "images")
                row += 1
    _, dense = np.unique(separated, return_inverse=True)
    return dense.reshape(-1).astype(np.int64)


def _name_folders(folders: Collection[Path]) -> dict[Path, str]:
    remote = {folder: found.shown for folder in folders if (found := find_remote(folder))}
    counts = Counter(folder.resolve().name for folder in folders)
    own = {folder: folder.resolve().name for folder in folders if counts[folder.resolve().name] == 1}
    return {folder: str(folder) for folder in folders} | own | remote


def _is_from_coco(folder: Path, split: str, index: ShardIndex) -> bool:
    """By the published data set that the folder was prepared from, or by the file name of the split's first record."""
    if (folder / _RECORD).is_file():
        record = read_json(folder / _RECORD, "the record of a stage in JSON", "prepare the folder again")
        options = record.get("options") if isinstance(record, dict) else None
        if isinstance(options, dict) and options.get("dataset") in set(DatasetName):
            return True
    if not len(index):
        return False
    with ShardReader(folder, split) as reader:
        first = reader.record(0)
    return is_coco_name(first.file_name, first.image_id)
