"""Entries of one id: repetitions count once, and those that differ are all left out."""

from __future__ import annotations

from pathlib import Path

from shards.annotations.duplicates import REPEATED, UniqueEntries
from shards.annotations.error_collector import ErrorCollector


def test_equal_entries_count_once_in_the_order_of_first_appearance() -> None:
    unique: UniqueEntries[str] = UniqueEntries()
    for index, (id_, entry) in enumerate([(7, "a"), (3, "b"), (7, "a")]):
        unique.add(id_, entry, f"entry {index}")
    assert list(unique.entries.items()) == [(7, "a"), (3, "b")]
    assert unique.drop_differing(ErrorCollector(), Path("refs.p"), "ref") == frozenset()


def test_every_one_of_differing_entries_is_reported_and_none_is_kept() -> None:
    unique: UniqueEntries[str] = UniqueEntries()
    for index, (id_, entry) in enumerate([(7, "a"), (3, "b"), (7, "c"), (7, "a")]):
        unique.add(id_, entry, f"entry {index}")
    collector = ErrorCollector()
    assert unique.drop_differing(collector, Path("refs.p"), "ref") == {7}
    assert unique.entries == {3: "b"}
    assert [error.record for _, error in collector] == ["ref 7 (entry 0)", "ref 7 (entry 2)", "ref 7 (entry 3)"]
    assert collector.count_kinds() == {REPEATED: 3}
