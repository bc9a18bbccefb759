"""Texts that several errors share."""

from __future__ import annotations

import pytest

from shards.errors import ArtifactError, DataError, first_line, join_first, near_match_hint, to_line


def test_a_misspelled_name_is_answered_with_the_nearest_known_one() -> None:
    assert near_match_hint("epoch", ["epochs", "seed"]) == "did you mean epochs?"


def test_a_name_far_from_all_others_is_answered_with_all_of_them() -> None:
    assert near_match_hint("xyz", iter(["epochs", "seed"])) == "there are epochs, seed"


def test_names_that_are_given_as_near_go_first() -> None:
    assert near_match_hint("epoch", ["epochs", "seed"], ["a.epoch", "b.epoch"]) == "did you mean a.epoch or b.epoch?"


@pytest.mark.parametrize(("count", "text"), [(0, ""), (1, "0"), (3, "0; 1; 2"), (5, "0; 1; 2 and 2 more")])
def test_of_many_items_the_first_are_listed_and_the_others_counted(count: int, text: str) -> None:
    assert join_first([str(number) for number in range(count)], 3, "; ") == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("café 7", "café 7"), ("a\nb\x1b[2J", "a\\nb\\x1b[2J"), ("\udcff\u202e", "\\xff\\u202e"),
        ("x" * 201, "x" * 200 + "…"),
        ("\n" * 200, "\\n" * 100 + "…"),
    ],
)  # fmt: skip
def test_a_text_from_a_file_becomes_a_part_of_one_line(text: str, line: str) -> None:
    assert to_line(text) == line


def test_an_error_that_quotes_a_file_is_one_line() -> None:
    error = DataError("has the key \x1b[2J", file="a\nb.tar", record="key \udcff")
    assert str(error) == "a\\nb.tar, key \\xff: has the key \\x1b[2J"
    assert str(ArtifactError("no\nfolder, café")) == "no\\nfolder, café"


def test_the_first_line_of_an_error_is_its_message_or_its_kind() -> None:
    assert first_line(ValueError("the server is gone\nwith details")) == "the server is gone"
    assert first_line(ValueError()) == "ValueError"
