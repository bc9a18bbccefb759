"""Bad records are collected, counted, shown in part and saved in full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shards.annotations.error_collector import ErrorCollector
from shards.errors import DataError


def _collect(count: int) -> ErrorCollector:
    collector = ErrorCollector()
    for number in range(count):
        error = DataError(f"no annotation {number}", file=Path("refs.p"), record=f"ref {number}", remedy="pray")
        collector.add(error, "unknown annotation" if number else "unknown picture")
    return collector


def test_nothing_wrong_passes() -> None:
    ErrorCollector().raise_if_any()


def test_one_bad_record_is_told_as_it_is_with_both_ways_out() -> None:
    with pytest.raises(DataError) as caught:
        _collect(1).raise_if_any()
    assert str(caught.value) == "refs.p, ref 0: no annotation 0; correct the files or pass --skip-invalid"


def test_of_many_bad_records_the_first_ten_are_shown_and_where_all_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        _collect(12).raise_if_any()
    message = str(caught.value)
    assert message.startswith("12 records cannot be used: refs.p, ref 0: no annotation 0; refs.p, ref 1: ")
    remedy = "correct the files or pass --skip-invalid, which lists all of them in skipped.json in --out"
    assert message.endswith(f"ref 9: no annotation 9 and 2 more; {remedy}")
    assert "\n" not in message


def test_ten_bad_records_are_all_shown() -> None:
    with pytest.raises(DataError, match=r"ref 9: no annotation 9; correct the files or pass --skip-invalid$"):
        _collect(10).raise_if_any()


def test_kinds_are_counted_the_most_frequent_first() -> None:
    assert list(_collect(4).count_kinds().items()) == [("unknown annotation", 3), ("unknown picture", 1)]


def test_the_saved_list_is_complete(tmp_path: Path) -> None:
    _collect(12).save(tmp_path / "skipped.json")
    document = json.loads((tmp_path / "skipped.json").read_text())
    assert document["count"] == len(document["records"]) == 12
    assert document["records"][11] == {
        "kind": "unknown annotation", "file": "refs.p", "record": "ref 11", "what": "no annotation 11"
    }  # fmt: skip
