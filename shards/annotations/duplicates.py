"""Entries that share an id: identical repetitions are harmless, entries that differ are all refused.

Joined files may use an id twice, and nothing tells which of the entries another file refers to. The published loaders
take the last one, which may be the wrong object or image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic, TypeVar

from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError, join_first

REPEATED = "repeated id"
"""The kind under which entries of one id that differ are counted."""
_SHOWN = 3

Entry = TypeVar("Entry")


class UniqueEntries(Generic[Entry]):
    """Entries by their ids, in the order of first appearance."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}
        self._locations: dict[int, str] = {}
        self._differing: dict[int, list[str]] = {}

    def add(self, entry_id: int, entry: Entry, location: str) -> None:
        """Add an entry under its id; `location` is its place in the file, e.g. "entry 3"."""
        if entry_id not in self.entries:
            self.entries[entry_id], self._locations[entry_id] = entry, location
        elif entry_id in self._differing:
            self._differing[entry_id].append(location)
        elif not _is_same(self.entries[entry_id], entry):
            self._differing[entry_id] = [self._locations[entry_id], location]

    def drop_differing(self, collector: ErrorCollector, file: Path | None, kind: str) -> frozenset[int]:
        """Remove all entries whose id a different entry has too, and collect an error for each; returns the ids.

        `kind` is what the entries are, e.g. "annotation".
        """
        for entry_id, locations in self._differing.items():
            del self.entries[entry_id]
            for location in locations:
                others = [other for other in locations if other != location] or locations[1:]
                shown = join_first(others, _SHOWN)
                what = f"has the same id as {shown}, and they differ; give every {kind} an id of its own"
                collector.add(DataError(what, file=file, record=f"{kind} {entry_id} ({location})"), REPEATED)
        return frozenset(self._differing)


def _is_same(entry: object, other: object) -> bool:
    try:
        return entry == other
    except RecursionError:
        # Values nested this deep are no geometry and are refused later.
        return False
