"""Values of JSON from other programs: read more strictly than by Python's own reader, and quoted in errors.

All errors are ValueErrors in words; the caller adds the file and the record.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def check_type(value: Any, expected: type, name: str, words: str) -> Any:
    """The value, if it is of the expected type.

    Raises:
        ValueError: it is of another; `name` says which value, `words` what was expected.
    """
    # In Python, unlike in JSON, true and false are whole numbers.
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {shorten(value)}, not {words}")
    return value


def is_number(value: Any) -> bool:
    """Whether it is a finite number.

    Raises:
        OverflowError: it is a whole number beyond double precision.
    """
    return type(value) in (int, float) and math.isfinite(value)


def shorten(value: Any) -> str:
    """A value as JSON, at most 60 characters long."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def describe_json_error(error: Exception) -> str:
    """Why a text was refused, as one clause; RecursionError means that it is nested too deeply."""
    return f"not JSON ({error})" if isinstance(error, (json.JSONDecodeError, RecursionError)) else str(error)


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has {shorten(max(keys, key=keys.count))} more than once")
    return document


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


STRICT: dict[str, Any] = {"parse_constant": _reject_constant, "object_pairs_hook": _reject_duplicate_keys}
"""Options of `json.loads` that refuse NaN, Infinity and duplicate keys."""
