"""Long lists of JSON are read one entry at a time, and an error names the entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.prediction.json_list import read_entries
from shards.errors import DataError


def write(folder: Path, text: str) -> Path:
    file = folder / "results.json"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[]", []),
        (" [ ]\n", []),
        ("[1]", [1]),
        ('[{"a": [1, 2]},\n {"b": "],["}, null]', [{"a": [1, 2]}, {"b": "],["}, None]),
    ],
)
def test_entries_come_one_by_one_counted_from_one(tmp_path: Path, text: str, entries: list[object]) -> None:
    assert list(read_entries(write(tmp_path, text))) == list(enumerate(entries, start=1))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1}', "is no list"),
        ("[1, 2", "entry 2.*is the last before the file breaks off"),
        ("[1 2]", "entry 1.*is followed by"),
        ("[1, NaN]", "entry 2"),
        ('[1, {"a": 1, "a": 2}]', 'entry 2.*has "a" more than once'),
        ("[1] 2", "is followed by more after the end of the list"),
    ],
)
def test_an_error_names_the_entry(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        list(read_entries(write(tmp_path, text)))
