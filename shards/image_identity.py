"""Which records of several prepared sets show the same image.

Two records show the same image if its files have the same bytes (the same size and CRC-32, which the indexes hold), or
if both are images of COCO with the same id there. Ids are COCO's in a split whose first image has the name that COCO
gives to its id, whatever set it says it is: `igvg convert --to grefcoco` writes any images in a published layout. Where
the first image has a name of COCO and another id, as in JSON lines, the names of all images tell their ids. Indexes and
the first record of a split are read, and only in the latter case all records.
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

from shards.index import ShardIndex, read_index
from shards.progress import report_progress
from shards.reader import ShardReader
from shards.remote_folders import find_remote

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
    coco_ids: NDArray[np.int64] | None
    """(N,) ids in COCO, below 0 for an image whose name is none of COCO's; None: no image is known to be COCO's."""

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
        coco_ids = _find_coco_ids(folder, split, index)
        images.append(
            SplitImages(
                folder=folder, split=split, folder_name=names[folder], index=index,
                from_coco=coco_ids is index.image_ids, coco_ids=coco_ids,
            )
        )  # fmt: skip
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
    # Ids of other images than COCO's mean nothing elsewhere: each of them has a number of its own, below 0.
    ids = []
    for images, first in zip(splits, bounds, strict=False):
        own = -1 - np.arange(first, first + len(images.index))
        ids.append(own if images.coco_ids is None else np.where(images.coco_ids < 0, own, images.coco_ids))
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
    return _read_coco_id(file_name) == image_id


def _read_coco_id(file_name: str) -> int:
    """The id in the name of an image file of COCO; -1 for other names."""
    match = _COCO_NAME.search(file_name)
    return int(match[1]) if match else -1


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


def _find_coco_ids(folder: Path, split: str, index: ShardIndex) -> NDArray[np.int64] | None:
    """The images' ids in COCO, by the name of the first one; those of the index themselves if these are COCO's."""
    if not len(index):
        return None
    with ShardReader(folder, split) as reader:
        first = reader.record(0)
        if is_coco_name(first.file_name, first.image_id):
            return index.image_ids
        # To read all records of a remote split would fetch it whole.
        if _read_coco_id(first.file_name) < 0 or find_remote(folder):
            return None
        return np.array([_read_coco_id(record.file_name) for record in reader.records()], dtype=np.int64)
