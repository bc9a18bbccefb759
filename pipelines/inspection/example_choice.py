"""Which examples a contact sheet shows: the same for the same data, with as many of each kind of target as there are.

Kinds are those of `shard_descriptions.TARGET_KINDS`: expressions without a target, with one, with several.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Protocol

from pipelines.inspection.shard_descriptions import TARGET_KINDS, target_kind
from shards.files import name_file, read_range
from shards.index import ShardContents, parse_record
from shards.indexing import index_shard
from shards.record import Expression, ImageRecord

# Records that are read at most; the golden ratio spreads them evenly over all of a set.
_MOST_READ = 4000
_GOLDEN = 0.6180339887498949


class Records(Protocol):
    """Records and images in the order of the shards."""

    def __len__(self) -> int: ...

    def record(self, index: int) -> ImageRecord:
        """The record of an index."""

    def image(self, index: int) -> bytes:
        """The image file's bytes of a record."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One example to show."""

    records: Records
    index: int
    record: ImageRecord
    expression: Expression

    @property
    def kind(self) -> str:
        """How many targets the expression has."""
        return target_kind(self.expression)


class ShardRecords:
    """The records of a single tar.

    Raises:
        DataError: it is no shard.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.contents: ShardContents = index_shard(file)

    def __len__(self) -> int:
        return len(self.contents.rows)

    def record(self, index: int) -> ImageRecord:
        """The record of an index from 0 to len - 1."""
        row = self.contents.rows[index]
        return parse_record(self._read(row.json_offset, row.json_size), self.file, row.key)

    def image(self, index: int) -> bytes:
        """The image file's bytes of a record."""
        row = self.contents.rows[index]
        return self._read(row.image_offset, row.image_size)

    def _read(self, offset: int, size: int) -> bytes:
        with self.file.open("rb") as stream, name_file(self.file):
            return read_range(stream.fileno(), offset, size)


def choose_examples(sources: Sequence[Records], count: int, ids: Collection[str] | None = None) -> list[Choice]:
    """Choose `count` examples, or as many as there are; by kind, those without a target first.

    Args:
        sources: the records to choose from, e.g. a reader for each split.
        count: how many; each kind has a third of them if it has so many.
        ids: only these expressions; None: all.
    """
    quota = -(-count // len(TARGET_KINDS))
    chosen: dict[str, list[Choice]] = {kind: [] for kind in TARGET_KINDS}
    spare: list[Choice] = []
    for records, index in _spread(sources):
        if all(len(choices) >= quota for choices in chosen.values()):
            break
        record = records.record(index)
        known = [one for one in record.expressions if ids is None or one.id in ids]
        # One expression an image first: a sheet shows many images.
        known.sort(key=lambda one: len(chosen[target_kind(one)]))
        for position, expression in enumerate(known):
            choice = Choice(records=records, index=index, record=record, expression=expression)
            if position == 0 and len(chosen[choice.kind]) < quota:
                chosen[choice.kind].append(choice)
            elif len(spare) < _MOST_READ:
                spare.append(choice)
    return _fill(chosen, spare, count)


def _spread(sources: Sequence[Records]) -> Iterator[tuple[Records, int]]:
    """Records of all sources in turn, each source's in an order in which any beginning is spread over all of it."""
    orders = [
        sorted(range(len(records)), key=lambda index: (index + 1) * _GOLDEN % 1)[:_MOST_READ] for records in sources
    ]
    turns = zip_longest(
        *([(records, index) for index in order] for records, order in zip(sources, orders, strict=True))
    )
    return (pair for pair in chain.from_iterable(turns) if pair is not None)


def _fill(chosen: dict[str, list[Choice]], spare: list[Choice], count: int) -> list[Choice]:
    """Fill what a kind lacks from the other expressions, its own kind first, and keep `count` of all."""
    quota = -(-count // len(TARGET_KINDS))
    rest = []
    for choice in spare:
        if len(chosen[choice.kind]) < quota:
            chosen[choice.kind].append(choice)
        else:
            rest.append(choice)
    # In turn, so that the kinds differ by one at most where there are enough.
    in_turn = [one for one in chain.from_iterable(zip_longest(*chosen.values())) if one is not None]
    kept = (in_turn + rest)[:count]
    return sorted(kept, key=lambda choice: TARGET_KINDS.index(choice.kind))
