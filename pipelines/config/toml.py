"""Settings as TOML, which the standard library only reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def format_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Nested plain values as a TOML document: the values of a table first, then its tables.

    Keys are bare words; values are strings, numbers, booleans, and lists and mappings of these.
    """
    lines = [f"{key} = {_format_value(value)}\n" for key, value in values.items() if not isinstance(value, Mapping)]
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines.append(f"\n[{prefix}{key}]\n{format_toml(value, f'{prefix}{key}.')}")
    return "".join(lines)


def _format_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_format_value, value))}]"
    if isinstance(value, float):
        return repr(value)
    # JSON and TOML escape strings alike, except for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
