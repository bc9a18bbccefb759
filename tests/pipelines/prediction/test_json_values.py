"""JSON of other programs is read strictly, and its values are shown shortly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.prediction.json_values import (
    describe_json_error,
    expect,
    is_number,
    reject_constant,
    reject_duplicate_keys,
    shorten,
)


@pytest.mark.parametrize(("value", "kind"), [("a", str), (7, int), ([1], list), (True, bool)])
def test_a_value_of_the_expected_kind_is_returned(value: Any, kind: type) -> None:
    assert expect(value, kind, "name", "that") is value


@pytest.mark.parametrize(
    ("value", "kind", "shown"), [(True, int, "true"), (7.0, int, "7.0"), (None, str, "null"), ({}, list, "{}")]
)
def test_a_value_of_another_kind_is_refused_as_json_shows_it(value: Any, kind: type, shown: str) -> None:
    with pytest.raises(ValueError, match=f"size is {shown}, not two numbers"):
        expect(value, kind, "size", "two numbers")


@pytest.mark.parametrize(
    ("value", "number"), [(1, True), (-0.5, True), (True, False), ("1", False), (float("nan"), False)]
)
def test_only_finite_numbers_are_numbers(value: object, number: bool) -> None:
    assert is_number(value) is number


def test_a_long_value_is_cut() -> None:
    assert shorten("x" * 58) == f'"{"x" * 58}"'
    assert shorten("x" * 59) == f'"{"x" * 56}…'


def test_a_key_that_occurs_twice_is_named() -> None:
    assert json.loads('{"a": 1, "b": 2}', object_pairs_hook=reject_duplicate_keys) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match='has "b" more than once'):
        json.loads('{"a": 1, "b": 2, "b": 2}', object_pairs_hook=reject_duplicate_keys)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_know_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a number that JSON knows"):
        json.loads(f'{{"a": {name}}}', parse_constant=reject_constant)


def test_an_error_of_the_syntax_is_told_as_such() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert describe_json_error(caught.value).startswith("not JSON (Expecting property name")
    assert describe_json_error(ValueError("a is null")) == "a is null"
