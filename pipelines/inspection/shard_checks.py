"""Checks of prepared splits: the index, the shards it names and, in full, every record and mask in them."""

from __future__ import annotations

import json
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.inspection.findings import Inventory
from shards.errors import DataError
from shards.files import digest_file, name_file, read_range
from shards.index import INDEX, Row, ShardContents, ShardEntry, list_splits, parse_record, read_index
from shards.indexing import index_shard
from shards.masks import validate_rle


def check_splits(folder: Path, inventory: Inventory, counts: dict[str, Any] | None = None) -> None:
    """Check every split of a prepared folder.

    Args:
        folder: the prepared folder.
        inventory: takes the findings.
        counts: counts by split from the folder's record; None: there is no record.
    """
    splits = set(list_splits(folder))
    for split in sorted(splits | set(counts or ())):
        if split not in splits:
            inventory.add(folder / split / INDEX, "is missing")
            continue
        with inventory.collect(folder / split / INDEX):
            check_split(folder, split, inventory, None if counts is None else counts.get(split))


def is_written_by_igvg(folder: Path) -> bool:
    """Whether an index of the folder says that igvg's own writer made its shards."""
    for split in list_splits(folder):
        try:
            if any(entry.source for entry in read_index(folder, split).shards):
                return True
        except DataError:
            continue
    return False


def check_split(folder: Path, split: str, inventory: Inventory, counted: dict[str, Any] | None = None) -> None:
    """Check one split of a prepared folder; `counted` are its counts in the folder's record.

    Raises:
        DataError: the index is damaged.
    """
    index = read_index(folder, split)
    home = folder / split
    if counted is not None:
        for name, found in (("pictures", len(index)), ("expressions", index.num_expressions)):
            if counted.get(name) != found:
                what = f"holds {found} {'images' if name == 'pictures' else name}, the record says {counted.get(name)}"
                inventory.add(home / INDEX, what)
    for extra in sorted(set(home.glob("*.tar")) - {home / entry.name for entry in index.shards}):
        inventory.add(extra, f"is not among the shards of {INDEX}")
    rows = iter(index.rows())
    for entry in index.shards:
        inventory.advance()
        contents = ShardContents(entry, list(islice(rows, entry.records)))
        file = home / entry.name
        if not file.is_file():
            inventory.add(file, "is missing")
            continue
        if (size := file.stat().st_size) != entry.bytes:
            inventory.add(file, f"has {size} bytes instead of {entry.bytes}")
        if inventory.full:
            with inventory.collect(file):
                _check_shard(file, contents, inventory)


def _check_shard(file: Path, expected: ShardContents, inventory: Inventory) -> None:
    """Compare a shard with what the index says of it, and name the records that differ."""
    before = len(inventory.findings)
    _check_members(file, expected, inventory)
    found: dict[str, Row] | None = None
    with inventory.collect(file):
        found = {row.key: row for row in index_shard(file).rows}
    known = {row.key for row in expected.rows}
    for key in found or ():
        if key not in known:
            inventory.add(file, f"is not in {INDEX}", f"key {key}")
    for key in known - found.keys() if found is not None else ():
        inventory.add(file, "is missing", f"key {key}")
    inventory.records += len(expected.rows)
    if len(inventory.findings) == before and not _has_digest(file, expected.entry):
        inventory.add(file, "differs from its SHA-256, outside of its records")


def _has_digest(file: Path, entry: ShardEntry) -> bool:
    return digest_file(file) == entry.sha256


def _check_members(file: Path, expected: ShardContents, inventory: Inventory) -> None:
    """Check the bytes of every member, and every record and mask."""
    with file.open("rb") as stream, name_file(file):
        for row in expected.rows:
            image = read_range(stream.fileno(), row.image_offset, row.image_size)
            data = read_range(stream.fileno(), row.json_offset, row.json_size)
            for content, expected_size, crc32, extension in (
                (image, row.image_size, row.image_crc32, row.extension),
                (data, row.json_size, row.json_crc32, "json"),
            ):
                if zlib.crc32(content) != crc32:
                    cut = len(content) < expected_size
                    state = f"breaks off after {len(content)} of {expected_size} bytes" if cut else "is damaged"
                    inventory.add(file, f"member {row.key}.{extension} {state}", f"key {row.key}")
            if zlib.crc32(data) == row.json_crc32:
                with inventory.collect(file, f"key {row.key}"):
                    _check_record(data, file, row)


def _check_record(data: bytes, file: Path, row: Row) -> None:
    record = parse_record(data, file, row.key)
    where = f"key {row.key}"
    for name, found, expected in (
        ("image_id", record.image_id, row.image_id),
        ("expressions", len(record.expressions), row.expressions),
    ):
        if found != expected:
            raise DataError(f"{name} is {found}, the index says {expected}", file=file, record=where)
    for instance in record.instances:
        if instance.mask is None:
            continue
        try:
            validate_rle(instance.mask["counts"], record.height, record.width)
        except ValueError as error:
            what = f"the mask of annotation {instance.ann_id} has {error}"
            raise DataError(what, file=file, record=where) from error
    ids = [expression.id for expression in record.expressions]
    if len(set(ids)) < len(ids):
        raise DataError(f"expression {json.dumps(max(ids, key=ids.count))} occurs twice", file=file, record=where)
