"""Settings from outside: TOML files and `--set KEY=VALUE`, laid over defaults, and what differs between two of them.

A key that does not exist is an error that names the nearest one that does.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipelines.config.settings import NOT_FINGERPRINTED
from shards.errors import SettingsError
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import decode_text

SettingsT = TypeVar("SettingsT")


def read_settings(base: SettingsT, file: Path | None = None, overrides: Sequence[str] = ()) -> SettingsT:
    """`base`, changed by a TOML file, then by `KEY=VALUE` texts with dotted keys.

    Raises:
        SettingsError: an unreadable file, an unknown key (names the nearest), or a value that cannot be.
    """
    values = to_mapping(base)
    if file is not None:
        _merge(values, read_toml(file), source=str(file))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text}: write it as KEY=VALUE")
        nested: Any = parse_value(value.strip())
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, nested, source=f"--set {text}")
    return from_mapping(type(base), values)


def overlay_settings(base: SettingsT, changes: Mapping[str, Any], source: str, prefix: str = "") -> SettingsT:
    """`base` with nested values changed; `source` and `prefix` say in errors where they stand.

    Raises:
        SettingsError: an unknown key (names the nearest), or a value that cannot be.
    """
    values = to_mapping(base)
    _merge(values, changes, source, prefix)
    return from_mapping(type(base), values, source)


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        SettingsError: it cannot be read or is not TOML.
    """
    try:
        text = decode_text(file.read_bytes())
        if not text.strip():
            raise ValueError("it says nothing")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        content = describe_content(file)
        # A table's name in brackets looks like a list in JSON.
        if isinstance(error, tomllib.TOMLDecodeError) and content and content.kind in ("text", "JSON", "script"):
            raise SettingsError(f"{file}: cannot be read as TOML: {error}") from error
        fault = explain_unreadable(file, "settings in TOML", error, "give a TOML file in UTF-8")
        raise SettingsError(str(fault)) from error


def from_mapping(kind: type[SettingsT], values: Mapping[str, Any], source: str = "settings") -> SettingsT:
    """Settings of `kind` from plain values.

    Raises:
        SettingsError: a key is unknown or a value cannot be; says which and why.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise SettingsError(f"{source}: {_unknown_key(key, _list_keys(kind))}") from error
        if fault["type"] in ("missing", "missing_argument"):
            raise SettingsError(f"{source}: {key} is missing") from error
        value = "" if isinstance(fault["input"], Mapping) else f" = {fault['input']!r}"
        raise SettingsError(f"{source}: {key}{value}: {fault['msg'].removeprefix('Value error, ')}") from error


def to_mapping(settings: Any) -> dict[str, Any]:
    """Settings as plain values that JSON and TOML can hold."""
    plain: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return plain


def fingerprinted_settings(settings: Any) -> dict[str, Any]:
    """The settings that decide what a stage makes, as plain values."""
    return {key: value for key, value in to_mapping(settings).items() if key not in NOT_FINGERPRINTED}


def describe_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two nested mappings, e.g. `optimizer.head_lr 0.0005 → 0.001`."""
    changes: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += describe_differences(before, after, f"{prefix}{key}.")
        elif before != after:
            changes.append(f"{prefix}{key} {_show(before)} → {_show(after)}")
    return changes


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)


def parse_value(text: str) -> Any:
    """A TOML value where the text is one, else the text itself, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _merge(values: dict[str, Any], changes: Mapping[str, Any], source: str, prefix: str = "") -> None:
    for key, value in changes.items():
        if key not in values:
            raise SettingsError(f"{source}: {_unknown_key(prefix + key, _flatten(values, prefix))}")
        if isinstance(values[key], dict):
            if not isinstance(value, Mapping):
                raise SettingsError(f"{source}: {prefix}{key} is a group; set one of its keys, e.g. "
                                    f"{prefix}{key}.{next(iter(values[key]))}")  # fmt: skip
            _merge(values[key], value, source, f"{prefix}{key}.")
        else:
            values[key] = value


def _unknown_key(key: str, known: Sequence[str]) -> str:
    """A key typed without its group, or only in part, is as likely a slip as a misspelt one."""
    last = key.rpartition(".")[2]
    near = [name for name in known if name.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(key, known, n=1)
    near = near or [name for name in known if last in name.rpartition(".")[2].split("_")][:3]
    by_last = {name.rpartition(".")[2]: name for name in known}
    near = near or [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"no setting {key}; {hint}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in values.items():
        keys += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def _list_keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
