"""JSON of other programs is read strictly, and its values are shown shortly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.prediction.json_values import STRICT, check_type, describe_json_error, is_number, shorten


@pytest.mark.parametrize(("value", "expected"), [("a", str), (7, int), ([1], list), (True, bool)])
def test_a_value_of_the_expected_type_is_returned(value: Any, expected: type) -> None:
    assert check_type(value, expected, "name", "that") is value


@pytest.mark.parametrize(
    ("value", "expected", "shown"), [(True, int, "true"), (7.0, int, "7.0"), (None, str, "null"), ({}, list, "{}")]
)
def test_a_value_of_another_type_is_refused_as_json_shows_it(value: Any, expected: type, shown: str) -> None:
    with pytest.raises(ValueError, match=f"size is {shown}, not two numbers"):
        check_type(value, expected, "size", "two numbers")


@pytest.mark.parametrize(
    ("value", "number"), [(1, True), (-0.5, True), (True, False), ("1", False), (float("nan"), False)]
)
def test_only_finite_numbers_are_numbers(value: object, number: bool) -> None:
    assert is_number(value) is number


def test_a_long_value_is_cut() -> None:
    assert shorten("x" * 58) == f'"{"x" * 58}"'
    assert shorten("x" * 59) == f'"{"x" * 56}…'


def test_a_key_that_occurs_twice_is_named() -> None:
    assert json.loads('{"a": 1, "b": 2}', **STRICT) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match='has "b" more than once'):
        json.loads('{"a": 1, "b": 2, "b": 2}', **STRICT)


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a number in JSON"):
        json.loads(f'{{"a": {name}}}', **STRICT)


def test_a_syntax_error_is_named_as_one() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert describe_json_error(caught.value).startswith("not JSON (Expecting property name")
    assert describe_json_error(ValueError("a is null")) == "a is null"
