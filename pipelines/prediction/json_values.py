"""Values of JSON from strangers: read more strictly than JSON's own reader does, and shown in messages.

What is wrong is a ValueError in words; whoever reads a file adds where in it that was.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn


def expect(value: Any, kind: type, name: str, wanted: str) -> Any:
    """The value, if it is of a kind.

    Raises:
        ValueError: it is of another; says that `name` should be `wanted`.
    """
    # To Python true and false are whole numbers, to JSON they are not.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is {shorten(value)}, not {wanted}")
    return value


def is_number(value: Any) -> bool:
    """Whether it is a finite number.

    Raises:
        OverflowError: it is a whole number beyond double precision.
    """
    return type(value) in (int, float) and math.isfinite(value)


def shorten(value: Any) -> str:
    """A value as JSON, cut to a length that fits into a message."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def describe_json_error(error: Exception) -> str:
    """One clause on why a text was refused; RecursionError means that it is nested too deep."""
    return f"not JSON ({error})" if isinstance(error, (json.JSONDecodeError, RecursionError)) else str(error)


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON's `object_pairs_hook`: an object whose keys differ.

    Raises:
        ValueError: a key occurs twice; JSON's own reader would keep the last.
    """
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"has {shorten(max(keys, key=keys.count))} more than once")
    return document


def reject_constant(name: str) -> NoReturn:
    """JSON's `parse_constant`: no NaN and no Infinity.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"{name} is not a number that JSON knows")
