"""Entries that share an id: identical repetitions are harmless, entries that differ are all refused.

Ids begin anew where files were joined, and nothing says which of two entries another file means. Taking the last one,
as the published loaders do, gives the wrong object or image without a word.
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
        self._places: dict[int, str] = {}
        self._differing: dict[int, list[str]] = {}

    def add(self, number: int, entry: Entry, place: str) -> None:
        """Take an entry under its id; `place` says where in the file it stands, e.g. "entry 3"."""
        if number not in self.entries:
            self.entries[number], self._places[number] = entry, place
        elif number in self._differing:
            self._differing[number].append(place)
        elif not _is_same(self.entries[number], entry):
            self._differing[number] = [self._places[number], place]

    def drop_differing(self, collector: ErrorCollector, file: Path | None, kind: str) -> frozenset[int]:
        """Take out the entries whose id others have that differ, and report each; returns these ids.

        Args:
            collector: collects the entries.
            file: where they stand.
            kind: what they are, e.g. "annotation".
        """
        for number, places in self._differing.items():
            del self.entries[number]
            for place in places:
                others = [other for other in places if other != place] or places[1:]
                shown = join_first(others, _SHOWN)
                what = f"has the same id as {shown}, and they differ; give every {kind} an id of its own"
                collector.add(DataError(what, file=file, record=f"{kind} {number} ({place})"), REPEATED)
        return frozenset(self._differing)


def _is_same(entry: object, other: object) -> bool:
    try:
        return entry == other
    except RecursionError:
        # Values nested so deep are no geometry, and are refused later for themselves.
        return False
