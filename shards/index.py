"""The index of a split: counts, checksums, and the offsets of every record's two members in the tars."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from shards.errors import DataError, to_line
from shards.files import digest_file, read_json, write_json
from shards.record import ImageRecord
from shards.remote_folders import find_remote

INDEX = "index.json"
_FILE_NAME = re.compile(r"[^/\x00-\x1f\x7f-\x9f]+")
IMAGE_EXTENSIONS = frozenset({"bmp", "gif", "jpeg", "jpg", "pgm", "png", "ppm", "tif", "tiff", "webp"})


def is_image_name(name: str) -> bool:
    """Whether a file is taken for an image, by its name alone: it has an image's extension and is not hidden."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() in IMAGE_EXTENSIONS and bool(stem) and not name.startswith(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEntry:
    """One tar; `source` is the digest of what our writer made it from, empty if that is unknown or was not all used."""

    name: str
    records: int
    expressions: int
    bytes: int
    sha256: str
    source: str = ""


class Row(NamedTuple):
    """One record: its counts, and both members' offset and size in bytes and CRC-32."""

    key: str
    extension: str
    image_id: int
    expressions: int
    image_offset: int
    image_size: int
    image_crc32: int
    json_offset: int
    json_size: int
    json_crc32: int


_COLUMNS = ["key", "extension", "image_id", "expressions"]
_COLUMNS += [f"{member}_{field}" for member in ("picture", "json") for field in ("offset", "size", "crc32")]
"""The fields of `Row` as index.json names them."""


@dataclass(frozen=True, slots=True)
class ShardContents:
    """One tar and its records, in the order of the tar."""

    entry: ShardEntry
    rows: list[Row]


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """Where one member of each record lies: (N,) byte offsets in its tar, byte sizes and CRC-32s."""

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    crc32s: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardIndex:
    """All records of a split in the order of the shards: N entries of each column."""

    split: str
    shards: tuple[ShardEntry, ...]
    keys: tuple[str, ...]
    extensions: tuple[str, ...]
    image_ids: NDArray[np.int64]
    expressions: NDArray[np.int64]
    """Number of expressions of each record."""
    images: Members
    documents: Members

    def __len__(self) -> int:
        """Number of records."""
        return len(self.keys)

    @property
    def num_expressions(self) -> int:
        """Expressions of the whole split."""
        return int(self.expressions.sum())

    @cached_property
    def shard_indices(self) -> NDArray[np.int64]:
        """(N,) index in `shards` of each record's tar."""
        return np.repeat(np.arange(len(self.shards), dtype=np.int64), [shard.records for shard in self.shards])

    def rows(self) -> list[Row]:
        """The records one by one."""
        columns = [self.image_ids, self.expressions]
        for members in (self.images, self.documents):
            columns += [members.offsets, members.sizes, members.crc32s]
        lists = (column.tolist() for column in columns)
        return [Row(*row) for row in zip(self.keys, self.extensions, *lists, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """The document of index.json."""
        return {
            "split": self.split,
            "records": len(self),
            "expressions": self.num_expressions,
            "shards": [asdict(shard) for shard in self.shards],
            "columns": _COLUMNS,
            "rows": [list(row) for row in self.rows()],
        }


def list_splits(folder: Path) -> list[str]:
    """Names of the splits that a prepared folder holds, sorted.

    Raises:
        DataError: no such folder, or a remote one that cannot be fetched.
    """
    if remote := find_remote(folder):
        return remote.list_splits()
    if not folder.is_dir():
        raise DataError("no such folder", file=folder, remedy="make it with igvg prepare")
    return sorted(child.name for child in folder.iterdir() if (child / INDEX).is_file())


def read_index(folder: Path, split: str) -> ShardIndex:
    """Read the index of one split of a prepared folder.

    Raises:
        DataError: no such folder, not a prepared one, no such split, or the index is damaged.
    """
    splits, remote = list_splits(folder), find_remote(folder)
    shown = remote.shown if remote else folder
    if not splits:
        raise DataError(
            f"holds no prepared split (a folder with {INDEX})",
            file=shown,
            remedy="make it with igvg prepare, or index shards of another program with shards.indexing.index_split",
        )
    if split not in splits:
        raise DataError(f"no split '{split}'", file=shown, remedy=f"it holds {', '.join(splits)}")
    file: Path | str
    file, remedy = folder / split / INDEX, "prepare the split again"
    document = read_json(remote.fetch_index(split) if remote else file, "the index of a split", remedy)
    if remote:
        file = remote.show(f"{split}/{INDEX}")
    try:
        if document["columns"] != _COLUMNS:
            raise ValueError(f"columns {document['columns']}")
        shards = [_check_entry(ShardEntry(**entry)) for entry in document["shards"]]
        if sum(shard.records for shard in shards) != len(document["rows"]):
            raise ValueError(f"the shards do not hold {len(document['rows'])} records")
        return _assemble(split, shards, document["rows"])
    except DataError as error:
        raise DataError(error.what, file=file, record=error.record, remedy=remedy) from error
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise DataError(
            f"damaged index ({type(error).__name__}: {to_line(str(error))})", file=file, remedy=remedy
        ) from error


def _check_entry(entry: ShardEntry) -> ShardEntry:
    """A shard's entry whose values have the right types.

    Raises:
        ValueError: one has not.
    """
    counts = (entry.records, entry.expressions, entry.bytes)
    valid = all(type(count) is int and count >= 0 for count in counts) and type(entry.name) is str
    if not valid or not _FILE_NAME.fullmatch(entry.name) or entry.name in (".", ".."):
        raise ValueError(f"shard {entry.name!r}")
    return entry


def write_index(folder: Path, index: ShardIndex) -> None:
    """Write FOLDER/SPLIT/index.json atomically; the same index always gives the same bytes."""
    write_json(folder / index.split / INDEX, index.to_json(), compact=True)


def join_shards(split: str, parts: Sequence[ShardContents]) -> ShardIndex:
    """Index of a split from its shards, in order.

    Raises:
        DataError: a key occurs twice.
    """
    return _assemble(split, [part.entry for part in parts], [row for part in parts for row in part.rows])


def _assemble(split: str, shards: list[ShardEntry], rows: Sequence[Sequence[Any]]) -> ShardIndex:
    keys, extensions, *values = zip(*rows, strict=True) if rows else [()] * len(Row._fields)
    columns = np.array(values, dtype=np.int64).reshape(len(Row._fields) - 2, len(rows))
    if len(set(keys)) < len(keys):
        key = Counter(keys).most_common(1)[0][0]
        raise DataError(f"occurs twice in split '{split}'", record=f"key {to_line(key)}")
    index = ShardIndex(
        split=split,
        shards=tuple(shards),
        keys=keys,
        extensions=extensions,
        image_ids=columns[0],
        expressions=columns[1],
        images=Members(*columns[2:5]),
        documents=Members(*columns[5:8]),
    )
    if not all(isinstance(name, str) for name in (*keys, *extensions)) or (columns < 0).any():
        raise ValueError("a record's key is no text, or a number below 0")
    sums = np.bincount(index.shard_indices, index.expressions, len(shards))
    if [shard.expressions for shard in shards] != sums.tolist():
        raise ValueError("the counts of shards and records differ")
    return index


def parse_record(data: bytes, shard: Path | str, key: str) -> ImageRecord:
    """The record of a KEY.json.

    Raises:
        DataError: the bytes are no record; names shard and key.
    """
    try:
        return ImageRecord.from_json(json.loads(data))
    except (DataError, ValueError, OverflowError, RecursionError) as error:
        what = error.what if isinstance(error, DataError) else f"its .json is damaged ({to_line(str(error))})"
        raise DataError(what, file=shard, record=f"key {to_line(key)}") from error


def verify_shards(folder: Path, index: ShardIndex, *, full: bool = False) -> None:
    """Check that a split's shards are the indexed ones, by their sizes or, if `full`, also by their SHA-256.

    Raises:
        DataError: a shard is missing or differs.
    """
    remedy = "prepare the split again"
    for shard in index.shards:
        file = folder / index.split / shard.name
        if not file.is_file():
            raise DataError("the shard is missing", file=file, remedy=remedy)
        if (size := file.stat().st_size) != shard.bytes:
            raise DataError(f"the shard has {size} bytes instead of {shard.bytes}", file=file, remedy=remedy)
        if full and digest_file(file) != shard.sha256:
            raise DataError("the shard differs from its SHA-256", file=file, remedy=remedy)
