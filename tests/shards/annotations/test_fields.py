"""Single values of published records are taken in every form in which files hold them, and in no other."""

from __future__ import annotations

from typing import Any

import pytest

from shards.annotations.fields import decode_bytes, read_flag, read_integer, read_text
from shards.errors import DataError


@pytest.mark.parametrize(("value", "integer"), [(7, 7), (7.0, 7), (-1, -1), (2**63 - 1, 2**63 - 1)])
def test_whole_numbers_are_integers(value: Any, integer: int) -> None:
    found = read_integer({"id": value}, "id")
    assert (found, type(found)) == (integer, int)


@pytest.mark.parametrize("value", [7.5, True, "7", None, 2**63, float("nan")])
def test_nothing_else_is_an_integer(value: Any) -> None:
    with pytest.raises(DataError, match=r"id is .*, not a whole number"):
        read_integer({"id": value}, "id")


@pytest.mark.parametrize(("value", "text"), [("café", "café"), ("café".encode(), "café"), (b"caf\xe9", "café")])
def test_texts_are_strings_or_bytes_of_either_encoding(value: Any, text: str) -> None:
    assert read_text({"sent": value}, "sent") == text


@pytest.mark.parametrize("value", [7, None, ["a"], "\ud800"])
def test_nothing_else_is_a_text(value: Any) -> None:
    with pytest.raises(DataError, match="sent is "):
        read_text({"sent": value}, "sent")


def test_bytes_are_utf_8_where_they_can_be() -> None:
    assert (decode_bytes("é".encode()), decode_bytes(b"\xe9")) == ("é", "é")


@pytest.mark.parametrize(
    ("record", "flag"), [({"x": 1}, True), ({"x": 0}, False), ({"x": True}, True), ({"x": None}, True), ({}, True)]
)
def test_flags_are_numbers_booleans_or_the_default(record: dict[str, Any], flag: bool) -> None:
    assert read_flag(record, "x", default=True) is flag


def test_another_flag_is_refused() -> None:
    with pytest.raises(DataError, match="x is 2, neither true nor false"):
        read_flag({"x": 2}, "x", default=True)


@pytest.mark.parametrize(("record", "words"), [({}, "has no id"), ([1], "a list where a record should be")])
def test_a_missing_value_is_named(record: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_integer(record, "id")
