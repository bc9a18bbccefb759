"""Settings from TOML files and `--set KEY=VALUE`, and as plain values for JSON files.

An unknown key is an error that names the nearest known one. Keys and values of earlier versions are read under their
present names, and fingerprints are computed over the earlier ones, so that finished artifacts are still found.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipelines.config.fingerprints import ADDED_SETTINGS, NOT_FINGERPRINTED
from shards.errors import SettingsError, near_match_hint
from shards.file_kinds import describe_content, explain_unreadable
from shards.files import decode_text, read_input

SettingsT = TypeVar("SettingsT")

# Dotted keys of settings, and values of a key, as in earlier versions → as now.
_RENAMED_KEYS = {"loss.whole": "loss.global_mask", "model.auxiliary_boxes": "loss.auxiliary_boxes"}
_RENAMED_VALUES = {("mask_targets", "picture"): "image"}
_SHOWN = 80


def read_settings(
    base: SettingsT, file: Path | None = None, overrides: Sequence[str] = (), *, recipe: Path | None = None
) -> SettingsT:
    """`base`, changed by a recipe, then by a TOML file, then by `KEY=VALUE` texts with dotted keys.

    Values are checked after the last change.

    Raises:
        SettingsError: an unreadable file, an unknown key (names the nearest), or an invalid value.
    """
    values = to_mapping(base)
    for each in (recipe, file):
        if each is not None:
            _merge(values, _rename(read_toml(each)), source=str(each))
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"--set {text}: write it as KEY=VALUE")
        nested: Any = parse_value(value.strip())
        for part in reversed(key.strip().split(".")):
            nested = {part: nested}
        _merge(values, _rename(nested), source=f"--set {text}")
    return from_mapping(type(base), values)


def overlay_settings(
    base: SettingsT, changes: Mapping[str, Any], source: str, prefix: str = "", *, recipe: Path | None = None
) -> SettingsT:
    """`base`, changed by a recipe, then by nested values; errors begin with `source` and name keys with `prefix`.

    Raises:
        SettingsError: an unknown key (names the nearest), or an invalid value.
    """
    values = to_mapping(base)
    if recipe is not None:
        _merge(values, _rename(read_toml(recipe)), source=str(recipe))
    _merge(values, _rename(changes), source, prefix)
    return from_mapping(type(base), values, source)


def read_toml(file: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        SettingsError: it cannot be read or is not TOML.
    """
    try:
        text = decode_text(read_input(file))
        if not text.strip():
            raise ValueError("it is blank")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        content = describe_content(file)
        # describe_content takes a table's name in brackets for a list in JSON.
        if isinstance(error, tomllib.TOMLDecodeError) and content and content.kind in ("text", "JSON", "script"):
            raise SettingsError(f"{file}: cannot be read as TOML: {error}") from error
        reason = explain_unreadable(file, "settings in TOML", error, "give a TOML file in UTF-8")
        raise SettingsError(str(reason)) from error


def from_mapping(kind: type[SettingsT], values: Mapping[str, Any], source: str = "settings") -> SettingsT:
    """Settings of `kind` from plain values; keys left out keep their defaults.

    Raises:
        SettingsError: an unknown key (names the nearest), a missing key or an invalid value; begins with `source`.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            raise SettingsError(f"{source}: {_unknown_key(key, _list_keys(kind))}") from error
        if first["type"] in ("missing", "missing_argument"):
            raise SettingsError(f"{source}: {key} is missing") from error
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "tuple_type":
            message = f"expected a list, such as {json.dumps([first['input']], default=str)[:_SHOWN]}"
        if first["type"] != "value_error":
            shown = repr(first["input"])
            key += f" = {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '…'}"
        raise SettingsError(f"{source}: {key}: {message}" if key else f"{source}: {message}") from error


def to_mapping(settings: Any) -> dict[str, Any]:
    """Settings as plain values that JSON and TOML can hold."""
    plain: dict[str, Any] = TypeAdapter(type(settings)).dump_python(settings, mode="json")
    return plain


def fingerprinted_settings(settings: Any) -> dict[str, Any]:
    """The settings that decide what a stage writes, as plain values under the names of earlier versions."""
    values = {key: value for key, value in to_mapping(settings).items() if key not in NOT_FINGERPRINTED}
    for name, as_before in ADDED_SETTINGS.items():
        group, dot, key = name.rpartition(".")
        found = values.get(group) if dot else values
        if isinstance(found, dict) and key in found and found[key] == as_before:
            del found[key]
    for (key, before), now in _RENAMED_VALUES.items():
        values |= {key: before} if values.get(key) == now else {}
    return _move_keys(values, {now: before for before, now in _RENAMED_KEYS.items()})


def describe_differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The differences of two nested mappings under present names, e.g. `optimizer.head_lr 0.0005 → 0.001`."""
    changes: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += describe_differences(before, after, f"{prefix}{key}.")
        elif before != after:
            name = _RENAMED_KEYS.get(f"{prefix}{key}", f"{prefix}{key}")
            changes.append(f"{name} {_show(before)} → {_show(after)}")
    return changes


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)


def parse_value(text: str) -> Any:
    """The TOML value that the text spells, else the text itself, so that names need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _rename(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same changes with keys and values of earlier versions under their present names."""
    renamed = {key: _RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
               for key, value in changes.items()}  # fmt: skip
    return _move_keys(renamed, _RENAMED_KEYS)


def _move_keys(values: Mapping[str, Any], moves: Mapping[str, str]) -> dict[str, Any]:
    """A copy of nested values with keys `GROUP.KEY` moved; a group that is left empty is dropped."""
    moved = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for source, target in moves.items():
        (group, key), (new_group, new_key) = source.split("."), target.split(".")
        if isinstance(moved.get(group), dict) and key in moved[group]:
            value = moved[group].pop(key)
            if not moved[group]:
                del moved[group]
            if isinstance(moved.setdefault(new_group, {}), dict):
                moved[new_group][new_key] = value
    return moved


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
    """An error that names the nearest known keys: of the same last part, of similar spelling, or sharing a word."""
    last = key.rpartition(".")[2]
    near = [name for name in known if name.rpartition(".")[2] == last]
    near = near or difflib.get_close_matches(key, known, n=1)
    near = near or [name for name in known if last in name.rpartition(".")[2].split("_")][:3]
    by_last = {name.rpartition(".")[2]: name for name in known}
    near = near or [by_last[name] for name in difflib.get_close_matches(last, by_last, n=1)]
    return f"no setting {key}; {near_match_hint(key, known, near)}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in values.items():
        keys += _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def _list_keys(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
