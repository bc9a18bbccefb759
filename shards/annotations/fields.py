"""Single values of published records, which files type loosely: integers, texts and flags."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from shards.errors import DataError

# Index files and NumPy hold integers of 64 bits.
_MAX_INTEGER = 2**63


def read_integer(record: Any, key: str) -> int:
    """A whole number.

    Raises:
        DataError: it is missing or no whole number.
    """
    return to_integer(read_value(record, key), key)


def to_integer(value: Any, name: str) -> int:
    """A whole number, also one that JSON writes as 7.0.

    Raises:
        DataError: it is none; `name` says which.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_INTEGER:
        return value
    raise DataError(f"{name} is {show_value(value)}, not a whole number")


def read_text(record: Any, key: str) -> str:
    """A text; bytes, which Python 3 makes of some pickles' strings, are decoded.

    Raises:
        DataError: it is missing, or is none.
    """
    value = read_value(record, key)
    if isinstance(value, bytes):
        value = decode_bytes(value)
    if not isinstance(value, str):
        raise DataError(f"{key} is {show_value(value)}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key} is {value[:40]!a}, which is not valid Unicode") from error
    return value


def decode_bytes(data: bytes) -> str:
    """A text that does not say its encoding: UTF-8, or Latin-1 where it is none."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def read_flag(record: Any, key: str, *, default: bool) -> bool:
    """A boolean, also as 1 and 0; `default` where it is missing or null.

    Raises:
        DataError: it is something else.
    """
    value = record.get(key)
    if value is None:
        return default
    if value in (0, 1):
        return bool(value)
    raise DataError(f"{key} is {show_value(value)}, neither true nor false")


def show_value(value: Any) -> str:
    """A value in few characters, also one that holds itself or a whole number that Python does not write out."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of thousands of digits"


def read_value(record: Any, key: str) -> Any:
    """The value of a key.

    Raises:
        DataError: the record is no mapping or has no such key.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"a {type(record).__name__} where a record should be")
    if key not in record:
        raise DataError(f"has no {key}")
    return record[key]
